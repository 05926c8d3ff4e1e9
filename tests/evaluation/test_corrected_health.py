"""Corrected health scores: the bias of noise is subtracted, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from printed_numbers import flat_covariance
from scipy import stats
from simulated_rows import no_fewer
from simulations import bias_and_coverage, simulate_correct, true_curve
from simulations import settings as combinations

from mlprobe_utils.evaluation import health
from mlprobe_utils.evaluation.health import corrected_health, health_score, noise_covariance


def answers(shape="rising", points=12, images=150, correlation=0.9, seed=0) -> np.ndarray:
    return simulate_correct(true_curve(shape, points), images, correlation, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", ["rising", "falling", "jagged"])
def test_with_more_and_more_images_the_score_becomes_the_papers(shape):
    """The same curve of more images: each answer counted so often."""
    correct = answers(shape)
    found = [corrected_health(np.tile(correct, (1, times)), 0.2) for times in (1, 100, 1000)]
    assert [one.raw for one in found] == pytest.approx([100 * health_score(correct.mean(axis=1), 0.2)] * 3)
    assert (np.array([abs(one.score - one.raw) for one in found[1:]]) < [0.5, 0.05]).all()
    widths = [one.high - one.low for one in found]
    assert widths[0] > widths[1] > widths[2] < 1
    assert [*corrected_health(np.ones((5, 20), dtype=bool), 0.2)] == pytest.approx([100.0] * 4)  # no noise


def test_the_posterior_is_that_of_a_slow_reference():
    """The mixture's mean and covariance from textbook formulas, one covariance of the prior at a time."""
    correct = answers("jagged", points=6)
    curve, noise = correct.mean(axis=1), noise_covariance(correct)
    centre = np.full(6, curve.mean())
    found = [textbook(curve - centre, kernels, noise) for kernels in kernels_of_each_kind(6)]
    evidence = np.array([own[0] for own in found]) * [*health.KINDS.values()]
    drawn, weights = health.curve_posterior(curve, noise, 30_000, np.random.default_rng(1))
    assert weights == pytest.approx(evidence / evidence.sum(), rel=1e-4)
    for own, (_, mean, spread) in zip(drawn, found, strict=True):
        assert own.mean(axis=0) == pytest.approx(centre + mean, abs=8e-4)
        assert np.cov(own.T) == pytest.approx(spread, abs=6e-5)


def kernels_of_each_kind(points: int) -> list[list[tuple[float, np.ndarray]]]:
    """Prior probability within the kind, and covariance."""
    all_kernels, _, log_smooth, changes = health._prior(points)
    smooth, steps = [*zip(np.exp(log_smooth[:, 0]), all_kernels, strict=True)], changes.T
    return [
        [(share, own[0]) for share, own in smooth],
        [(share / len(steps), own[0] + np.outer(step, step)) for share, own in smooth for step in steps],
        [(share / (len(own) - 1), kernel) for share, own in smooth for kernel in own[1:]],
    ]


def textbook(curve, kernels, noise) -> tuple[float, np.ndarray, np.ndarray]:
    """Density of a curve under a mixture of priors; mean and covariance of what lies behind it."""
    weights = [share * stats.multivariate_normal(cov=kernel + noise).pdf(curve) for share, kernel in kernels]
    gains = [kernel @ np.linalg.inv(kernel + noise) for _, kernel in kernels]
    share, means = weights / np.sum(weights), np.array(gains) @ curve
    mean = share @ means
    spreads = [kernel - gain @ kernel for gain, (_, kernel) in zip(gains, kernels, strict=True)]
    spread = np.tensordot(share, spreads, 1) + ((means - mean).T * share) @ (means - mean)
    return sum(weights), mean, spread


def test_noise_is_that_of_a_share_and_closer_to_the_truth_than_its_sample():
    correct = answers(images=400)
    rate = correct.mean(axis=1)
    assert np.diag(noise_covariance(correct)) == pytest.approx(rate * (1 - rate) / 399)
    truth = flat_covariance(0.85, 30, 100, 0.9)
    drawn = [answers("flat", 30, 100, seed=seed) for seed in range(5)]
    shrunk = [np.linalg.norm(noise_covariance(correct) - truth) for correct in drawn]
    assert np.mean(shrunk) < 0.75 * np.mean([np.linalg.norm(np.cov(correct) / 100 - truth) for correct in drawn])
    one = answers("flat", points=1, images=200)  # points that never differ
    assert noise_covariance(np.repeat(one, 3, axis=0)) == pytest.approx(np.full((3, 3), noise_covariance(one).item()))
    found = corrected_health(np.repeat(one, 3, axis=0), 0.2)
    assert found.raw == pytest.approx(100 * one.mean())
    assert found.score == pytest.approx(found.raw, abs=0.2)


def test_resamples_of_patients_carry_more_noise_than_images():
    """Every image twice: drawn by patient, its noise is that of half the images."""
    once = answers(points=4, images=200)
    generator = np.random.default_rng(0)
    patients = generator.multinomial(200, np.full(200, 1 / 200), size=4000)
    by_patient = noise_covariance(np.repeat(once, 2, axis=1), np.repeat(patients, 2, axis=1))
    assert by_patient == pytest.approx(noise_covariance(once), rel=0.1, abs=2e-5)
    assert corrected_health(once, 0.2, patients).score == pytest.approx(corrected_health(once, 0.2).score, abs=1)


def test_a_module_of_one_point_scores_its_accuracy():
    correct = answers(points=1, images=200)
    found, rate = corrected_health(correct, 0.2), correct.mean()
    half = 196 * np.sqrt(rate * (1 - rate) / 199)
    assert found.raw == found.score == pytest.approx(100 * rate)
    assert [found.low, found.high] == pytest.approx([100 * rate - half, 100 * rate + half], abs=1)


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(2, 60), st.integers(0, 999))
def test_whatever_is_correct_all_is_finite(points, images, seed):
    correct = np.random.default_rng(seed).random((points, images)) < 0.7
    correct[:, 0] = True  # some image is correct at every point
    found = corrected_health(correct, 0.2)
    assert np.isfinite(found).all()
    assert found.low < found.high or points == 1 or correct.all()


def test_the_correction_removes_most_of_the_bias():
    found = bias_and_coverage(combinations(["flat", "falling"], [20], [150], [0], 0.2), 12)
    assert (found["raw bias"] < -5).all()
    assert (found["bias"].abs() < 1 + 2 * found["error"]).all()
    assert no_fewer(round(found["coverage"].sum() * 12 / 100), 24, 0.9)


def test_predictions_without_a_score_are_an_error():
    with pytest.raises(ValueError, match="needs two or more"):
        corrected_health(np.ones((3, 1), dtype=bool), 0.2)
    with pytest.raises(ValueError, match=r"needs positive performances, found 0\.0"):
        corrected_health(np.array([[True, True], [False, False]]), 0.2)
