"""Planted changes are significant, chance is not, and p values allow for the whole table."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers, answers_of, image_set, right_of, rows_of

from mlprobe_utils.analysis import certainty
from mlprobe_utils.analysis.certainty import ANSWER, BLIND, PROBES, STEPS, beside_controls
from mlprobe_utils.evaluation.metrics import ENDS
from mlprobe_utils.evaluation.names import CLASSICAL, MAJORITY, MEMORISATION, OUTPUT, PIXELS, RANDOM_WEIGHTS, TEXT_ONLY
from mlprobe_utils.evaluation.outcomes import Outcomes
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.tested import Evaluated, evaluated
from mlprobe_utils.stats.intervals import PROBE, RECIPE, SCOPES, intervals
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER, Pair, holm
from mlprobe_utils.stats.resampling import accuracy, resample, retrained

IMAGES, SEEDS = 200, 5
POINTS = ["V.00", "V.01", "C.00", "L.00", "L.01"]
SITES = {"V start": "V.00", "V end": "V.01", "C end": "C.00", "L start": "L.00", "L end": "L.01"}
DRAWN = resample(np.arange(IMAGES) // 2, 400)
HARD = np.random.default_rng(0).random(IMAGES)  # the same images are hard for all


def of_model(model: str, seed: int, **stages: tuple[list[float], float]) -> Evaluated:
    """Accuracies of the five points, and of the final output, by stage; three runs after fine-tuning."""

    def outcomes(share: list[float], seeds: list, points: list[str]) -> Outcomes:
        right = np.stack([right_of(HARD, own, [*luck, n], (len(seeds),)) for n, own in enumerate(share)], axis=1)
        return replace(answers(right), seeds=seeds, points=points)

    found = {}
    for stage, (shares, answer) in stages.items():
        luck = [seed, len(stage)]
        found[stage, PROBES] = probes = outcomes(shares, list(range(SEEDS)), POINTS)
        found |= {(stage, site): probes.at(point) for site, point in SITES.items()}
        found[stage, OUTPUT] = output = outcomes([answer], [None] if stage == "pretrained" else [0, 1, 2], [OUTPUT])
        found[stage, ANSWER] = replace(output, predicted=output.predicted[:1])
    return Evaluated(model, "d", found, DRAWN)


FLAT = [0.6] * 5
FOUND = [
    of_model("m", 0, pretrained=(FLAT, 0.5), finetuned=([0.6, 0.6, 0.85, 0.6, 0.6], 0.8)),
    of_model("base", 1, pretrained=(FLAT, 0.6), finetuned=(FLAT, 0.6)),
]
CURVES = len(FOUND) * len(STAGES)
RULES = {MAJORITY: 0.5, PIXELS: 0.6, CLASSICAL: 0.95}


def test_bands_and_intervals_are_those_of_their_outcomes():
    bands, ends = certainty.bands(FOUND, "accuracy"), certainty.end_intervals(FOUND, "accuracy")
    assert len(bands) == CURVES * len(POINTS)
    for own, stage in itertools.product(FOUND, STAGES):
        place, probes = f"model == '{own.model}' and stage == '{stage}'", own.outcomes[stage, PROBES]
        expected = intervals(accuracy(probes.correct, DRAWN), RECIPE)
        found = bands.query(place)
        assert found["point"].tolist() == POINTS
        np.testing.assert_allclose(found[["band_low", "band_high"]], expected[["band_low", "band_high"]])
        table = ends.query(place).set_index("scope")
        assert table["site"].unique().tolist() == [*ENDS]
        each = {one.model: accuracy(one.outcomes[stage, OUTPUT].correct, DRAWN) for one in FOUND}
        output = retrained(each)[own.model]
        for scope in SCOPES if stage == "finetuned" else [*SCOPES][:3]:  # before it there are no runs
            of = accuracy(probes.correct[:, [1, 2, 4]], DRAWN) if scope in (PROBE, RECIPE) else output
            np.testing.assert_allclose(table.loc[[scope], ["low", "high"]], intervals(of, scope)[["low", "high"]])
        assert table["value"].iloc[-1] == pytest.approx(output.values[0])
    assert len(ends) == 2 * CURVES * len(ENDS) - len(FOUND)  # of the retrained model after fine-tuning alone
    assert len(certainty.bands(FOUND, "f1")) == CURVES * len(POINTS)
    assert certainty.bands(FOUND, "mcc").empty  # a metric without resamples
    assert certainty.end_intervals(FOUND, "mcc").empty


def test_after_less_before_is_significant_where_it_was_planted_and_corrected_for_the_whole_table():
    tests = certainty.before_and_after(FOUND)
    before, after = (FOUND[0].outcomes[stage, PROBES].correct[:, [1, 2, 4]] for stage in STAGES)
    for scope, planted in zip(SCOPES, ("C end", "C end", "final output", "final output"), strict=True):
        own = tests[tests["scope"] == scope]
        assert own["site"].tolist() == 2 * ([planted] if planted == OUTPUT else [*ENDS[:3]])
        significant = own[own["verdict"] != NEITHER]
        assert significant[["model", "site", "verdict"]].to_numpy().tolist() == [["m", planted, HIGHER]]
        expected = Pair({}, before, after, DRAWN, scope).tests() if planted == "C end" else {}
        for name in ("low", "high", "p") if planted == "C end" else ():
            np.testing.assert_allclose(own[name].iloc[:3], expected[name])
        pd.testing.assert_series_equal(own["p (Holm)"], holm(own["p"]), check_names=False)
        assert significant["change"].iloc[0] == pytest.approx(25 if planted == "C end" else 30, abs=5)


def test_steps_are_significant_where_they_were_planted_with_their_sign():
    tests = certainty.steps(FOUND)
    assert len(tests) == CURVES * len(STEPS)
    found = tests[tests["verdict"] != NEITHER].set_index(["model", "stage", "step"])
    _, connector, into, _, answer = STEPS
    planted = {("m", "finetuned", connector): 25, ("m", "finetuned", into): -25}
    planted |= {("m", "finetuned", answer): 20, ("m", "pretrained", answer): -10}
    assert found["change"].to_dict() == pytest.approx(planted, abs=5)
    assert found["verdict"].map({HIGHER: 1, LOWER: -1}).tolist() == np.sign(found["change"]).tolist()


def test_outcomes_are_of_the_test_images_and_of_the_means_of_image_tokens(monkeypatch):
    right, places = np.array([False, True, True, True]), [*((p, "image_mean") for p in POINTS), ("L.00", "last_token")]
    probed = [
        rows_of(right, seed, stage=stage, probe="main", seed=seed, point=point, pooling=pooling)
        for stage, seed, (point, pooling) in itertools.product(STAGES, range(SEEDS), places)
    ]
    both = itertools.product(STAGES, ("validation", "test"))
    outputs = [rows_of(right, stage=stage, split=split, run=None).assign(parsed="Yes") for stage, split in both]
    for name, rows in (("seed_rows", probed), ("prediction_rows", outputs)):
        monkeypatch.setattr(results, name, lambda selection, rows=rows: pd.concat(rows, ignore_index=True))
    selection = results.Selection(("m",), ("d",), "miniature", "paper")
    (found,) = evaluated(selection, {"d": image_set(4)}, certainty.outcomes_of)
    for stage in STAGES:
        probes, output = found.outcomes[stage, PROBES], found.outcomes[stage, ANSWER]
        assert probes.predicted.shape == (SEEDS, len(POINTS), 4)
        assert [found.outcomes[stage, site].points for site in SITES] == [[point] for point in SITES.values()]
        assert output.correct[0, 0].tolist() == [False, True, False, True]
        assert probes.correct[0, 0].tolist() == right.tolist()


def test_a_control_is_beaten_where_it_was_planted_at_its_own_point_and_the_best_rule_counts():
    """The fine-tuned model: 85 % at the connector's end, 60 % at other ends, answers 80 %."""
    own = FOUND[0]
    random = {point: right_of(HARD, 0.4, [7, n]) for n, point in enumerate(POINTS)}
    rows = [rows_of(right, control=RANDOM_WEIGHTS, point=point, stage=None) for point, right in random.items()]
    rows += [rows_of(random["V.00"], control=MEMORISATION, point="V.01", split="train")]
    rules = {name: right_of(HARD, share, [8, n]) for n, (name, share) in enumerate(RULES.items())}
    rows += [rows_of(right, control=name, model=None, stage=None) for name, right in rules.items()]
    rows += [answers_of(HARD < 0, control=TEXT_ONLY)]
    found = beside_controls([own], pd.concat(rows, ignore_index=True)).set_index(["control", "site"])
    sites = {RANDOM_WEIGHTS: ENDS[:3], TEXT_ONLY: [OUTPUT], BLIND: ENDS, CLASSICAL: ENDS}
    assert {*found.index} == {(control, site) for control, places in sites.items() for site in places}
    expected = {**{(RANDOM_WEIGHTS, site): 20 for site in ENDS}, **{(BLIND, site): 0 for site in ENDS}}
    expected |= {(RANDOM_WEIGHTS, "C end"): 45, (BLIND, "C end"): 25, (BLIND, OUTPUT): 20, (TEXT_ONLY, OUTPUT): 80}
    for place, change in expected.items():
        if place in found.index:
            assert found.loc[place, "change"] == pytest.approx(change, abs=8)
            assert found.loc[place, "verdict"] == (HIGHER if change else NEITHER)
    assert (found.loc[CLASSICAL, "verdict"] == LOWER).all()
