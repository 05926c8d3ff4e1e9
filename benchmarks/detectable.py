"""How large a difference of two accuracies has to be before a test set of some size can show it by the exact test of
McNemar (1947), as long as images are independent."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binom, norm

from mlprobe_utils.analysis.adaptation import POWER
from mlprobe_utils.stats.paired import ALPHA

NEGLIGIBLE = 1e-12  # probabilities that are left out


def power(gain: float, disagreement: float, images: int) -> float:
    """How often McNemar's exact two-sided test finds a true difference of the accuracies, a share. `disagreement` is
    the share of images that only one of the models gets right; ValueError if it is less than the gain."""
    if not abs(gain) <= disagreement <= 1 or disagreement == 0:
        raise ValueError(f"disagreement must lie between the gain ({gain}) and 1, found {disagreement}")
    ends = binom.isf([1 - NEGLIGIBLE, NEGLIGIBLE], images, disagreement)
    split = np.arange(max(ends[0], 0), ends[1] + 1)  # images that the two disagree on
    # the largest count on the smaller side that is significant; -1: none is
    limit = binom.ppf(ALPHA / 2, split, 0.5)
    limit = np.where(binom.cdf(limit, split, 0.5) > ALPHA / 2, limit - 1, limit)
    won = (1 + gain / disagreement) / 2
    found = binom.cdf(limit, split, won) + binom.sf(split - limit - 1, split, won)
    return float(binom.pmf(split, images, disagreement) @ np.where(limit < 0, 0, found))


def images_needed(gain: float, disagreement: float, most: int = 10**6) -> int | None:
    """How many test images give POWER, to one in a hundred; None where `most` are too few."""
    high = 1
    while power(gain, disagreement, high) < POWER:
        if (high := 2 * high) > most:
            return None
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if power(gain, disagreement, middle) >= POWER else (middle, high)
    return high


def table(gains: Sequence[float], disagreements: Mapping[str, float | None], images: Mapping[str, int]) -> pd.DataFrame:
    """How often gains (pp) are found on test sets, and how many images would find them with POWER: gain,
    disagreement, a column per test set, mean of all (power in percent; the last in the normal approximation), images
    needed. `disagreements`: label -> percent of the images (None: the fewest possible, the gain itself); `images`: name
    -> number."""
    rows = []
    for gain, (words, percent) in product(gains, disagreements.items()):
        share, often = abs(gain) / 100, max(percent or 0, abs(gain)) / 100
        found = {name: 100 * power(share, often, own) for name, own in images.items()}
        variance = sum((often - share**2) / own for own in images.values()) / len(images) ** 2
        far, critical = np.sqrt(share**2 / variance), norm.isf(ALPHA / 2)
        found["mean of all"] = 100 * (norm.sf(critical - far) + norm.cdf(-critical - far))
        found["images needed"] = images_needed(share, often)
        rows.append({"gain": gain, "disagreement": words} | found)
    return pd.DataFrame(rows).astype({"images needed": "Int64"})
