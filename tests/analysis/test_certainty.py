"""Planted changes are significant, chance is not, and p values allow for the whole table."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers, image_set, right_of, rows_of

from mlprobe_utils.analysis import certainty
from mlprobe_utils.analysis.certainty import ANSWER, PROBES, STEPS
from mlprobe_utils.evaluation.metrics import ENDS
from mlprobe_utils.evaluation.names import OUTPUT
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


def test_bands_and_intervals_are_those_of_their_outcomes():
    bands, ends = certainty.bands(FOUND, "accuracy"), certainty.end_intervals(FOUND, "accuracy")
    assert len(bands) == CURVES * len(POINTS)
    for own, stage in itertools.product(FOUND, STAGES):
        place, probes = f"model == '{own.model}' and stage == '{stage}'", own.outcomes[stage, PROBES]
        expected = intervals(accuracy(probes.correct, DRAWN), RECIPE)
        found = bands.query(place)
        assert found["point"].tolist() == POINTS
        np.testing.assert_allclose(found[["band_low", "band_high"]], expected[["band_low", "band_high"]])
        table = ends.query(place).set_index("site").drop(columns=["model", "dataset", "stage"]).astype(float)
        assert table.index.tolist() == [*ENDS]
        each = {one.model: accuracy(one.outcomes[stage, OUTPUT].correct, DRAWN) for one in FOUND}
        output = retrained(each)[own.model]
        for scope in SCOPES if stage == "finetuned" else [*SCOPES][:3]:  # before it there are no runs
            of = accuracy(probes.correct[:, [1, 2, 4]], DRAWN) if scope in (PROBE, RECIPE) else output
            found = table[[f"{scope}, low", f"{scope}, high"]].dropna()
            np.testing.assert_allclose(found, intervals(of, scope)[["low", "high"]])
        assert table.at["final output", "value"] == pytest.approx(output.values[0])
    shown = certainty.side_by_side(ends)
    assert list(shown)[3:] == [f"{s}: {q}" for s in ENDS for q in certainty.scopes_of(s)]
    assert shown.iloc[:, 3:-1].stack().str.fullmatch(r"\d+\.\d–\d+\.\d").all()
    assert len(certainty.bands(FOUND, "f1")) == CURVES * len(POINTS)
    assert certainty.bands(FOUND, "mcc").empty  # a metric without resamples
    assert certainty.side_by_side(certainty.end_intervals(FOUND, "mcc")).empty


def test_after_less_before_is_significant_where_it_was_planted_and_corrected_for_the_whole_table():
    tests = certainty.before_and_after(FOUND)
    assert tests["site"].tolist() == [*ENDS] * 2
    by_place = tests.set_index(["model", "site"])
    before, after = (FOUND[0].outcomes[stage, PROBES].correct[:, [1, 2, 4]] for stage in STAGES)
    for scope, planted in zip(SCOPES, ("C end", "C end", "final output", "final output"), strict=True):
        significant = by_place[f"p (Holm, {scope})"] < certainty.ALPHA
        assert significant[significant].index.tolist() == [("m", planted)]
        expected = Pair({}, before, after, DRAWN, scope).tests() if planted == "C end" else {}
        for name in ("low", "high", "p") if planted == "C end" else ():
            np.testing.assert_allclose(by_place.loc["m"][f"{name} ({scope})"].iloc[:3], expected[name])
        adjusted = holm(tests[f"p ({scope})"])
        pd.testing.assert_series_equal(tests[f"p (Holm, {scope})"], adjusted, check_names=False)
    assert by_place.loc[("m", "C end"), "change"] == pytest.approx(25, abs=5)
    assert tests.loc[tests["site"] == "final output", f"p ({RECIPE})"].isna().all()
    counted = certainty.counted(tests).set_index("site")
    assert counted["models"].tolist() == [2] * 4
    for scope, expected in zip(SCOPES, [[0, 1, 0, np.nan]] * 2 + [[np.nan] * 3 + [1]] * 2, strict=True):
        assert counted[f"significant: {scope}"].tolist() == pytest.approx(expected, nan_ok=True)


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
