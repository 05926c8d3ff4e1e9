"""Predictions on images whose true accuracy is known, drawn at random."""

import itertools
import math

import numpy as np
from scipy.stats import norm


def simulate_correct(
    curve: np.ndarray,
    images: int,
    correlation: float,
    generator: np.random.Generator,
    dependence: str = "neighbouring",
) -> np.ndarray:
    """Which images are correct at each point, bool [points, images], where `curve` is the true accuracy [points].

    A Gaussian copula (Emrich and Piedmonte 1991): an image is correct where a standard normal variable lies below the
    quantile of the accuracy. `correlation` (from 0 on, below 1) is that of neighbouring points, falling geometrically
    with their distance, or with `dependence` "shared" of any two points, as all find the same images difficult.
    """
    normal = generator.standard_normal((len(curve), images))
    if dependence == "shared":
        own = math.sqrt(1 - correlation) * normal
        normal = own + math.sqrt(correlation) * generator.standard_normal(images)
    else:
        for before, after in itertools.pairwise(range(len(curve))):
            normal[after] = correlation * normal[before] + math.sqrt(1 - correlation**2) * normal[after]
    return normal < norm.ppf(curve)[:, None]
