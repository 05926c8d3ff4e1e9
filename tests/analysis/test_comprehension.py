"""Comprehension, utilization, the logit lens and orders: what was planted is significant, and nothing else."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of, image_set, right_of, rows_of

from mlprobe_utils.analysis import comprehension
from mlprobe_utils.analysis.comprehension import ABOVE, BELOW, BEST, CURVE, LOST, ORDERS_COMPARED, POINTS
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.tested import Evaluated, evaluated
from mlprobe_utils.stats.intervals import RECIPE, WEIGHTS, intervals
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER
from mlprobe_utils.stats.resampling import accuracy

IMAGES = 300
SELECTION, SETS = results.Selection(("m",), ("d",), "miniature", "paper"), {"d": image_set(IMAGES)}
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
LAYERS = ["L.08", "L.09", "L.10"]  # by number, not by name
PROBED = [("C.01", "image_mean"), *itertools.product(("L.00", "L.03"), ("image_mean", "last_token"))]
WHERE = {("L.03", "image_mean"): IMAGE_TOKENS, ("L.03", "last_token"): LAST_TOKEN}


def probed(image_tokens: list[float], last_token: list[float], seeds: int, split: str = "test") -> pd.DataFrame:
    """Rows of both curves in both stages, with these shares right."""
    curves = zip(("image_mean", "last_token"), (image_tokens, last_token), strict=True)
    places = [(pooling, *place) for pooling, shares in curves for place in zip(LAYERS, shares, strict=True)]
    rows = []
    for n, (stage, (pooling, point, share), seed) in enumerate(itertools.product(STAGES, places, range(seeds))):
        columns = {"split": split, "probe": "main", "seed": seed, "stage": stage, "pooling": pooling, "point": point}
        rows.append(rows_of(right_of(HARD, share, [len(split), n]), seed, **columns))
    return pd.concat(rows, ignore_index=True)


def found_with(monkeypatch, image_tokens: list[float], last_token: list[float]) -> list[Evaluated]:
    vision = rows_of(HARD < 0.5, pooling="image_mean", point="V.00", seed=0, probe="main")
    seeds = pd.concat([probed(image_tokens, last_token, 5), vision], ignore_index=True)
    fitted = pd.concat([probed(image_tokens, last_token, 1, split) for split in ("validation", "test")])
    monkeypatch.setattr(results, "seed_rows", lambda selection: seeds)
    monkeypatch.setattr(results, "probe_rows", lambda selection: fitted)
    return evaluated(SELECTION, SETS, comprehension.outcomes_of)


def test_differences_are_those_of_pairs_of_probes_and_significant_where_they_were_planted(monkeypatch):
    found = found_with(monkeypatch, [0.8, 0.8, 0.8], [0.6, 0.8, 0.95])
    differences = comprehension.differences(found)
    courses = comprehension.course(differences).set_index("stage")
    for stage in STAGES:
        own = differences[differences["stage"] == stage]
        assert own["point"].tolist() == LAYERS
        assert own["verdict"].tolist() == [BELOW, NEITHER, ABOVE]
        curves = (found[0].outcomes[stage, name, CURVE] for name in ("utilization", "comprehension"))
        first, second = (accuracy(curve.correct, found[0].resamples) for curve in curves)
        columns = ["value", "band_low", "band_high"]
        np.testing.assert_allclose(own[columns], intervals(first - second, RECIPE)[columns])
        np.testing.assert_allclose(own["value"], own["utilization"] - own["comprehension"])
        row = courses.loc[stage]
        assert [row["first layer"], row["last layer"], row["point"], row["verdict"]] == [BELOW, ABOVE, "L.10", ABOVE]


def test_prose_names_every_curve_that_the_chart_shows_above_and_counts_the_significant_ones():
    curves = [("a", [-5, 2.0, 1], ABOVE), ("b", [-5, -1, 4.0], NEITHER), ("c", [-3, -2, -1.0], NEITHER)]
    rows = [
        {"model": model, "dataset": "d", "stage": "finetuned", "point": point, "value": value, "band_low": 0}
        | {"band_high": 0, "verdict": verdict if value == 1 or verdict == NEITHER else NEITHER}
        for model, values, verdict in curves
        for point, value in zip(LAYERS, values, strict=True)
    ]
    courses = comprehension.course(pd.DataFrame(rows).sample(frac=1, random_state=0))
    words = comprehension.above_in_words(courses)
    assert words == (
        "2 of 3 curves rise above comprehension at one layer or more: b on d (L.10, +4.0 pp); a on d (L.10, +1.0 pp). "
        "The difference is significant in 1 of them."  # of a, at L.10, though L.09 is higher
    )
    none = comprehension.above_in_words(courses[courses["model"] == "c"])
    assert none == "none of 1 curves rises above comprehension at any layer."
    many = comprehension.above_in_words(pd.concat([courses[courses["model"] == "b"]] * 8))
    assert "; 2 more. " in many


@pytest.mark.parametrize(("best", "verdict"), [(0.95, ABOVE), (0.65, BELOW), (0.8, NEITHER)])
def test_a_ceiling_is_compared_at_the_layers_that_validation_images_choose(monkeypatch, best, verdict):
    found = found_with(monkeypatch, [0.6, 0.8, 0.6], [0.5, 0.5, best])
    chosen = {(what[1], *own.points) for what, own in found[0].outcomes.items() if what[2] == BEST}
    assert chosen == {("comprehension", "L.09"), ("utilization", "L.10")}
    table = comprehension.ceilings(found)
    assert table[["comprehension at", "utilization at"]].to_numpy().tolist() == [["L.09", "L.10"]] * 2
    assert (table["verdict"] == verdict).all()
    np.testing.assert_allclose(table["difference"], 100 * (best - 0.8), atol=4)
    higher, lower = ("2" if verdict == word else "none" for word in (ABOVE, BELOW))
    counts = f"significantly higher in {higher} and lower in {lower} of 2 pairs"
    assert counts in comprehension.mean_in_words(table)
    assert comprehension.mean_in_words(table[:1]).endswith(f" pp ({verdict})")


def test_of_equally_good_layers_the_earliest_is_chosen_by_its_number():
    rows = pd.concat([rows_of(HARD < 0.5, split="validation", point=point) for point in ("L.10", "L.09")])
    assert comprehension.best_on_validation(rows) == "L.09"
    with pytest.raises(InputError, match="no rows of validation images"):
        comprehension.best_on_validation(rows.assign(split="test"))


def lens(shares: list[float], runs: int = 2) -> pd.DataFrame:
    places = itertools.product(range(runs), ("validation", "test"), zip(LAYERS, shares, strict=True))
    frames = [
        rows_of(right_of(HARD, share, n, noise=0.02), n, split=split, point=point, run=run, probe="lens")
        for n, (run, split, (point, share)) in enumerate(places)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    ("shares", "at", "verdict"), [([0.5, 0.9, 0.6], "L.09", LOST), ([0.5, 0.6, 0.9], "L.10", NEITHER)]
)
def test_a_loss_after_an_earlier_layer_is_found_if_it_was_planted(shares, at, verdict):
    rows = lens(shares)
    (row,) = comprehension.earlier_layer(rows, SETS, "paper").to_dict("records")
    assert (row["best layer"], row["verdict"]) == (at, verdict)
    assert row["change"] == pytest.approx(row["at the last"] - row["at the best"])
    assert row["change"] == pytest.approx(row["correct at the last only"] - row["correct at the best only"])


def test_the_true_options_probability_is_its_mean_over_test_images():
    rows = lens([0.5, 0.6, 0.9], runs=1)
    rows.loc[rows["split"] == "validation", ["p_Yes", "p_No"]] = 0.5
    tested = rows[rows["split"] == "test"]
    expected = tested["p_Yes"].where(tested["label"] == "Yes", tested["p_No"]).groupby(tested["point"]).mean()
    found = comprehension.true_option(rows).set_index("point")["value"]
    assert found.to_dict() == pytest.approx((100 * expected).to_dict())


def test_images_are_settled_from_the_layer_on_that_never_changes_its_mind_again():
    right = {"L.08": [1, 1, 0, 1], "L.09": [1, 0, 0, 1], "L.10": [1, 1, 1, 1]}
    frames = [rows_of(np.array(own) == 1, point=point, probe="lens") for point, own in right.items()]
    found = comprehension.settled(pd.concat(frames))
    assert found.set_index("point")["value"].to_dict() == {"L.08": 50, "L.09": 50, "L.10": 100}
    (row,) = comprehension.settling_layers(found).to_dict("records")
    assert (row["at"], row["layers before the last"]) == ("L.08", 2)


def rows_in(order: str, shares: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seed rows and prediction rows of both stages; only after fine-tuning an order has shares other than 0.7."""
    number, seeds, answers = [*ORDERS].index(order), [], []
    for stage, own in zip(STAGES, ({}, shares), strict=True):
        first = None if stage == "pretrained" else 0
        for seed, (place, (point, pooling)) in itertools.product(range(5), enumerate(PROBED)):
            right = right_of(HARD, own.get(WHERE.get((point, pooling)), 0.7), [seed, place, number, len(stage)])
            columns = {"point": point, "pooling": pooling, "probe": "main", "seed": seed, "run": first}
            seeds.append(rows_of(right, seed, stage=stage, order=order, **columns))
        for run in (0, 1) if first == 0 else (None,):  # a second run, which has no probes with many seeds
            right = right_of(HARD, 0.1 if run else own.get(OUTPUT, 0.7), [99, number, len(stage), run or 0])
            answers.append(answers_of(right, stage=stage, order=order, run=run))
    return pd.concat(seeds, ignore_index=True), pd.concat(answers, ignore_index=True)


def test_a_planted_effect_of_what_comes_first_is_significant_where_it_is_with_its_sign(monkeypatch):
    """With the question first the image tokens hold more; irrelevant text first costs the answer."""
    shares = {"question_first": {IMAGE_TOKENS: 0.9}, "irrelevant_first": {OUTPUT: 0.4}}
    rows = {order: rows_in(order, shares.get(order, {})) for order in ORDERS}
    monkeypatch.setattr(comprehension, "of_value", lambda selection, setting, order: order)
    monkeypatch.setattr(results, "seed_rows", lambda order: rows[order][0])
    monkeypatch.setattr(results, "prediction_rows", lambda order: rows[order][1])
    planted = evaluated(SELECTION, SETS, comprehension.outcomes_of_orders)
    table = comprehension.order_differences(planted)
    assert len(table) == 2 * len(ORDERS_COMPARED) * 3
    found = table[table["verdict"] != NEITHER].set_index(["stage", "site", "order", "minus"])
    assert found["verdict"].to_dict() == {
        ("finetuned", IMAGE_TOKENS, "question_first", "image_first"): HIGHER,
        ("finetuned", IMAGE_TOKENS, "question_first", "irrelevant_first"): HIGHER,
        ("finetuned", OUTPUT, "irrelevant_first", "image_first"): LOWER,
        ("finetuned", OUTPUT, "question_first", "irrelevant_first"): HIGHER,
    }
    assert found["difference"].abs().to_numpy() == pytest.approx([20, 30, 20, 30], abs=12)
    assert ((table["scope"] == WEIGHTS) == (table["site"] == OUTPUT)).all()
    curves = comprehension.order_curves(planted).set_index(["stage", "order", "point"]).sort_index()
    assert [curves.at[("finetuned", order, OUTPUT), "value"] for order in ORDERS] == pytest.approx([70, 70, 40], abs=6)
    own = planted[0].outcomes["finetuned", "question_first", POINTS]
    curve = curves.loc["finetuned", "question_first"].loc[own.points]
    assert curve["value"].to_numpy() == pytest.approx(100 * own.correct.mean(axis=(0, 2)))
    assert curve["value"].between(curve["band_low"], curve["band_high"], inclusive="neither").all()
