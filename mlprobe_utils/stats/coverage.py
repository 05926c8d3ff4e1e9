"""How often the intervals hold the truth: counted on simulated outcomes whose truth is known.

Whether an image is correct at a point is decided by a normal variable, the sum of what its cluster, the image, the seed
of the probe, and the image under that seed add to it, each correlated along the curve and between the two stages. So
the probability of a correct answer is known exactly, given the seeds (*this probe*) or not (*this recipe*).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from mlprobe_utils.stats.intervals import LEVEL, PROBE, RECIPE, intervals
from mlprobe_utils.stats.resampling import Resamples, accuracy, resample

TEST_SETS = {"busi": (150, 1.0), "covid19-ct": (203, 2.1), "chest-xray": (624, 1.5)}  # images, and in a cluster (mean)
CURVES = {  # first and last accuracy of the two stages
    "in the middle": ((0.70, 0.85), (0.72, 0.93)),
    "near the ceiling": ((0.90, 0.97), (0.92, 0.99)),
}
ALONG, BETWEEN = 0.9, 0.8  # correlation of neighbouring points, and of the stages
PARTS = {"cluster": 0.3, "image": 0.4, "seed": 0.01, "image under a seed": 0.29}  # of the variance


@dataclass(frozen=True)
class Simulated:
    """Outcomes and their truth.

    Attributes:
        right: whether each image is right, bool [seeds, stages, points, images].
        fitted: probability to be right of each fitted probe, float [seeds, stages, points].
        expected: the same over all seeds, float [stages, points].
    """

    right: np.ndarray
    fitted: np.ndarray
    expected: np.ndarray


def simulate(expected: np.ndarray, clusters: np.ndarray, seeds: int, rng: np.random.Generator) -> Simulated:
    """Draws outcomes of images in clusters (int [images], from 0) with the accuracies `expected` [stages, points]."""
    stages, points = expected.shape
    along = ALONG ** np.abs(np.subtract.outer(np.arange(points), np.arange(points)))
    between = np.where(np.eye(stages, dtype=bool), 1, BETWEEN)
    factor = np.linalg.cholesky(np.kron(between, along)).T

    def drawn(part: str, *shape: int) -> np.ndarray:
        return np.sqrt(PARTS[part]) * (rng.standard_normal((*shape, stages * points)) @ factor)

    mean, images = norm.ppf(expected).ravel(), len(clusters)
    level = mean + drawn("seed", seeds)
    of_image = drawn("cluster", clusters.max() + 1)[clusters] + drawn("image", images)
    right = level[:, None] + of_image + drawn("image under a seed", seeds, images) > 0
    fitted = norm.cdf(level / np.sqrt(1 - PARTS["seed"]))
    right = np.moveaxis(right, -1, 1).reshape(seeds, stages, points, images)
    return Simulated(right, fitted.reshape(seeds, stages, points), expected)


def simulated_clusters(images: int, mean_size: float, rng: np.random.Generator) -> np.ndarray:
    """The cluster of each image, int [images]; sizes are geometric, as of patients who come once or again."""
    return np.repeat(np.arange(images), rng.geometric(1 / mean_size, images))[:images]


def coverage(
    test_sets: Mapping[str, tuple[int, float]] = TEST_SETS,
    curves: Iterable[str] = tuple(CURVES),
    points: int = 24,
    seeds: int = 5,
    repetitions: int = 200,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the 95 % intervals and bands hold the truth, by simulation.

    Args:
        test_sets: name -> images, and images that a cluster has in the mean.
        curves: of CURVES.
        seeds: for RECIPE; PROBE is of the first.
        repetitions: simulated data sets for each test set and curve.

    Returns:
        dataset, images, curve, question, what (accuracy, or change between the stages), interval (`pointwise` and
        `band` from `intervals`, or the plain `percentile` interval of the bootstrap), covered (percent of intervals
        that hold the truth, of bands that hold all of it), error (its standard error), width (mean, percentage points).
    """
    rows = []
    for name, (images, size) in test_sets.items():
        for curve in curves:
            expected = np.array([np.linspace(*ends, points) for ends in CURVES[curve]])
            rng = np.random.default_rng([seed, images, list(CURVES).index(curve)])
            place = {"dataset": name, "images": images, "curve": curve}
            for _ in range(repetitions):
                clusters = simulated_clusters(images, size, rng)
                drawn = resample(clusters, resamples, int(rng.integers(2**31)))
                rows += [place | row for row in _held(simulate(expected, clusters, seeds, rng), drawn)]
    groups = pd.DataFrame(rows).groupby([*place, "question", "what", "interval"], sort=False)
    table = groups.agg(covered=("covered", "mean"), error=("covered", "sem"), width=("width", "mean"))
    return table.assign(covered=100 * table["covered"], error=100 * table["error"]).reset_index()


def _held(made: Simulated, drawn: Resamples) -> Iterator[dict]:
    """question, what, interval, covered (share of points), width (points) of every construction on one data set."""
    for question, right, truth in ((PROBE, made.right[:1], made.fitted[0]), (RECIPE, made.right, made.expected)):
        before, after = (accuracy(right[:, stage], drawn) for stage in range(2))
        for what, of, share in (("accuracy", before, truth[0]), ("change", after - before, truth[1] - truth[0])):
            table = intervals(of, question)
            ends = {"pointwise": table[["low", "high"]], "band": table[["band_low", "band_high"]]}
            if question == PROBE:
                ends["percentile"] = np.quantile(of.resampled[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
            for name, pair in ends.items():
                low, high = np.asarray(pair).T
                holds = (low <= 100 * share) & (100 * share <= high)
                covered = float(holds.all()) if name == "band" else holds.mean()
                yield dict(question=question, what=what, interval=name, covered=covered, width=np.mean(high - low))
