"""What tests of comparisons share: outcomes with a chosen share right, and how often chance may do something."""

import numpy as np
import pandas as pd
from scipy.stats import binom
from site_rows import rows_of

SURE = 1e-3  # a test fails by chance at most so often


def no_more(count: int, of: int, share: float) -> bool:
    """Whether so many of so many are no surprise where each happens with a probability of `share` or less."""
    return bool(binom.sf(count - 1, of, share) > SURE)


def no_fewer(count: int, of: int, share: float) -> bool:
    """Whether so few of so many are no surprise where each happens with a probability of `share` or more."""
    return bool(binom.cdf(count, of, share) > SURE)


def right_of(hard: np.ndarray, share: float, seed, shape: tuple = (), noise: float = 0.05) -> np.ndarray:
    """Which images are right, bool [*shape, images]: this share, the same hard ones wrong but for some luck."""
    return hard + np.random.default_rng(seed).normal(0, noise, (*shape, len(hard))) < share


def answers_of(right: np.ndarray, shuffled: int = 0, **columns) -> pd.DataFrame:
    """Prediction rows: as probe rows, with the more probable option as the parsed answer."""
    rows = rows_of(right, shuffled, **columns)
    return rows.assign(parsed=np.where(rows["p_Yes"] > 0.5, "Yes", "No"), thought_cut=False)
