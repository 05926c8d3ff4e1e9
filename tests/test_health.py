"""Health scores: the paper's three equations, by hand and by their properties."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlprobe_utils.errors import InputError
from mlprobe_utils.health import growth_factor, health_score, health_scores, volatility_penalty
from mlprobe_utils.profiles import health_by_run

performances = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=30)


def test_equations_by_hand():
    curve = [0.5, 0.4, 0.8]  # start 0.5, worst 0.4, end 0.8; total variation 0.1 + 0.4
    assert growth_factor(curve) == pytest.approx(math.log(0.8 / math.sqrt(0.2)))
    assert growth_factor(curve) == pytest.approx(0.5815754)
    assert volatility_penalty(curve, 0.2) == pytest.approx(math.exp(-0.125))
    assert health_score(curve, 0.2) == pytest.approx(0.8 * 1.5815754 * 0.8824969)


def test_falling_curve_by_hand():
    assert growth_factor([0.8, 0.4]) == pytest.approx(math.log(0.4 / math.sqrt(0.32)))
    assert health_score([0.8, 0.4], 0.2) == pytest.approx(0.4 * (1 - 0.3465736) * math.exp(-0.2))


@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(st.floats(0.05, 1), min_size=n, max_size=n), min_size=1)))
def test_scores_of_many_curves_are_those_of_each(curves):
    product = [c[-1] * (1 + growth_factor(c)) * volatility_penalty(c, 0.2) for c in curves]
    assert health_scores(np.array(curves), 0.2) == pytest.approx(product)
    assert [health_score(c, 0.2) for c in curves] == pytest.approx(product)


@given(st.floats(0.05, 100), st.floats(0.01, 2))
def test_module_with_one_point_scores_its_performance(value, penalty):
    assert health_score([value], penalty) == pytest.approx(value)


@given(performances, st.floats(0.01, 100))
def test_score_is_in_the_units_of_the_performance(curve, factor):
    scaled = [factor * value for value in curve]
    assert health_score(scaled, 0.2) == pytest.approx(factor * health_score(curve, 0.2), rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=30))
def test_rising_curve_is_healthier_than_its_flat_end(curve):
    """Equation 1 gives ln(end / start), at least (end - start) / end, of which equation 2 takes back a fifth."""
    rising = sorted(curve)
    assume(rising[-1] - rising[0] > 1e-3)
    assert health_score(rising, 0.2) > health_score([rising[-1]] * len(rising), 0.2)
    assert health_score(rising, 0.2) > rising[-1]


@given(performances, st.integers(0, 29), st.floats(0.05, 0.5))
def test_volatility_lowers_the_score(curve, place, bump):
    """A bump above the curve changes neither start, worst nor end, only the path."""
    curve = [curve[0], *curve, curve[-1]]
    place = 1 + place % (len(curve) - 1)
    bumped = [*curve[:place], max(curve) + bump, *curve[place:]]
    assert volatility_penalty(bumped, 0.2) < volatility_penalty(curve, 0.2)
    assert growth_factor(bumped) == growth_factor(curve)
    if growth_factor(curve) > -1:
        assert health_score(bumped, 0.2) < health_score(curve, 0.2)


@given(performances)
def test_penalty_is_a_discount(curve):
    assert 0 < volatility_penalty(curve, 0.2) <= 1
    assert volatility_penalty(curve, 0.4) == pytest.approx(volatility_penalty(curve, 0.2) ** 2)


@pytest.mark.parametrize("curve", [[], [[0.5, 0.6]], [0.5, 0.0], [0.5, -0.1, 0.7], [0.5, float("nan")]])
def test_performance_without_a_score_is_an_error(curve):
    for score in (growth_factor, lambda c: volatility_penalty(c, 0.2), lambda c: health_score(c, 0.2)):
        with pytest.raises(ValueError, match="health score needs"):
            score(curve)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("calibration_error", "more is better"),
        ("mcc", r"metric 'mcc' of m d finetuned 0 V.*found -3\.0.*such as accuracy"),
    ],
)
def test_a_metric_without_health_scores_is_an_error(metric, words):
    constants = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0, "pooling": "image_mean"}
    curve = pd.DataFrame({"point": ["V.00", "V.01"], "calibration_error": [9.0, 8.0], "mcc": [-3.0, 20.0]})
    with pytest.raises(InputError, match=words):
        health_by_run(curve.assign(**constants), 0.2, metric)
