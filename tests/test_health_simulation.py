"""Simulated answers have the curve and the correlation asked for; noise does to scores what the audit says."""

import numpy as np
import pytest
from scipy import stats

from mlprobe_utils.errors import InputError
from mlprobe_utils.flat_health import flat_covariance
from mlprobe_utils.health_simulation import SHAPES, bias_and_coverage, noise_bias, simulate_correct, true_curve


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("points", [1, 2, 3, 64])
def test_true_curves_are_shares(shape, points):
    curve = true_curve(shape, points)
    assert curve.shape == (points,)
    assert ((curve > 0.5) & (curve < 0.95)).all()


def test_shapes_by_hand():
    assert true_curve("rising", 4) == pytest.approx([0.70, 0.75, 0.80, 0.85])
    assert true_curve("volatile", 4) == pytest.approx([0.75, 0.85, 0.75, 0.85])
    assert true_curve("one dip", 5) == pytest.approx([0.85, 0.85, 0.65, 0.85, 0.85])


@pytest.mark.parametrize("dependence", ["neighbouring", "shared"])
def test_simulated_answers_have_the_curve_and_the_correlation(dependence):
    curve = true_curve("rising", 4)
    correct = simulate_correct(curve, 200_000, 0.9, np.random.default_rng(0), dependence)
    assert correct.mean(axis=1) == pytest.approx(curve, abs=0.004)
    far = 0.9 if dependence == "shared" else 0.9**3
    both = stats.multivariate_normal(cov=[[1, far], [far, 1]]).cdf(stats.norm.ppf([curve[0], curve[-1]]))
    assert (correct[0] & correct[-1]).mean() == pytest.approx(both, abs=0.004)


def test_a_flat_curves_noise_is_its_closed_form():
    correct = simulate_correct(np.full(5, 0.8), 200_000, 0.7, np.random.default_rng(0))
    assert 1000 * np.cov(correct) / 1000 == pytest.approx(1000 * flat_covariance(0.8, 5, 1000, 0.7), abs=0.002)


# Points too low at (points, images): independent, correlated (audit, point 12)
AUDIT = {(28, 150): (16.4, 8.5), (64, 150): (38.2, 22.8), (28, 624): (7.5, 3.2), (64, 624): (19.9, 10.8)}


def test_raw_scores_are_too_low_by_as_much_as_the_audit_found():
    found = noise_bias(["rising"], [2, 28, 64], [150, 624], [0, 0.9], 200, 0.2)
    found = found.set_index(["points", "images", "correlation"])
    assert found["true score"].round(1).unique() == [98.0]
    for (points, images), biases in AUDIT.items():
        for correlation, bias in zip((0, 0.9), biases, strict=True):
            assert found.at[(points, images, correlation), "raw bias"] == pytest.approx(-bias, abs=1.5)
    assert (found.loc[2, "raw bias"].abs() < 1.5).all()
    assert (found.loc[64, "raw coverage"] < 5).all()
    assert (found["raw coverage"].xs(28).xs(0, level="correlation") < 30).all()


@pytest.mark.parametrize("simulate", [noise_bias, bias_and_coverage])
def test_a_combination_has_its_own_random_numbers(simulate):
    alone = simulate(["flat"], [4], [50], [0.9], 3, 0.2)
    among = simulate(["rising", "flat"], [2, 4], [50], [0, 0.9], 3, 0.2)
    same = among.query("shape == 'flat' and points == 4 and correlation == 0.9").reset_index(drop=True)
    assert alone.astype({"correlation": float}).equals(same.astype({"correlation": float}))


def test_what_cannot_be_simulated_is_an_error():
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match="did you mean 'flat'"):
        true_curve("flatt", 4)
    with pytest.raises(InputError, match="unknown dependence"):
        simulate_correct(np.full(3, 0.8), 10, 0.5, generator, "chained")
    for correlation in (-0.1, 1):
        with pytest.raises(ValueError, match=f"correlation is {correlation}"):
            simulate_correct(np.full(3, 0.8), 10, correlation, generator)
