"""How large a difference of two accuracies has to be before a test set of some size can show it.

Two models on the same images differ only in those that one of them gets wrong. How often the exact test of McNemar
(1947) finds a true difference follows from the binomial distribution, as long as images are independent.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binom, norm

ALPHA = 0.05
OFTEN = 0.8  # how often a difference is to be found, as is usual in planning
NEVER = 1e-12  # chances that are left out


def chance_to_find(gain: float, disagreement: float, images: int, alpha: float = ALPHA) -> float:
    """How often McNemar's exact two-sided test finds a true difference.

    Args:
        gain: true difference of the accuracies, as a share.
        disagreement: share of images that only one of the models gets right; ValueError if it is less than the gain.
        images: of the test set, all independent.
    """
    if not abs(gain) <= disagreement <= 1 or disagreement == 0:
        raise ValueError(f"disagreement must lie between the gain ({gain}) and 1, found {disagreement}")
    ends = binom.isf([1 - NEVER, NEVER], images, disagreement)
    split = np.arange(max(ends[0], 0), ends[1] + 1)  # images that the two disagree on
    # the fewest on the smaller side that a coin makes too seldom; -1: no count is seldom enough
    limit = binom.ppf(alpha / 2, split, 0.5)
    limit = np.where(binom.cdf(limit, split, 0.5) > alpha / 2, limit - 1, limit)
    won = (1 + gain / disagreement) / 2
    found = binom.cdf(limit, split, won) + binom.sf(split - limit - 1, split, won)
    return float(binom.pmf(split, images, disagreement) @ np.where(limit < 0, 0, found))


def chance_to_find_mean(gain: float, disagreement: float, images: Sequence[int], alpha: float = ALPHA) -> float:
    """As `chance_to_find`, of the mean over test sets with this gain and disagreement, in the normal approximation."""
    variance = sum((disagreement - gain**2) / own for own in images) / len(images) ** 2
    far, critical = np.sqrt(gain**2 / variance), norm.isf(alpha / 2)
    return float(norm.sf(critical - far) + norm.cdf(-critical - far))


def least_gain(disagreement: float, images: int, often: float = OFTEN) -> float:
    """The smallest true difference that is found `often`, as a share; nan where not even the largest is."""
    if chance_to_find(disagreement, disagreement, images) < often:
        return np.nan
    return brentq(lambda gain: chance_to_find(gain, disagreement, images) - often, 0, disagreement, xtol=1e-5)


def images_needed(gain: float, disagreement: float, often: float = OFTEN, most: int = 10**6) -> int | None:
    """How many test images find a difference `often`, to one in a hundred; None where `most` are too few."""
    low, high = 1, 1
    while chance_to_find(gain, disagreement, high) < often:
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        enough = chance_to_find(gain, disagreement, middle) >= often
        low, high = (low, middle) if enough else (middle, high)
    return high


def table(gains: Sequence[float], disagreements: Mapping[str, float | None], images: Mapping[str, int]) -> pd.DataFrame:
    """How often gains are found on test sets, and how many images would find them OFTEN.

    Args:
        gains: in percentage points.
        disagreements: what a column says -> percent of the images; None: as few as can be, the gain itself.
        images: of each test set, by name.

    Returns:
        gain, they disagree on, a column a test set, their mean (chances in percent), images needed.
    """
    rows = []
    for gain in gains:
        for words, percent in disagreements.items():
            share, often = abs(gain) / 100, (abs(gain) if percent is None else max(percent, abs(gain))) / 100
            found = {name: 100 * chance_to_find(share, often, own) for name, own in images.items()}
            found["mean of all"] = 100 * chance_to_find_mean(share, often, [*images.values()])
            found["images needed"] = images_needed(share, often)
            rows.append({"gain": gain, "they disagree on": words} | found)
    return pd.DataFrame(rows).astype({"images needed": "Int64"})


def least_gains(disagreements: Mapping[str, float | None], images: Mapping[str, int]) -> pd.DataFrame:
    """The smallest gain that is found OFTEN, in points: they disagree on, a column a test set; nan where none is.

    Args: as of `table`; a disagreement that depends on the gain (None) is left out.
    """
    rows = []
    for words, percent in disagreements.items():
        if percent is not None:
            found = {name: 100 * least_gain(percent / 100, own) for name, own in images.items()}
            rows.append({"they disagree on": words} | found)
    return pd.DataFrame(rows)
