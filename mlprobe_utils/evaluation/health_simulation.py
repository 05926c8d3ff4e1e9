"""What noise does to health scores, shown on curves whose truth is known (audit, point 12), and what correcting gives.

Simulated are the answers to single images, so that a score is computed from them exactly as from a run's.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.evaluation.corrected_health import corrected_health
from mlprobe_utils.evaluation.health import health_score, health_scores

RESAMPLES = 200  # of the images, for the percentile interval
RAW_TIMES = 10  # so many test sets more of which only the raw score is computed, which is cheap

# Accuracy at place t of a module, from 0 at its first point to 1 at its last; i counts points back from the last.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "flat": lambda t, i: 0.85 + 0 * t,
    "rising": lambda t, i: 0.70 + 0.15 * t,
    "falling": lambda t, i: 0.85 - 0.15 * t,
    "volatile": lambda t, i: 0.80 + 0.05 * (-1.0) ** i,  # by 10 points at every step
    "jagged": lambda t, i: 0.80 + 0.07 * np.sin(i**2 + 1),  # by 5 points around its mean, without a rule to the eye
    "saturating": lambda t, i: 0.85 - 0.25 * np.exp(-6 * t),
    "one dip": lambda t, i: np.where(i == math.ceil(i.max() / 2), 0.65, 0.85),
    "restless": lambda t, i: 0.835 + 0.015 * (-1.0) ** i,  # by 3 points at every step: less than noise on 150 images
}
DEPENDENCES = ("neighbouring", "shared")


def true_curve(shape: str, points: int) -> np.ndarray:
    """True accuracy at each of `points` points, in shares: a formula of SHAPES. Raises InputError for another shape."""
    if shape not in SHAPES:
        raise unknown("shape", shape, SHAPES)
    return SHAPES[shape](np.linspace(0, 1, points), np.arange(points)[::-1])


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
    _check_correlation(correlation)
    normal = generator.standard_normal((len(curve), images))
    rest = math.sqrt(1 - correlation**2)
    if dependence == "shared":
        own = math.sqrt(1 - correlation) * normal
        normal = own + math.sqrt(correlation) * generator.standard_normal(images)
    else:
        for before, after in itertools.pairwise(range(len(curve))):
            normal[after] = correlation * normal[before] + rest * normal[after]
    return normal < stats.norm.ppf(curve)[:, None]


class Setting(NamedTuple):
    """A combination to simulate test sets of."""

    place: dict[str, str | int | float]  # shape, points, images, correlation, true score (percent)
    draw: Callable[[], np.ndarray]  # a test set, as of `simulate_correct`
    generator: np.random.Generator


def noise_bias(
    shapes: Iterable[str],
    points: Iterable[int],
    images: Iterable[int],
    correlations: Iterable[float],
    repeats: int,
    penalty: float,
    dependence: str = "neighbouring",
    seed: int = 0,
) -> pd.DataFrame:
    """Simulates test sets and sets the raw score of each beside that of the true curve.

    Its interval is the usual one, from the 2.5th to the 97.5th percentile over resampled images.

    Args:
        shapes: names of SHAPES.
        points: depths of a module.
        images: sizes of a test set.
        correlations: of `simulate_correct`.
        repeats: test sets simulated of each combination.
        penalty: lambda.
        dependence: of `simulate_correct`.
        seed: of all random numbers; a combination has its own, whichever others are simulated.

    Returns:
        A row a combination, points in percent: shape, points, images, correlation, true score, raw bias, error (its
        standard error), raw coverage (percent of intervals that hold the true score).
    """
    records = []
    for setting in _settings(shapes, points, images, correlations, penalty, dependence, seed):
        truth, size = setting.place["true score"], setting.place["images"]
        counts = setting.generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
        scores, ends = [], []
        for _ in range(repeats):
            right = setting.draw().T.astype(float)
            scores.append(100 * health_scores(right.mean(axis=0), penalty))
            ends.append(100 * np.quantile(health_scores(counts @ right / size, penalty), [0.025, 0.975]))
        found = {"raw bias": np.mean(scores) - truth, "error": stats.sem(scores)}
        records.append(setting.place | found | {"raw coverage": _covered(*np.transpose(ends), truth)})
    return pd.DataFrame(records)


def bias_and_coverage(
    shapes: Iterable[str],
    points: Iterable[int],
    images: Iterable[int],
    correlations: Iterable[float],
    repeats: int,
    penalty: float,
    dependence: str = "neighbouring",
    seed: int = 0,
) -> pd.DataFrame:
    """Simulates test sets and sets the corrected score of each beside that of the true curve.

    Its bias is that of the raw one, known better by more test sets, and the mean difference of the two.

    Args:
        shapes, points, images, correlations, penalty, dependence, seed: as of `noise_bias`.
        repeats: test sets simulated of each combination, and RAW_TIMES as many for the raw score.

    Returns:
        A row a combination, points in percent: shape, points, images, correlation, true score, raw bias, bias, error
        (its standard error, as the repeats are few), spread (standard deviation of the corrected score), coverage
        (percent of intervals that hold the true score), width (of its interval, mean).
    """
    records = []
    for setting in _settings(shapes, points, images, correlations, penalty, dependence, seed):
        truth = setting.place["true score"]
        raw, score, low, high = np.array([corrected_health(setting.draw(), penalty) for _ in range(repeats)]).T
        further = [100 * health_score(setting.draw().mean(axis=1), penalty) for _ in range(RAW_TIMES * repeats)]
        raw_bias = np.mean(further) - truth
        records.append(
            setting.place
            | {"raw bias": raw_bias, "bias": raw_bias + (score - raw).mean()}
            | {"error": math.hypot(stats.sem(score - raw), stats.sem(further)), "spread": score.std(ddof=1)}
            | {"coverage": _covered(low, high, truth), "width": (high - low).mean()}
        )
    return pd.DataFrame(records)


def _settings(
    shapes: Iterable[str],
    points: Iterable[int],
    images: Iterable[int],
    correlations: Iterable[float],
    penalty: float,
    dependence: str,
    seed: int,
) -> Iterator[Setting]:
    """Every combination, with random numbers of its own."""
    for shape, depth, size, correlation in itertools.product(shapes, points, images, correlations):
        curve = true_curve(shape, depth)
        generator = np.random.default_rng([seed, [*SHAPES].index(shape), depth, size, round(100 * correlation)])
        place = {"shape": shape, "points": depth, "images": size, "correlation": correlation}
        place["true score"] = 100 * health_score(curve, penalty)
        draw = functools.partial(simulate_correct, curve, size, correlation, generator, dependence)
        yield Setting(place, draw, generator)


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return 100 * float(np.mean((low <= truth) & (truth <= high)))


def _check_correlation(correlation: float) -> None:
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation is {correlation}: it needs to be from 0 on and below 1")
