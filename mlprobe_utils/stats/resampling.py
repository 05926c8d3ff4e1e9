"""Bootstrap resamples of a data set's images, drawn once for all that is compared on it, and statistics in each of
them.

Whole clusters are drawn, with replacement (Davison and Hinkley 1997, section 3.8; Field and Welsh 2007).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from mlprobe_utils.common.errors import InputError, unknown

RESAMPLES = 2000
RESAMPLED = ("accuracy", "f1", "precision", "recall", "auc", "balanced_accuracy", "sensitivity", "specificity")
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
        raise InputError(
            f"{len(clusters)} images of {len(names)} patient or duplicate group have no interval: two independent ones "
            "are the least; add images"
        )
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    drawn += len(names) * np.arange(resamples)[:, None]  # a place of its own for every resample's clusters
    counts = np.bincount(drawn.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return Resamples(counts.astype(np.int16)[:, members], members)


@dataclass(frozen=True)
class Statistic:
    """A statistic in percent, on the images as they are and in every resample; `after - before` pairs two of them."""

    values: np.ndarray  # float [points], or [seeds, points] of probes that were fitted with several seeds
    resampled: np.ndarray  # float [resamples, *values.shape]; nan in a resample that lacks a class
    clusters: float  # effective number of independent clusters, for their sizes (Kish 1965) and for the classes
    drawn: Resamples

    def at(self, places: Sequence[int]) -> "Statistic":
        """The statistic at some points, by their places, with repetition."""
        return replace(self, values=self.values[..., places], resampled=self.resampled[..., places])

    def __sub__(self, before: "Statistic") -> "Difference":
        """Raises ValueError for other resamples, or another number of seeds or points."""
        if self.drawn is not before.drawn:
            raise ValueError("no pairs: take both statistics from the same resamples, drawn once for a data set")
        if self.values.shape != before.values.shape:
            raise ValueError(f"no pairs: values are {self.values.shape} and {before.values.shape}")
        clusters = min(self.clusters, before.clusters)
        return Difference(self, before, self.values - before.values, self.resampled - before.resampled, clusters)


@dataclass(frozen=True)
class Difference:
    """Two statistics of the same images and resamples, the second subtracted from the first (percentage points)."""

    after: Statistic
    before: Statistic
    values: np.ndarray
    resampled: np.ndarray
    clusters: float


def accuracy(correct: np.ndarray, resamples: Resamples) -> Statistic:
    """Accuracy of every point in every resample; `correct` is bool [points, images] or [seeds, points, images]."""
    correct = _checked("correct", correct, resamples, bool)
    flat = correct.reshape(-1, correct.shape[-1]).astype(np.float32).T
    drawn = (resamples.weights @ flat) / resamples.sizes[:, None]
    drawn = drawn.reshape(-1, *correct.shape[:-1])
    return Statistic(100 * correct.mean(axis=-1), 100 * drawn, _equal_clusters(resamples.clusters), resamples)


def metric(
    name: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    options: Sequence[str],
    positive: str | None,
    resamples: Resamples,
) -> Statistic:
    """One of RESAMPLED of every point in every resample, equal to `metrics.score` of the images drawn; arguments as
    there, with `predicted` int [..., images] and `probabilities` float [..., images, options].

    Raises InputError for an unknown metric and a class that more than `MOST_MISSING` of the resamples lack, as few
    patients or duplicate groups have it; ValueError for arrays of other shapes or types.
    """
    if name not in RESAMPLED:
        raise unknown("metric", name, RESAMPLED)
    predicted = _checked("predicted", predicted, resamples, np.integer)
    if name == "accuracy":
        return accuracy(predicted == truth, resamples)
    of_all = positive is None or name == "balanced_accuracy"
    chosen = range(len(options)) if of_all else [list(options).index(positive)]
    needed = range(len(options)) if name in ("auc", "specificity") else chosen  # they take an option's rest, too
    missing = np.zeros(len(resamples.counts), dtype=bool)
    spread = {}
    for option in needed:
        spread[option] = _equal_clusters(resamples.clusters[truth == option])
        lacking = resamples.weights @ (truth == option) == 0
        if lacking.mean() > MOST_MISSING:
            having = len(np.unique(resamples.clusters[truth == option]))
            raise InputError(
                f"{name}: class '{options[option]}' is missing from {lacking.mean():.0%} of the resamples, as only "
                f"{having} patients or duplicate groups have it: add images of others, or show accuracy"
            )
        missing |= lacking
    flat = predicted.reshape(-1, predicted.shape[-1])
    weights = np.concatenate([np.ones((1, len(truth)), dtype=np.float32), resamples.weights])
    score = functools.partial(_area, probabilities) if name == "auc" else functools.partial(_of_counts, name)
    scores = np.mean([score(weights, truth == option, flat, option) for option in chosen], axis=0)
    scores[1:][missing] = np.nan
    values, drawn = scores[0].reshape(predicted.shape[:-1]), scores[1:].reshape(-1, *predicted.shape[:-1])
    clusters = len(chosen) ** 2 / sum(1 / spread[option] for option in chosen)
    if name in ("auc", "specificity"):
        clusters = min(spread.values())  # the first is no surer than either side of the ranking, the second of its rest
    return Statistic(100 * values, 100 * drawn, clusters, resamples)


def _equal_clusters(clusters: np.ndarray) -> float:
    """How many clusters of one size would give a mean the variance that these give it."""
    sizes = np.bincount(clusters)
    return float(sizes.sum() ** 2 / max((sizes**2).sum(), 1))


def _of_counts(name: str, weights: np.ndarray, true: np.ndarray, predicted: np.ndarray, option: int) -> np.ndarray:
    """A metric of the weighted confusion counts [weights, points]; a quotient of nothing by nothing counts as 0."""

    def count(chosen: np.ndarray) -> np.ndarray:
        return (weights @ chosen.astype(np.float32).T).astype(float)

    if name == "specificity":
        rest = weights.sum(axis=1, dtype=float)[:, None] - count(true[None])
        return count(~true & (predicted != option) & (predicted >= 0)) / np.maximum(rest, 1)
    positives, named, correct = count(true[None]), count(predicted == option), count((predicted == option) & true)
    top, bottom = {"precision": (1, named), "f1": (2, positives + named)}.get(name, (1, positives))
    return top * correct / np.maximum(bottom, 1)


def _area(
    probabilities: np.ndarray, weights: np.ndarray, true: np.ndarray, predicted: np.ndarray, option: int
) -> np.ndarray:
    """The weighted share of pairs of images that an option's probability ranks rightly, ties counted half."""
    inside, outside = weights[:, true], weights[:, ~true]
    pairs = np.maximum(inside.sum(axis=1) * outside.sum(axis=1), 1)
    areas = []
    for of_point in probabilities.reshape(len(predicted), len(true), -1)[:, :, option]:
        high, low = of_point[true][:, None], of_point[~true]
        ranked = (high > low) + np.float32(0.5) * (high == low)
        areas.append(((inside @ ranked.astype(np.float32)) * outside).sum(axis=1, dtype=float) / pairs)
    return np.stack(areas, axis=1)


def _checked(name: str, values: np.ndarray, resamples: Resamples, kind: type) -> np.ndarray:
    values, images = np.asarray(values), resamples.counts.shape[1]
    if not np.issubdtype(values.dtype, kind):
        raise ValueError(f"{name} must be of {kind.__name__}, found {values.dtype}")
    if values.ndim not in (2, 3) or values.shape[-1] != images or 0 in values.shape:
        raise ValueError(f"{name} must be [points, {images} images] or [seeds, points, images], found {values.shape}")
    return values


def simulate_correct(
    curve: np.ndarray, images: int, correlation: float, generator: np.random.Generator, shared: bool = False
) -> np.ndarray:
    """Which images are correct at each point, bool [points, images], where `curve` is the true accuracy [points].

    A Gaussian copula (Emrich and Piedmonte 1991): an image is correct where a standard normal variable lies below the
    quantile of the accuracy. `correlation` (from 0 on, below 1) is that of neighbouring points, falling geometrically
    with their distance; or if `shared` of any two points, as all find the same images difficult.
    """
    normal = generator.standard_normal((len(curve), images))
    if shared:
        own = np.sqrt(1 - correlation) * normal
        normal = own + np.sqrt(correlation) * generator.standard_normal(images)
    else:
        for after in range(1, len(curve)):
            normal[after] = correlation * normal[after - 1] + np.sqrt(1 - correlation**2) * normal[after]
    return normal < ndtri(curve)[:, None]
