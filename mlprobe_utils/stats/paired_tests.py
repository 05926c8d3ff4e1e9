"""Whether two accuracies on the same images differ: exact tests, and p values corrected for their number."""

import numpy as np
import pandas as pd
from scipy.stats import binom, t

from mlprobe_utils.stats.intervals import PROBE, intervals, spread_of
from mlprobe_utils.stats.resampling import Resamples, accuracy


def paired_tests(before: np.ndarray, after: np.ndarray, resamples: Resamples, question: str = PROBE) -> pd.DataFrame:
    """Accuracy after less before at every point, with its test: the columns of `intervals`, p, p (Holm).

    What lies before and after may be two stages, two models, two points, or a model and its damaged copy, if both
    were asked about the same images.

    Args:
        before, after: whether each image is right, bool [points, images] or [seeds, points, images].
        question: of `intervals.QUESTIONS`. Of PROBE, p is that of `sign_flip_p`; of RECIPE, of the t statistic that the
            interval is made from, so that the two agree.

    Raises:
        InputError, ValueError: as `accuracy` and `intervals`.
    """
    change = accuracy(after, resamples) - accuracy(before, resamples)
    table = intervals(change, question)
    if question == PROBE:
        p = sign_flip_p(before, after, resamples.clusters)
    else:
        spread = spread_of(change, question)
        p = 2 * t.sf(np.abs(spread.value) / spread.error, spread.freedom)
    return table.assign(p=p, **{"p (Holm)": holm(pd.Series(p)).to_numpy()})


def sign_flip_p(before: np.ndarray, after: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Exact two-sided p of a difference in accuracy between paired outcomes, float [points].

    If before and after were the same, exchanging them in any cluster would be as likely as not: p is the share of all
    2^clusters exchanges with a difference as large (Fisher's randomisation test). Where every image is a cluster of its
    own this is the exact test of McNemar (1947).

    Args:
        before, after: whether each image is right, bool [points, images] or [seeds, points, images]; seeds are summed.
        clusters: which images belong together, int [images].
    """
    members = np.unique(clusters, return_inverse=True)[1]
    changed = after.astype(int) - before.astype(int)
    by_point = changed.reshape(-1, *changed.shape[-2:]).sum(axis=0)
    return np.array([_flipped(np.bincount(members, own).astype(int)) for own in by_point])


def _flipped(totals: np.ndarray) -> float:
    """Share of the assignments of signs to whole numbers whose sum is, in size, at least that of `totals`."""
    chances = np.ones(1)  # of the sum of those that are positive
    sizes, times = np.unique(np.abs(totals[totals != 0]), return_counts=True)
    for size, count in zip(sizes, times, strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, own)
    sums = 2 * np.arange(len(chances)) - len(chances) + 1
    return min(1.0, float(chances[np.abs(sums) >= abs(totals.sum())].sum()))


def holm(p: pd.Series) -> pd.Series:
    """p values adjusted for their number by Holm's method; nan is no comparison."""
    known = p.dropna().sort_values()
    adjusted = (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1)
    return adjusted.reindex(p.index)
