"""Health scores: the equations, what noise does to them and to ranks, how it is corrected, and scores from rows."""

import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from printed_numbers import flat_covariance
from scipy import stats
from simulated_rows import image_set, no_fewer, no_more, rows_of
from simulations import bias_and_coverage, simulate_correct, true_curve
from simulations import settings as combinations

from mlprobe_utils.analysis import health as analysis
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.datasets.components import components
from mlprobe_utils.evaluation import health
from mlprobe_utils.evaluation.health import corrected_health, health_score, noise_covariance
from mlprobe_utils.evaluation.rows import STAGES, predicted_option
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.resampling import resample

NOT_POSITIVE = "needs positive performances"


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


@pytest.mark.parametrize(
    ("score", "words"),
    [
        *(
            (partial(health_score, own), "health score needs")
            for own in ([], [0.5, 0], [0.5, -0.1, 0.7], [0.5, np.nan])
        ),
        (partial(corrected_health, np.ones((3, 1), dtype=bool)), "needs two or more"),
        (partial(corrected_health, np.array([[True, True], [False, False]])), f"{NOT_POSITIVE}, found 0\\.0"),
        (partial(analysis.flat_scores, 0.05, np.eye(20) * 0.05 * 0.95 / 20), NOT_POSITIVE),  # noise takes it to 0
    ],
)
def test_performance_without_a_score_is_an_error(score, words):
    with pytest.raises(ValueError, match=words):
        score(penalty=0.2)


def test_a_metric_without_health_scores_is_an_error():
    constants = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0, "pooling": "image_mean"}
    curve = pd.DataFrame({"point": ["V.00", "V.01"], "mcc": [-3.0, 20.0]}).assign(**constants)
    with pytest.raises(InputError, match="higher is better"):
        health.health_by_run(curve, 0.2, "calibration_error")
    with pytest.raises(InputError, match=r"metric 'mcc' of m d finetuned 0 V falls to -3\.0.*such as accuracy"):
        health.health_by_run(curve, 0.2, "mcc")


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


def simulated(shape="rising", points=12, images=150, correlation=0.9, seed=0) -> np.ndarray:
    return simulate_correct(true_curve(shape, points), images, correlation, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", ["rising", "falling", "jagged"])
def test_with_more_and_more_images_the_score_becomes_the_papers(shape):
    """The same curve of more images: each answer counted so often."""
    correct = simulated(shape)
    found = [corrected_health(np.tile(correct, (1, times)), 0.2) for times in (1, 100, 1000)]
    assert [one.raw for one in found] == pytest.approx([100 * health_score(correct.mean(axis=1), 0.2)] * 3)
    assert (np.array([abs(one.score - one.raw) for one in found[1:]]) < [0.5, 0.05]).all()
    widths = [one.high - one.low for one in found]
    assert widths[0] > widths[1] > widths[2] < 1
    assert [*corrected_health(np.ones((5, 20), dtype=bool), 0.2)] == pytest.approx([100.0] * 4)  # no noise


def test_the_posterior_is_that_of_a_slow_reference():
    """The mixture's mean and covariance from textbook formulas, one covariance of the prior at a time."""
    correct = simulated("jagged", points=6)
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
    correct = simulated(images=400)
    rate = correct.mean(axis=1)
    assert np.diag(noise_covariance(correct)) == pytest.approx(rate * (1 - rate) / 399)
    truth = flat_covariance(0.85, 30, 100, 0.9)
    drawn = [simulated("flat", 30, 100, seed=seed) for seed in range(5)]
    shrunk = [np.linalg.norm(noise_covariance(correct) - truth) for correct in drawn]
    assert np.mean(shrunk) < 0.75 * np.mean([np.linalg.norm(np.cov(correct) / 100 - truth) for correct in drawn])
    one = simulated("flat", points=1, images=200)  # points that never differ
    assert noise_covariance(np.repeat(one, 3, axis=0)) == pytest.approx(np.full((3, 3), noise_covariance(one).item()))
    found = corrected_health(np.repeat(one, 3, axis=0), 0.2)
    assert found.raw == pytest.approx(100 * one.mean())
    assert found.score == pytest.approx(found.raw, abs=0.2)


def test_resamples_of_patients_carry_more_noise_than_images():
    """Every image twice: drawn by patient, its noise is that of half the images."""
    once = simulated(points=4, images=200)
    generator = np.random.default_rng(0)
    patients = generator.multinomial(200, np.full(200, 1 / 200), size=4000)
    by_patient = noise_covariance(np.repeat(once, 2, axis=1), np.repeat(patients, 2, axis=1))
    assert by_patient == pytest.approx(noise_covariance(once), rel=0.1, abs=2e-5)
    assert corrected_health(once, 0.2, patients).score == pytest.approx(corrected_health(once, 0.2).score, abs=1)


def test_a_module_of_one_point_scores_its_accuracy():
    correct = simulated(points=1, images=200)
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


POINTS = ["V.00", "V.01", "V.02", "D.00", "C.00", "L.00", "L.01"]
IMAGES = 40
ONE_SET = image_set(IMAGES)


def probed(share=0.8, wrong_at: str = "", points=POINTS, model="m", seed=0) -> pd.DataFrame:
    """Probe rows of two runs, right in a share of the images and never at one point; and of all other kinds."""
    generator, frames = np.random.default_rng(seed), []
    kinds = [{}, {"split": "validation"}, {"probe": "raw"}, {"pooling": "last_token"}]
    for stage, run, point in itertools.product(STAGES, (0, 1), points):
        own = {"model": model, "dataset": "covid19-ct", "stage": stage, "run": run, "seed": run, "point": point}
        own |= {"probe": "main", "pooling": "image_mean"}
        right = generator.random(IMAGES) < (0 if point == wrong_at else share)
        frames += [rows_of(~right if kind else right, **own | kind) for kind in kinds]
    return pd.concat(frames, ignore_index=True)


def answers_at(rows: pd.DataFrame, stage: str, run: int, module: str) -> np.ndarray:
    own = rows[(rows["split"] == "test") & (rows["probe"] == "main") & (rows["pooling"] == "image_mean")]
    own = own[(own["stage"] == stage) & (own["run"] == run) & (own["point"].str[0] == module)]
    own = own.assign(correct=predicted_option(own) == own["label"])
    return own.pivot(index="point", columns="image", values="correct").to_numpy(bool)


def test_scores_are_those_of_each_modules_own_answers():
    rows = probed()
    found = analysis.corrected_scores(rows.sample(frac=1, random_state=0), ONE_SET, "paper", 0.2)
    assert found["module"].value_counts().to_dict() == {"V": 4, "C": 4, "L": 4}
    found = found.set_index(["stage", "run", "module"])
    for place, points in ((("finetuned", 1, "V"), 3), (("pretrained", 0, "C"), 1), (("finetuned", 0, "L"), 2)):
        correct = answers_at(rows, *place)
        row = found.loc[place]
        assert (row["points"], row["images"]) == (points, IMAGES)
        assert tuple(row[["raw", "score", "low", "high"]]) == pytest.approx(corrected_health(correct, 0.2))
        assert tuple(row[analysis.SCORES[4:]]) == tuple(analysis.flat_range(correct, 0.2))


def test_images_of_a_patient_are_drawn_together():
    place, rows, pairs = ("finetuned", 0, "V"), probed(), image_set(IMAGES)
    correct = answers_at(rows, *place)
    pairs.manifest["patient"] = [f"patient {place // 2}" for place in range(IMAGES)]
    together = analysis.corrected_scores(rows, pairs, "paper", 0.2).set_index(["stage", "run", "module"])
    counts = resample(components(pairs.manifest)).counts
    expected = (*corrected_health(correct, 0.2, counts), *analysis.flat_range(correct, 0.2, counts))
    assert tuple(together.loc[place, analysis.SCORES]) == pytest.approx(expected)
    assert together.loc[place, "high"] != pytest.approx(corrected_health(correct, 0.2).high)


def test_scores_at_the_edges():
    """Of a module of one point; of one with a point that is never right, beside others; of one that is always right."""

    def of_one_run(**how) -> pd.DataFrame:
        rows = probed(**how).query("stage == 'finetuned' and run == 0")
        return analysis.corrected_scores(rows, ONE_SET, "paper", 0.2)

    found = of_one_run(points=["V.00", "C.00", "L.00"])
    assert (found["points"] == 1).all()
    assert found["score"].to_numpy() == pytest.approx(found["raw"].to_numpy(), abs=0.1)  # none rises above 100 %
    assert (found["flat_low"] < found["flat_high"]).all()
    found = of_one_run(wrong_at="V.02").set_index("module")
    assert found[analysis.SCORES].isna().sum(axis=1).to_dict() == {"V": len(analysis.SCORES), "C": 0, "L": 0}
    assert of_one_run(share=1)[analysis.SCORES].to_numpy() == pytest.approx(np.full((3, len(analysis.SCORES)), 100.0))


def test_one_test_image_or_other_images_are_an_error():
    rows = probed()
    with pytest.raises(InputError, match="m covid19-ct pretrained: its rows are not from the test images"):
        analysis.corrected_scores(rows[rows["image"] != rows["image"].iloc[0]], ONE_SET, "paper", 0.2)
    with pytest.raises(InputError, match=r"d: its test set .* add test images"):
        analysis.corrected_scores(rows, image_set(1), "paper", 0.2)


def test_a_module_without_a_score_is_an_error_with_place_and_remedy(outputs, monkeypatch):
    monkeypatch.setattr(analysis, "load_image_set", lambda slug, protocol: ONE_SET)
    one = Selection(("m",), ("covid19-ct",), "miniature", "paper")
    folder = one.folder("m", "covid19-ct") / "probes"
    for number, wrong_at in enumerate(("", "L.01")):
        with artefacts.artefact(folder, {"number": number, "upstream": {}}) as temporary:
            write_parquet(probed(wrong_at=wrong_at), temporary / "probes.parquet")
        if not wrong_at:
            assert analysis.health_of_run(one)["score"].notna().all()
    with pytest.raises(InputError, match=r"m on covid19-ct, LLM \(pretrained, run 0\).*add test images"):
        analysis.health_of_run(one)
