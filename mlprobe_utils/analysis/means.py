"""Means of comparisons over models and data sets, for the tables and sentences of pages."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.stats.intervals import LEVEL
from mlprobe_utils.stats.paired import HIGHER, LOWER


def of_mean(differences: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Means of differences by groups in the order they appear: `by`, `value`, low, high. The standard error of a mean
    is at most the mean of the standard errors: the mean of the single ones' sides holds whatever the correlation of the
    differences, and is too wide where they are independent."""
    return differences.groupby([*by], sort=False)[[value, "low", "high"]].mean().reset_index()


def of_independent(estimates: pd.DataFrame, by: Sequence[str], *ends: tuple[str, str, str]) -> pd.DataFrame:
    """Means by groups of estimates that are independent, as of several data sets: `by`, and the other columns. The
    intervals of `ends` (value, low, high) are joined (Zou and Donner 2008); nan where one of a group is."""
    rows = []
    for place, own in estimates.groupby([*by], sort=False):
        row = own.drop(columns=[*by]).mean(skipna=False)
        for value, low, high in ends:
            halves = [np.sqrt(np.square(own[value] - own[end]).sum(skipna=False)) / len(own) for end in (low, high)]
            row[[low, high]] = row[value] - halves[0], row[value] + halves[1]
        rows.append(dict(zip(by, place, strict=True)) | row.to_dict())
    return pd.DataFrame(rows, columns=estimates.columns)


def counted(compared: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Comparisons of `compare` by groups: `of_mean`, pairs (how many), and those significantly higher and lower."""
    sign = np.sign(compared[value]).where(compared["p (Holm)"] < 1 - LEVEL, 0)
    signs = {f"significantly {HIGHER}": sign > 0, f"significantly {LOWER}": sign < 0}
    counts = compared[[*by]].assign(pairs=1, **signs).groupby([*by], sort=False).sum().reset_index()
    return of_mean(compared, value, by).merge(counts, on=[*by])


def in_words(differences: pd.DataFrame, value: str) -> str:
    """The mean of all of them, as `of_mean`, for a sentence: "+1.2 (-0.3 to +2.7)"."""
    mean, low, high = differences[[value, "low", "high"]].mean()
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if len(differences) else "nothing to compare"
