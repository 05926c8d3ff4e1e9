"""Feature health scores (paper section 3.3, equations 1 to 3)."""

from collections.abc import Sequence

import numpy as np


def growth_factor(performance: Sequence[float]) -> float:
    """GF = ln(P_end / sqrt(P_start * P_min)), equation 1; `performance` at a module's points in order, each > 0.

    Raises:
        ValueError: no points, or a performance that is not positive (the logarithm has no value there).
    """
    values = _checked(performance)
    return float(np.log(values[-1] / np.sqrt(values[0] * values.min())))


def volatility_penalty(performance: Sequence[float], penalty: float) -> float:
    """VP = exp(-lambda * sum |P_(i+1) - P_i| / P_end), equation 2; `penalty` is lambda. Raises as `growth_factor`."""
    values = _checked(performance)
    return float(np.exp(-penalty * np.abs(np.diff(values)).sum() / values[-1]))


def health_score(performance: Sequence[float], penalty: float) -> float:
    """FHS = P_end * (1 + GF) * VP, equation 3, in the units of `performance`.

    A module with one point has GF 0 and VP 1: its score is the plain performance (audit, point 3).
    """
    return float(health_scores(_checked(performance), penalty))


def health_scores(performances: np.ndarray, penalty: float) -> np.ndarray:
    """As `health_score`, of many curves at once and without its checks: float [..., points], all > 0, to [...]."""
    start, end = performances[..., 0], performances[..., -1]
    growth = np.log(end / np.sqrt(start * performances.min(axis=-1)))
    variation = np.abs(np.diff(performances)).sum(axis=-1)
    return end * (1 + growth) * np.exp(-penalty * variation / end)


def _checked(performance: Sequence[float]) -> np.ndarray:
    values = np.asarray(performance, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError("a health score needs the performance at one point or more")
    if not (values > 0).all():
        raise ValueError(f"a health score needs positive performances, found {values.min()}")
    return values
