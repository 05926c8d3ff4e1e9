"""Means of differences: groups, words, and an interval that holds however the differences depend on each other."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from mlprobe_utils.mean_differences import NOTHING, in_words, of_mean

TABLE = pd.DataFrame(
    {
        "dataset": ["b", "a", "b"],
        "change": [1.0, -2.0, 3.0],
        "low": [-1.0, -3.0, 2.0],
        "high": [4.0, -1.0, 6.0],
    }
)


def test_groups_keep_their_order_and_sides_are_means():
    found = of_mean(TABLE, "change", ["dataset"])
    assert found.to_dict("list") == {
        "dataset": ["b", "a"],
        "change": [2.0, -2.0],
        "low": [0.5, -3.0],
        "high": [5.0, -1.0],
    }


def test_words_say_all_three_numbers_or_that_there_is_nothing():
    assert in_words(TABLE[:1], "change") == "+1.0 (-1.0 to +4.0)"
    assert in_words(TABLE[:0], "change") == NOTHING


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_interval_holds_the_truth_however_the_differences_depend_on_each_other(correlation):
    """Exactly as often as it says where all are one and the same; oftener where they differ."""
    draw, errors, level = np.random.default_rng(1), np.array([1.0, 2.0, 4.0]), norm.ppf(0.975)
    shared, own = draw.standard_normal((4000, 1)), draw.standard_normal((4000, 3))
    seen = errors * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)
    rows = pd.DataFrame({"trial": np.repeat(np.arange(4000), 3), "change": seen.ravel()})
    rows = rows.assign(low=rows["change"] - level * np.tile(errors, 4000))
    rows = rows.assign(high=2 * rows["change"] - rows["low"])
    found = of_mean(rows, "change", ["trial"])
    held = ((found["low"] <= 0) & (found["high"] >= 0)).mean()
    assert held == pytest.approx(0.95, abs=0.01) if correlation == 1 else held > 0.96
