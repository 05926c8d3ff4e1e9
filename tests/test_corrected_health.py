"""Corrected health scores: what noise does is taken out, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlprobe_utils import corrected_health as module
from mlprobe_utils.corrected_health import corrected_health, curve_posterior, noise_covariance
from mlprobe_utils.health import health_score
from mlprobe_utils.health_simulation import bias_and_coverage, simulate_correct, true_curve


def answers(shape="rising", points=12, images=150, correlation=0.9, seed=0) -> np.ndarray:
    return simulate_correct(true_curve(shape, points), images, correlation, np.random.default_rng(seed))


@settings(max_examples=25)
@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=12))
def test_without_noise_the_posterior_is_the_curve(curve):
    drawn, _ = curve_posterior(np.array(curve), np.zeros((len(curve), len(curve))), 10, np.random.default_rng(0))
    assert drawn == pytest.approx(np.tile(curve, (3, 10, 1)), abs=1e-12)


def test_without_noise_the_score_is_the_papers():
    found = corrected_health(np.ones((5, 20), dtype=bool), 0.2)
    assert [*found] == pytest.approx([100.0] * 4)


@pytest.mark.parametrize("shape", ["flat", "rising", "falling", "volatile", "jagged"])
def test_with_more_and_more_images_the_score_becomes_the_papers(shape):
    """The same curve of more images: each answer counted so often."""
    correct = answers(shape)
    found = [corrected_health(np.tile(correct, (1, times)), 0.2) for times in (1, 100, 1000)]
    assert [one.raw for one in found] == pytest.approx([100 * health_score(correct.mean(axis=1), 0.2)] * 3)
    gaps = [abs(one.score - one.raw) for one in found]
    widths = [one.high - one.low for one in found]
    assert gaps[1] < 0.5
    assert gaps[2] < 0.05
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 1


@pytest.mark.parametrize("kind", range(3))
def test_the_posterior_is_that_of_a_slow_reference(kind):
    """The mixture's mean and covariance from textbook formulas, one covariance of the prior at a time."""
    correct = answers("jagged", points=6)
    curve, noise = correct.mean(axis=1), noise_covariance(correct)
    centre = np.full(6, curve.mean())
    found = [textbook(curve - centre, kernels, noise) for kernels in kernels_of_each_kind(6)]
    evidence = [own[0] for own in found]
    probability = np.array(evidence) * [*module.KINDS.values()] / np.dot(evidence, [*module.KINDS.values()])
    drawn, said = curve_posterior(curve, noise, 60_000, np.random.default_rng(1))
    assert said == pytest.approx(probability, rel=1e-4)
    _, mean, spread = found[kind]
    assert drawn[kind].mean(axis=0) == pytest.approx(centre + mean, abs=6e-4)
    assert np.cov(drawn[kind].T) == pytest.approx(spread, abs=4e-5)


def kernels_of_each_kind(points: int) -> list[list[tuple[float, np.ndarray]]]:
    """Prior probability within the kind, and covariance."""
    prior = module._prior(points)
    smooth = [*zip(np.exp(prior.log_smooth[:, 0]), prior.kernels, strict=True)]
    steps = prior.sudden.T
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


def test_noise_is_that_of_a_share():
    correct = answers(images=400)
    rate = correct.mean(axis=1)
    assert np.diag(noise_covariance(correct)) == pytest.approx(rate * (1 - rate) / 399)


def test_noise_of_few_images_comes_closer_to_the_truth_than_its_sample():
    curve = true_curve("flat", 30)
    truth = np.cov(simulate_correct(curve, 100_000, 0.9, np.random.default_rng(1))) / 100
    errors = []
    for seed in range(5):
        correct = simulate_correct(curve, 100, 0.9, np.random.default_rng(seed))
        errors.append([np.linalg.norm(c - truth) for c in (noise_covariance(correct), np.cov(correct) / 100)])
    shrunk, sample = np.mean(errors, axis=0)
    assert shrunk < 0.75 * sample


def test_points_that_never_differ_have_no_noise_between_them():
    one = answers("flat", points=1, images=200)
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
    found = corrected_health(correct, 0.2)
    rate = correct.mean()
    half = 196 * np.sqrt(rate * (1 - rate) / 199)
    assert found.raw == found.score == pytest.approx(100 * rate)
    assert [found.low, found.high] == pytest.approx([100 * rate - half, 100 * rate + half], abs=1)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(2, 60), st.integers(0, 999))
def test_whatever_is_answered_the_score_lies_in_its_interval_and_all_is_finite(points, images, seed):
    correct = np.random.default_rng(seed).random((points, images)) < 0.7
    correct[:, 0] = True  # some image is right at every point
    found = corrected_health(correct, 0.2)
    assert np.isfinite(found).all()
    assert found.low <= found.high
    assert found.raw == pytest.approx(100 * health_score(correct.mean(axis=1), 0.2))


@settings(max_examples=20)
@given(st.integers(2, 9), st.integers(2, 60))
def test_a_curve_without_noise_has_an_interval_without_width(points, images):
    """Every image is answered alike at each point: nothing depends on which images are drawn."""
    assert [*corrected_health(np.ones((points, images), dtype=bool), 0.5)] == pytest.approx([100.0] * 4)


def test_nothing_right_at_the_last_point_is_an_error():
    correct = answers(points=5)
    correct[-1] = False
    with pytest.raises(ValueError, match=r"needs positive performances, found 0\.0"):
        corrected_health(correct, 0.2)


def test_two_images_are_enough_for_an_interval_though_a_wide_one():
    found = corrected_health(np.array([[True, True], [True, False], [False, True]]), 0.2)
    assert np.isfinite(found).all()
    assert found.high - found.low > 30


def test_the_same_seed_gives_the_same_score():
    correct = answers()
    assert corrected_health(correct, 0.2, seed=3) == corrected_health(correct, 0.2, seed=3)
    assert corrected_health(correct, 0.2, seed=3) != corrected_health(correct, 0.2, seed=4)


def test_the_correction_takes_out_most_of_the_bias():
    found = bias_and_coverage(["flat", "falling"], [20], [150], [0], 25, 0.2)
    assert (found["raw bias"] < -5).all()
    assert (found["bias"].abs() < 1 + 2 * found["error"]).all()
    assert (found["coverage"] > 75).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["flat", "rising", "falling", "volatile"])
def test_bias_is_below_a_point_and_intervals_cover(shape):
    """At every depth, size and correlation but one corner.

    In the corner, a volatile curve of 4 to 16 points under independent noise of 203 images or fewer, posterior curves
    have less equal lows than the true one, so that noise moves their minimum less: 1.5 points remain.
    """
    found = bias_and_coverage([shape], [2, 4, 8, 16, 28, 64], [150, 624], [0, 0.9], 60, 0.2)
    corner = (found["images"] < 300) & (found["correlation"] == 0) & found["points"].between(4, 16)
    most = np.where(corner & (shape == "volatile"), 2, 1)
    assert (found["bias"].abs() < most + 2 * found["error"]).all()
    assert found["coverage"].mean() > 92
    assert (found["coverage"] > 83).all()  # of 60 intervals at 95 %, fewer would be rare


@pytest.mark.parametrize(
    ("correct", "said"),
    [
        (np.ones((3, 5)), "array of bool"),
        (np.ones(5, dtype=bool), r"\[points, images\]"),
        (np.ones((0, 5), dtype=bool), "one point or more"),
        (np.ones((3, 1), dtype=bool), "from two images on"),
        (np.ones((3, 0), dtype=bool), "from two images on"),
        (np.array([[True, True], [False, False]]), "health score needs positive performances"),
    ],
)
def test_answers_without_a_score_are_an_error(correct, said):
    with pytest.raises(ValueError, match=said):
        corrected_health(correct, 0.2)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (np.ones((3, 149)), "of 150 images each"),
        (np.ones((1, 150)), "two resamples or more"),
        (-np.ones((3, 150)), "from 0 on"),
        (np.zeros((3, 150)), "an image or more in each resample"),
    ],
)
def test_resamples_that_are_none_are_an_error(counts, said):
    with pytest.raises(ValueError, match=said):
        corrected_health(answers(), 0.2, counts)
