"""Health scores: the equations, what noise does to them and to ranks, and what a flat curve scores by noise alone."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulated_rows import no_more
from simulations import simulate_correct, true_curve

from mlprobe_utils.analysis import health as analysis
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation import health


def test_equations_by_hand():
    curve = np.array([0.5, 0.4, 0.8])  # start 0.5, worst 0.4, end 0.8; total variation 0.1 + 0.4
    assert health.health_factors(curve, 0.2) == pytest.approx((0.5815754, math.exp(-0.125)))  # ln(0.8 / sqrt(0.2))
    assert health.health_factors(curve, 0.4)[1] == pytest.approx(math.exp(-0.25))
    assert health.health_score(curve, 0.2) == pytest.approx(0.8 * 1.5815754 * 0.8824969)
    assert health.health_score([0.8, 0.4], 0.2) == pytest.approx(0.4 * (1 - 0.3465736) * math.exp(-0.2))
    assert health.health_score([0.7], 0.2) == pytest.approx(0.7)


@given(
    st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(st.floats(0.05, 1), min_size=n, max_size=n), min_size=1)),
    st.floats(0.01, 100),
)
def test_scores_of_many_curves_are_those_of_each_in_its_units(curves, factor):
    each = [health.health_score(curve, 0.2) for curve in curves]
    assert health.health_score(np.array(curves), 0.2) == pytest.approx(each)
    scaled = health.health_score(factor * np.array(curves), 0.2)
    assert scaled == pytest.approx(factor * np.array(each), rel=1e-6, abs=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.05, 0.25))
def test_one_dip_scores_above_a_flat_curve_up_to_a_lambda_that_is_never_below_a_quarter(one, other, penalty):
    """The paper's score rewards it, the deeper the more; chapter 5 derives the limit of lambda."""
    deep, shallow = sorted((one, other))
    dips, flat = np.array([[0.8, 0.8 * depth, 0.8] for depth in (deep, shallow, 1.0)]), 0.8
    scores = health.health_score(dips, penalty)
    assert scores[-1] == pytest.approx(flat)
    assert scores[0] >= scores[1] > flat
    limit = np.log(1 - np.log(deep) / 2) / (2 * (1 - deep))
    assert limit > 0.25
    assert health.health_score(dips[0], limit) == pytest.approx(flat)
    assert health.health_score(dips[0], 0.99 * limit) > flat > health.health_score(dips[0], 1.01 * limit)
    twice = [*dips[0], *dips[0][1:]]
    assert health.health_score(twice, limit / 2) == pytest.approx(flat)


def test_a_dip_that_stays_above_the_lowest_point_is_penalised():
    assert health.health_score([0.7, 0.78, 0.72, 0.8], 0.2) < health.health_score([0.7, 0.72, 0.78, 0.8], 0.2)


@pytest.mark.parametrize("curve", [[], [0.5, 0.0], [0.5, -0.1, 0.7], [0.5, float("nan")]])
def test_performance_without_a_score_is_an_error(curve):
    with pytest.raises(ValueError, match="health score needs"):
        health.health_score(curve, 0.2)


def test_a_metric_or_a_flat_curve_without_health_scores_is_an_error():
    constants = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0, "pooling": "image_mean"}
    curve = pd.DataFrame({"point": ["V.00", "V.01"], "mcc": [-3.0, 20.0]}).assign(**constants)
    with pytest.raises(InputError, match="higher is better"):
        health.health_by_run(curve, 0.2, "calibration_error")
    with pytest.raises(InputError, match=r"metric 'mcc' of m d finetuned 0 V falls to -3\.0.*such as accuracy"):
        health.health_by_run(curve, 0.2, "mcc")
    with pytest.raises(ValueError, match="needs positive performances"):  # noise takes it to 0
        analysis.flat_scores(0.05, np.eye(20) * 0.05 * 0.95 / 20, 0.2)


@pytest.mark.parametrize("shared", [False, True])
def test_simulated_answers_have_the_curve_and_the_correlation(shared):
    curve, images = true_curve("rising", 4), 40_000
    correct = simulate_correct(curve, images, 0.9, np.random.default_rng(0), shared)
    most = 4 * np.sqrt(0.25 / images)  # four standard errors of a share
    assert correct.mean(axis=1) == pytest.approx(curve, abs=most)
    far = 0.9 if shared else 0.9**3
    both = stats.multivariate_normal(cov=[[1, far], [far, 1]]).cdf(stats.norm.ppf([curve[0], curve[-1]]))
    assert (correct[0] & correct[-1]).mean() == pytest.approx(both, abs=most)


def test_a_flat_module_is_rarely_found_outside_its_flat_curves_and_a_volatile_one_always():
    generator = np.random.default_rng(0)

    def outside(shape: str, times: int) -> int:
        found = 0
        for _ in range(times):
            correct = simulate_correct(true_curve(shape, 20), 400, 0.9, generator)
            low, _, high = analysis.flat_range(correct, 0.2)
            found += not low <= 100 * health.health_score(correct.mean(axis=1), 0.2) <= high
        return found

    assert no_more(outside("flat", 25), 25, 0.07)
    assert outside("volatile", 10) >= 8
    low, middle, high = analysis.flat_range(np.array([[True, True, False], [True, False, False]]), 0.2)
    assert 0 < low <= middle <= high  # noise does not take a curve below half an image


def exact(curves: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {model: np.tile(curve, (3, 1)).astype(float) for model, curve in curves.items()}


def test_lambda_turns_the_order_by_hand():
    """A jumps on the way and ends higher than B: it is ahead while jumping is cheap."""
    curves = exact({"A": [0.8, 0.6, 0.8], "B": [0.76, 0.76, 0.76]})
    found = analysis.rank_stability({"accuracy": curves}, 0.05, [0.05, 1.0]).set_index("to")
    assert found.loc["1", ["tau", "low", "high"]].tolist() == [-1, -1, -1]
    assert found.loc["redrawn", ["tau", "low", "high"]].tolist() == [1, 1, 1]
    assert found["models"].tolist() == [2] * len(found)


def test_the_end_point_and_another_metric_turn_the_order_by_hand():
    chosen = [choose(np.arange(5.0)[None])[0].tolist() for choose in analysis.POINTS.values()]
    assert chosen == [[0, 2, 4], [0, 1, 2, 3], [1, 2, 3, 4]]
    curves = exact({"A": [0.7, 0.7, 0.9], "B": [0.7, 0.8, 0.8], "C": [0.5, 0.5, 0.5]})
    found = analysis.rank_stability({"accuracy": curves}, 0.2).set_index("to")["tau"]
    assert found["without the last point"] == pytest.approx(1 / 3)
    backwards = dict(zip(curves, [curves["C"], curves["B"], curves["A"]], strict=True))
    found = analysis.rank_stability({"accuracy": curves, "recall": backwards}, 0.2).set_index("changed")
    assert (found.at["metric", "to"], found.at["metric", "tau"]) == ("recall", -1)


def test_taus_have_percentiles_over_the_resamples():
    curves = dict(enumerate(np.random.default_rng(0).uniform(0.7, 0.9, (5, 41, 9))))  # of models: sample and resamples
    found = analysis.rank_stability({"accuracy": curves}, 0.2, [1.0]).iloc[0]
    scores = np.array([[[health.health_score(c, p) for c in own] for own in curves.values()] for p in (0.2, 1.0)])
    taus = [stats.kendalltau(scores[0, :, row], scores[1, :, row]).statistic for row in range(41)]
    assert found["tau"] == pytest.approx(taus[0])
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(taus[1:], [0.025, 0.975]))
