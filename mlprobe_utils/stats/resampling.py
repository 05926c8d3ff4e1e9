"""Bootstrap resamples of a data set's images, drawn once for all that is compared on it, and statistics in each of
them. Whole clusters are drawn, with replacement (Davison and Hinkley 1997, section 3.8; Field and Welsh 2007)."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mlprobe_utils.common.errors import InputError

RESAMPLES = 2000
LEAST_FREEDOM = 4  # degrees, of a variance between runs: with fewer, intervals hold too seldom
MOST_MISSING = 0.05  # of the resamples may lack a class


@dataclass(frozen=True)
class Resamples:
    counts: np.ndarray  # how often each image is drawn, int [resamples, images]
    clusters: np.ndarray  # which one each image belongs to, int [images]

    @cached_property
    def weights(self) -> np.ndarray:
        """The counts for products of matrices: float32, in which whole numbers up to 2^24 are exact."""
        return self.counts.astype(np.float32)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many images are drawn, float [resamples]."""
        return self.counts.sum(axis=1, dtype=float)


def resample(clusters: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Draws as many clusters as there are, with replacement; InputError where there are fewer than two. `clusters` says
    which images belong together [images]."""
    names, members = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        found = f"{len(clusters)} images of {len(names)} patient or duplicate group allow no interval"
        raise InputError(f"{found}: add images of other patients")
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    drawn += len(names) * np.arange(resamples)[:, None]  # a place of its own for every resample's clusters
    counts = np.bincount(drawn.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return Resamples(counts.astype(np.int16)[:, members], members)


class Between(NamedTuple):
    """Variance between runs of a training (squared percentage points), pooled over models, with degrees of freedom."""

    seen: float  # as the runs' values differ
    by_images: float  # what the choice of images contributes to it
    freedom: int  # runs minus one, summed over models

    @property
    def variance(self) -> float:
        return max(self.seen - self.by_images, 0.0)


@dataclass(frozen=True)
class Statistic:
    """A statistic in percent, on the images as they are and in every resample; `after - before` pairs two of them."""

    values: np.ndarray  # float [points], or [seeds, points] of probes that were fitted with several seeds
    resampled: np.ndarray  # float [resamples, *values.shape]; nan in a resample that lacks a class
    clusters: float  # effective number of independent clusters, for their sizes (Kish 1965) and for the classes
    drawn: Resamples
    sides: tuple["Statistic", "Statistic"] | None = None  # of a difference (percentage points): after and before
    # of means over runs, by `retrained`: how often each variance counts, which of one model is 1 / runs
    runs: Mapping[Between, float] = field(default_factory=dict)

    def at(self, places: Sequence[int]) -> "Statistic":
        """The statistic at some points, by their places, with repetition."""
        sides = self.sides and tuple(side.at(places) for side in self.sides)
        return replace(self, values=self.values[..., places], resampled=self.resampled[..., places], sides=sides)

    def __sub__(self, before: "Statistic") -> "Statistic":
        """Raises ValueError for other resamples, or another number of seeds or points."""
        if self.drawn is not before.drawn:
            raise ValueError("not paired: compute both statistics on the same resamples of the data set")
        if self.values.shape != before.values.shape:
            raise ValueError(f"not paired: values are {self.values.shape} and {before.values.shape}")
        values, resampled = self.values - before.values, self.resampled - before.resampled
        runs = dict(Counter(self.runs) + Counter(before.runs))
        return Statistic(values, resampled, min(self.clusters, before.clusters), self.drawn, (self, before), runs)


def accuracy(correct: np.ndarray, resamples: Resamples) -> Statistic:
    """Accuracy of every point in every resample; `correct` is bool [points, images] or [seeds, points, images]."""
    shape, images = correct.shape, len(resamples.clusters)
    if correct.dtype != bool or len(shape) not in (2, 3) or shape[-1] != images or 0 in shape:
        wanted = f"bool [points, {images} images] or [seeds, points, images]"
        raise ValueError(f"correct must be {wanted}, found {correct.dtype} {shape}")
    drawn = resamples.weights @ correct.reshape(-1, images).astype(np.float32).T / resamples.sizes[:, None]
    resampled = 100 * drawn.reshape(-1, *shape[:-1])
    return Statistic(100 * correct.mean(axis=-1), resampled, equal_clusters(resamples.clusters), resamples)


def equal_clusters(clusters: np.ndarray) -> float:
    """How many clusters of one size would give a mean the variance that these give it."""
    sizes = np.bincount(clusters)
    return float(sizes.sum() ** 2 / max((sizes**2).sum(), 1))


def retrained(
    found: Mapping[Hashable, Statistic], pooled: Callable[[Hashable], Hashable] = lambda key: None
) -> dict[Hashable, Statistic]:
    """The means over runs of statistics [runs, points], each of a model, with what other runs of the same training
    would change: a variance pooled over all keys for which `pooled` is the same, such as the data set. Where there
    are too few runs for that (LEAST_FREEDOM), and of a single one, `runs` stay empty."""
    shared = {of: between_runs(own for key, own in found.items() if pooled(key) == of) for of in map(pooled, found)}
    known = {of for of, between in shared.items() if between and between.freedom >= LEAST_FREEDOM}
    means = {}
    for key, own in found.items():
        runs = {shared[pooled(key)]: 1 / len(own.values)} if len(own.values) > 1 and pooled(key) in known else {}
        means[key] = replace(own, values=own.values.mean(axis=0), resampled=own.resampled.mean(axis=1), runs=runs)
    return means


def between_runs(found: Iterable[Statistic]) -> Between | None:
    """The variance between runs, pooled over statistics [runs, points]; None where none has several runs. By how much
    runs differ as each decides some images by itself, the resamples show."""
    seen, by_images, freedom = 0.0, 0.0, 0
    for own in found:
        around = own.resampled[~np.isnan(own.resampled).any(axis=(1, 2))]
        apart = [one - one.mean(axis=-2, keepdims=True) for one in (own.values, around - around.mean(axis=0))]
        seen += np.square(apart[0]).sum()
        by_images += np.square(apart[1]).sum(axis=(1, 2)).mean() * own.clusters / max(own.clusters - 1, 1)
        freedom += own.values.size - own.values.shape[1]
    return Between(seen / freedom, by_images / freedom, freedom) if freedom else None
