"""The mean of several differences, with its interval, for tables and sentences."""

from collections.abc import Sequence

import pandas as pd

NOTHING = "nothing to compare"


def of_mean(differences: pd.DataFrame, value: str, by: Sequence[str] = ()) -> pd.DataFrame:
    """Means of differences, with intervals that hold however the differences go along with each other.

    Models are asked about the same images, so that their differences depend on each other. The standard error of a mean
    is at most the mean of the standard errors, which it reaches where all go fully along with each other. So each side
    of the interval is the mean of the single ones' sides: wide enough in any case, too wide where they are independent.

    Args:
        differences: `value`, low and high of each, and the columns of `by`.
        by: groups that each get a mean of their own, in the order they appear; none: one mean of all.

    Returns:
        The columns of `by`, `value`, low, high; no row without differences.
    """
    columns = [value, "low", "high"]
    if by:
        return differences.groupby([*by], sort=False)[columns].mean().reset_index()
    return differences[columns].mean().to_frame().T if len(differences) else differences[columns]


def in_words(differences: pd.DataFrame, value: str) -> str:
    """The mean of all of them for a sentence, as in "+1.2 (-0.3 to +2.7)"; NOTHING without any."""
    for mean, low, high in of_mean(differences, value).itertuples(index=False):
        return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
    return NOTHING
