"""Paired comparisons: two sets of outcomes on the same images, with intervals, exact tests and Holm's correction; and
means of comparisons over models and data sets.

Significant, everywhere: p, corrected by Holm's method for all comparisons of its table, is below ALPHA. Words, counts
and colours of charts follow `verdicts`; an interval is drawn, and decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom, t
from statsmodels.stats.multitest import multipletests

from mlprobe_utils.stats.intervals import FIXED, PROBE, intervals, spread_of
from mlprobe_utils.stats.resampling import Resamples, Statistic, accuracy

ALPHA = 0.05  # of significance, after Holm
POWER = 0.8  # with which a difference or loss is to be found, as is usual in planning
WORDS = LOWER, HIGHER, NEITHER = "lower", "higher", "not significant"


class Pair(NamedTuple):
    place: Mapping[str, object]  # column -> value: its name
    before: np.ndarray | Statistic  # correct or not, bool [points, images] or [seeds, points, images], …
    after: np.ndarray | Statistic  # … or another metric on the same resamples; one seed is compared with each
    resamples: Resamples
    scope: str = PROBE

    def tests(self) -> pd.DataFrame:
        """After - before at every point: the columns of `intervals` and p, of outcomes under a scope of FIXED that
        of `sign_flip_p`; else of the t statistic that the interval is made from, so that the two agree."""
        before, after = self.before, self.after
        if outcomes := not isinstance(after, Statistic):
            correct = np.broadcast_arrays(before, after)
            before, after = (accuracy(side, self.resamples) for side in correct)
        change = after - before
        if outcomes and self.scope in FIXED:
            p = sign_flip_p(*correct, self.resamples.clusters)
        else:
            spread = spread_of(change, self.scope)
            p = 2 * t.sf(np.abs(spread.value) / spread.error, spread.freedom)
        return intervals(change, self.scope).assign(p=p)


def compare(
    pairs: Iterable[Pair], by: Sequence[str], change: str = "change", words: Sequence[str] | None = None
) -> pd.DataFrame:
    """All comparisons of one table, corrected for their number: `by` (columns of `Pair.place`); `change` (after -
    before), low, high (pp); p; p (Holm) over all rows; and with `words` (lower, higher, neither) verdict."""
    columns = ["value", "low", "high", "p"]
    records = [[*(pair.place[name] for name in by), *pair.tests().loc[0, columns]] for pair in pairs]
    table = pd.DataFrame(records, columns=[*by, change, *columns[1:]])
    return judged(table, change, words)


def judged(table: pd.DataFrame, change: str = "", words: Sequence[str] | None = None) -> pd.DataFrame:
    """A table of all comparisons that are made together, with p (Holm) and, with `words`, verdict (`verdicts`)."""
    table = table.assign(**{"p (Holm)": holm(table["p"])})
    return table.assign(verdict=verdicts(table[change], table["p (Holm)"], words)) if words else table


def verdicts(change: pd.Series, adjusted: pd.Series, words: Sequence[str] = WORDS) -> np.ndarray:
    """Of each comparison, whether it is significantly below 0, above 0, or neither; `adjusted` are its p (Holm)."""
    lower, higher, neither = words
    significant = adjusted < ALPHA
    return np.select([significant & (change < 0), significant & (change > 0)], [lower, higher], neither)


def sign_flip_p(before: np.ndarray, after: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Exact two-sided p of a difference in accuracy between paired outcomes, float [points]: the share of all
    2^clusters exchanges of before and after in whole clusters with a difference, summed over seeds, as large (Fisher's
    randomisation test); where every image is a cluster, the exact test of McNemar (1947)."""
    members = np.unique(clusters, return_inverse=True)[1]
    changed = after.astype(int) - before.astype(int)
    by_point = changed.reshape(-1, *changed.shape[-2:]).sum(axis=0)
    return np.array([_flipped(np.bincount(members, own).astype(int)) for own in by_point])


def _flipped(totals: np.ndarray) -> float:
    """Share of the assignments of signs to whole numbers whose sum is, in size, at least that of `totals`."""
    probabilities = np.ones(1)  # of the sum of those that are positive
    sizes, times = np.unique(np.abs(totals[totals != 0]), return_counts=True)
    for size, count in zip(sizes, times, strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        probabilities = np.convolve(probabilities, own)
    sums = 2 * np.arange(len(probabilities)) - len(probabilities) + 1
    return min(1.0, float(probabilities[np.abs(sums) >= abs(totals.sum())].sum()))


def holm(p: pd.Series) -> pd.Series:
    """p values adjusted for their number by Holm's method; nan is no comparison. For whole tables, as it is slow."""
    known = p.dropna().astype(float)
    adjusted = multipletests(known, method="holm")[1] if len(known) else known
    return pd.Series(adjusted, known.index).reindex(p.index)


def counted(compared: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Comparisons of `compare` by groups in the order they appear: `by`, means of `value`, low and high, pairs (how
    many), and those significantly higher and lower. The standard error of a mean is at most the mean of the standard
    errors: the mean of the single ones' sides holds whatever the correlation of the differences, and is too wide where
    they are independent."""
    verdict = verdicts(compared[value], compared["p (Holm)"])
    counts = {"pairs": 1} | {f"significantly {word}": verdict == word for word in (HIGHER, LOWER)}
    of_columns = dict.fromkeys((value, "low", "high"), "mean") | dict.fromkeys(counts, "sum")
    return compared.assign(**counts).groupby([*by], sort=False).agg(of_columns).reset_index()


def in_words(differences: pd.DataFrame, value: str) -> str:
    """The mean of all of them, as of `counted`, for a sentence: "+1.2 (-0.3 to +2.7)"."""
    mean, low, high = differences[[value, "low", "high"]].mean()
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if len(differences) else "nothing to compare"
