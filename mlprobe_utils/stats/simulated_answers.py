"""Answers to images whose true accuracy is known, drawn at random."""

import itertools
import math

import numpy as np
from scipy.stats import norm

from mlprobe_utils.common.errors import unknown

DEPENDENCES = ("neighbouring", "shared")


def simulate_correct(
    curve: np.ndarray,
    images: int,
    correlation: float,
    generator: np.random.Generator,
    dependence: str = "neighbouring",
) -> np.ndarray:
    """Which images each point gets right, bool [points, images], through a Gaussian copula (Emrich and Piedmonte 1991).

    An image is right at a point where a standard normal variable lies below the quantile of the point's accuracy.

    Args:
        curve: true accuracy, float [points].
        images: how many, independent of each other.
        correlation: of the normal variables, from 0 on and below 1.
        generator: of random numbers.
        dependence: "neighbouring": `correlation` between neighbours, falling geometrically with the distance of points;
            "shared": between any two points, as all of them find the same images difficult.

    Raises:
        InputError: another dependence.
        ValueError: another correlation.
    """
    if dependence not in DEPENDENCES:
        raise unknown("dependence", dependence, DEPENDENCES)
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation is {correlation}: it needs to be from 0 on and below 1")
    normal = generator.standard_normal((len(curve), images))
    rest = math.sqrt(1 - correlation**2)
    if dependence == "shared":
        own = math.sqrt(1 - correlation) * normal
        normal = own + math.sqrt(correlation) * generator.standard_normal(images)
    else:
        for before, after in itertools.pairwise(range(len(curve))):
            normal[after] = correlation * normal[before] + rest * normal[after]
    return normal < norm.ppf(curve)[:, None]
