"""How sure a change of accuracy is: 95 % intervals of paired differences. Does not import torch."""

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000


def paired_interval(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Accuracy after less before on the same images, with the ends of its interval, in percentage points.

    The percentile bootstrap over images (Efron and Tibshirani 1993, chapter 13). An image adds -1, 0 or 1 to the
    difference, so that resampling images is drawing how many of each there are.

    Args:
        before, after: whether each image is right, bool [images].
    """
    difference = after.astype(int) - before.astype(int)
    shares = [(difference == value).mean() for value in (-1, 0, 1)]
    drawn = np.random.default_rng(seed).multinomial(len(difference), shares, RESAMPLES)
    means = 100 * (drawn[:, 2] - drawn[:, 0]) / len(difference)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return 100 * difference.mean(), float(low), float(high)
