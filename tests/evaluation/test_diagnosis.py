"""The diagnosis: planted losses are found where they are, from outcomes and rows, in words, charts and claims."""

import json
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from simulated_rows import LAST, SITES, image_set, made, no_fewer, no_more, right_of, rows_of

from mlprobe_utils.analysis import diagnosis_tables as report
from mlprobe_utils.analysis import headlines
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation import diagnosis, names
from mlprobe_utils.evaluation.diagnosis import CONNECTOR, LLM, NAMED, NAMES, RULED_OUT, STATEMENTS, TOWER, Usual
from mlprobe_utils.evaluation.names import FIDELITY, MODES, OUTPUT, QUALITY, READ_OUT_GAP, VISION_TOWER, placed
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows, predicted_option
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.fault_card import DamagedModel, Fault
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.intervals import PROBE, RECIPE
from mlprobe_utils.stats.paired import ALPHA, NEITHER
from mlprobe_utils.stats.resampling import resample

KNOWN = {"m": {statement.name: Usual(3.0, 0.3, 2.0, 60) for statement in STATEMENTS}}
ON_THE_WAY = ((names.REFERENCE, names.TOWER_START), TOWER, CONNECTOR, LLM, (names.LAST_TOKEN,), (OUTPUT,))


def shares(*of: float) -> dict[str, float]:
    """site -> share correct, of a share for each of ON_THE_WAY."""
    return {site: share for sites, share in zip(ON_THE_WAY, of, strict=True) for site in sites}


PLANTED = {
    QUALITY: shares(0.9, 0.65, 0.65, 0.65, 0.65, 0.65),
    FIDELITY: shares(0.9, 0.9, 0.65, 0.65, 0.65, 0.65),
    names.COMPREHENSION: shares(0.9, 0.9, 0.9, 0.65, 0.9, 0.9),
    READ_OUT_GAP: shares(0.9, 0.9, 0.9, 0.9, 0.9, 0.65),
}


def sites(of: dict[str, float]) -> dict[str, np.ndarray]:
    """Outcomes of five seeds with these shares correct, on much the same images at every site."""
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    return {site: hard + rng.normal(0, 0.05, (5, 400)) < of[site] for site in SITES}


def judged_of(correct: dict[str, np.ndarray]) -> pd.DataFrame:
    lost = diagnosis.losses(correct, resample(np.arange(400)))
    return diagnosis.verdicts(diagnosis.against_usual(lost, KNOWN["m"], 2.0))


@pytest.mark.parametrize("site", [LLM[0], placed(VISION_TOWER), OUTPUT])
def test_what_any_later_site_has_by_either_pooling_was_not_lost_before(site):
    judged = judged_of(sites(PLANTED[QUALITY] | {site: 0.9})).set_index("statement")
    assert judged.at[QUALITY, "verdict"] == RULED_OUT
    assert judged.at[QUALITY, "after"] == site


def test_a_class_that_lies_in_the_places_alone_is_lost_where_the_places_are():
    """The mean knows nothing before and nothing after: only the other pooling can find the loss, and names itself."""
    means = dict.fromkeys((VISION_TOWER, CONNECTOR[0], names.IMAGE_TOKENS), 0.5)
    judged = judged_of(sites(PLANTED[FIDELITY] | means)).set_index("statement")
    assert judged.at[FIDELITY, "verdict"] == NAMED
    assert judged.at[FIDELITY, "before"] == placed(VISION_TOWER)


def test_a_verdict_follows_from_the_usual_loss_and_from_how_many_are_made():
    lost = pd.DataFrame({"statement": NAMES[0], "value": [-8.0], "error": [2.0], "band_low": -11.0, "band_high": -5.0})
    for mean, verdict in ((2, NAMED), (5, diagnosis.UNDECIDED), (15, RULED_OUT)):
        table = diagnosis.against_usual(lost, {NAMES[0]: Usual(mean, 0.2, 1.0, 60)}, 0.0)
        assert diagnosis.verdicts(table)["verdict"].tolist() == [verdict]
    table = diagnosis.against_usual(lost, {NAMES[0]: Usual(5, 0.2, 1.0, 60)}, 0.0).assign(p=0.001)
    assert diagnosis.verdicts(table)["verdict"].tolist() == [NAMED]
    many = diagnosis.verdicts(pd.concat([table] * 60, ignore_index=True))
    assert (many["verdict"] != NAMED).all()
    assert many["detectable"].min() > diagnosis.verdicts(table)["detectable"].item()
    assert diagnosis.against_usual(lost, {NAMES[0]: Usual(0, 0.2, 1.0, 60)}, 8.5)["p"].tolist() == [1.0]


@pytest.mark.parametrize(("image_error", "between"), [(4.0, 0.0), (2.0, 3.0)])
def test_undamaged_models_are_named_as_rarely_as_is_said(image_error, between):
    generator, named, models = np.random.default_rng(1), [], 60
    for _ in range(300):
        true = 3 + generator.normal(0, between, models + 1)
        seen = -(true + generator.normal(0, image_error, models + 1))
        columns = {"value": seen, "error": image_error}
        cases = {f"{column}: {name}": own for name in NAMES for column, own in columns.items()}
        table = pd.DataFrame(cases).assign(model=range(models + 1), module=None, collapsed=False)
        known = diagnosis.usual(table.iloc[1:])
        lost = pd.DataFrame({"statement": NAMES[:1], "value": seen[:1], "error": image_error, "band_low": -99.0})
        named.append(diagnosis.against_usual(lost, known, 0.0)["p"].item() < ALPHA)
    assert no_more(sum(named), len(named), 0.05)
    assert no_fewer(sum(named), len(named), 0.025)


def test_a_place_goes_before_a_symptom_and_what_has_no_seeds_counts_for_all():
    seeds, drawn = sites(shares(0.95, 0.8, 0.8, 0.8, 0.8, 0.4)), resample(np.arange(400))
    judged = judged_of(seeds)
    assert set(judged.loc[judged["verdict"] == NAMED, "mode"]) == {QUALITY, READ_OUT_GAP}
    place = {"model": "m", "dataset": "d", "stage": "finetuned", "scope": RECIPE}
    assert report.in_short(judged.assign(**place))["main"].tolist() == [QUALITY]
    alone, repeated = (seeds | {OUTPUT: own} for own in (seeds[OUTPUT][0], np.repeat(seeds[OUTPUT][:1], 5, axis=0)))
    pd.testing.assert_frame_equal(diagnosis.losses(alone, drawn), diagnosis.losses(repeated, drawn))


def planted(mode: str | None, images: int = 400, **state) -> dict[str, pd.DataFrame]:
    return made(PLANTED.get(mode, dict.fromkeys(SITES, 0.9)), images, **state)


def diagnosed(tables: dict[str, pd.DataFrame], images: int = 400) -> pd.DataFrame:
    given = {"image_sets": {"d": image_set(images)}, "split_rule": "paper", "known": KNOWN}
    return report.diagnoses(**tables, **given)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_planted_in_rows_is_the_main_mode(mode):
    judged = diagnosed(planted(mode))
    assert set(judged.loc[judged["verdict"] == NAMED, "mode"]) == {mode}
    assert (judged.loc[judged["mode"] != mode, "verdict"] == RULED_OUT).all()
    short = report.in_short(judged)
    assert short[["scope", "main"]].to_numpy().tolist() == [[scope, mode] for scope in (PROBE, RECIPE)]
    for words in short["diagnosis"]:
        found = re.fullmatch(rf"({mode}.*): (\S+) \((\S+) to (\S+)\), .* → .*", words.split("; ")[0])
        low, high = float(found[3]), float(found[4])
        assert 5 < low < float(found[2]) < high


def test_no_loss_and_too_few_images_are_two_answers():
    for images, words, verdict in ((400, report.NOTHING, RULED_OUT), (12, diagnosis.UNDECIDED, diagnosis.UNDECIDED)):
        judged = diagnosed(planted(None, images), images)
        assert verdict in set(judged["verdict"]) <= {RULED_OUT, verdict}
        assert set(report.in_short(judged)["diagnosis"]) == {words}


def test_stages_are_apart_and_other_runs_are_not_diagnosed():
    one, other = planted(FIDELITY), planted(READ_OUT_GAP, stage="pretrained", run=None)
    again = one["predicted"].assign(run=1, parsed=None)
    both = {"probed": pd.concat([one["probed"], other["probed"]]), "reference": one["reference"]}
    both["predicted"] = pd.concat([one["predicted"], other["predicted"], again])
    short = report.in_short(diagnosed(both))
    assert dict(zip(short["stage"], short["main"], strict=True)) == {"finetuned": FIDELITY, "pretrained": READ_OUT_GAP}
    assert len(report.by_state(both["predicted"])["m", "d", "finetuned"]) == 400
    assert report.by_state(again)["m", "d", "pretrained"].empty


def mapping(ranked: float, said: float, readout: float) -> dict[str, str]:
    """statement -> verdict, of a last token that is right for 90 %."""
    tables = made(dict.fromkeys(SITES, 0.9) | {OUTPUT: said})
    hard = np.random.default_rng(400).random(400)  # as of the tables
    lens = rows_of(right_of(hard, ranked, 1), point=LAST["L"], pooling="last_token", probe="logit lens")
    read = rows_of(right_of(hard, readout, 2))
    found = report.mapping_losses(tables["probed"], lens, tables["predicted"], read, {"d": image_set(400)}, "paper")
    return dict(zip(found["statement"], found["verdict"], strict=True))


@pytest.mark.parametrize(
    ("shares", "verdicts"),
    [((0.6, 0.6, 0.6), (report.LOST, NEITHER, NEITHER)), ((0.9, 0.6, 0.6), (NEITHER, report.LOST, NEITHER)),
     ((0.9, 0.6, 0.9), (NEITHER, report.LOST, report.LOST))],
)  # fmt: skip
def test_a_loss_within_the_mapping_is_found_in_its_step(shares, verdicts):
    assert mapping(*shares) == dict(zip([step.name for step in report.STEPS], verdicts, strict=True))


def test_a_site_that_the_mapping_lacks_is_named():
    tables = planted(None)
    lens = tables["probed"].iloc[:0]
    with pytest.raises(InputError, match=f"m on d, finetuned: no rows of '{report.RANKED}'"):
        report.mapping_losses(tables["probed"], lens, tables["predicted"], lens, {"d": image_set(400)}, "paper")


def test_the_chart_shows_every_interval_and_describes_it():
    judged = diagnosed(planted(FIDELITY))
    judged = judged[judged["scope"] == RECIPE]
    several = pd.concat([judged.assign(model=f"model {n}") for n in range(8)])
    chart = change_chart(several, {"d": "Set <D>"}, "Losses")
    assert chart.html.count("<svg") == 1
    assert all(words in chart.html for words in ("Set &lt;D&gt;", "ticks: detection thresholds"))
    for statement in STATEMENTS:
        own = judged[judged["statement"] == statement.name].iloc[0]
        words = f"{own['value']:+.1f} ({own['band_low']:+.1f} to {own['band_high']:+.1f}) pp, {own['verdict']}"
        for model in several["model"].unique():
            assert chart.html.count(f'data-told="{model}, {statement.name}: {words}"') == 2  # interval and point
            assert f"{model}, {statement.name}: {words}" in chart.description
    assert "ticks" not in change_chart(judged.drop(columns="threshold"), {}, "Losses").html
    far = change_chart(judged.assign(threshold=93.0), {}, "Losses").panels[0].spec  # the axis holds thresholds, too
    assert json.dumps(far).count('"domain": [-95') >= 1


def test_what_was_diagnosed_stands_beside_what_was_planted():
    fault = Fault(slug="f", name="f", kind="collapse", module="C", seed=1)
    damaged = [DamagedModel("m", fault, word, 10) for word in ("weak", "middle", "strong")]
    named = {"weak": (), "middle": (QUALITY, FIDELITY), "strong": (FIDELITY,)}
    judged = pd.DataFrame(
        {"model": one.slug, "dataset": "d", "stage": "finetuned", "scope": RECIPE, "statement": s.name}
        | {"mode": s.mode, "verdict": NAMED if s.mode in named[one.strength] else diagnosis.UNDECIDED}
        | {"value": -20.0, "band_low": -25.0, "band_high": -15.0, "usual": 10.0 * (s.mode != QUALITY)}
        | {"before": s.before[0], "after": s.after[0]}
        for one in damaged
        for s in STATEMENTS
    )
    judged = report.against_planted(judged, damaged)
    assert judged["planted"].tolist() == [FIDELITY] * 3
    assert judged["detected"].tolist() == ["no", "another mode", "yes"]
    assert judged["diagnosis"].iloc[2] == f"{FIDELITY}: 20.0 (15.0 to 25.0), {TOWER[0]} → {CONNECTOR[0]}"


OPTIONS = ["Normal", "Benign", "Malignant"]
COLUMNS = [f"p_{option}" for option in OPTIONS]
VALIDATION, TEST = 60, 300
TRUTH = np.random.default_rng(0).integers(0, 3, VALIDATION + TEST)
NOISE = np.random.default_rng(1).normal(size=(len(TRUTH), 3))
SCORES = 5 * np.eye(3)[TRUTH] + 1.5 * NOISE  # of 97 in 100 images the true class has the highest


def answered(scores: np.ndarray, truth: np.ndarray = TRUTH, options=OPTIONS, **constants) -> pd.DataFrame:
    """Rows of answers with these scores, [images, options]; the first images validate."""
    images = pd.DataFrame({"image": [f"{i}.png" for i in range(len(truth))], "option": np.array(options)[truth]})
    images["split"] = np.where(np.arange(len(truth)) < VALIDATION, "validation", "test")
    fixed = {"model": "m", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
    constants = fixed | {"stage": "finetuned", "run": 0} | constants
    rows = image_rows(images, options, softmax(scores, axis=1), **constants)
    return rows.assign(text="", parsed=predicted_option(rows))


def accuracy(rows: pd.DataFrame) -> float:
    own = rows[rows["split"] == "test"]
    return (predicted_option(own) == own["label"]).mean()


def test_what_the_scores_hold_is_found_and_nothing_in_random_ones():
    swapped = answered(SCORES[:, [1, 2, 0]])
    read = SCHEMA.validate(report.readout_rows(swapped))
    assert accuracy(swapped) < 0.05
    assert set(read["probe"]) == {"readout"}
    assert list(read["image"]) == list(swapped.loc[swapped["split"] == "test", "image"])
    always_benign = answered(SCORES + np.array([0, 30, 0]))
    certain = answered(400 * SCORES)  # a probability of 0 has a finite score
    assert (certain[COLUMNS] == 0).any(axis=None)
    for rows in (swapped, always_benign, certain):
        assert accuracy(report.readout_rows(rows)) > 0.9
    assert accuracy(report.readout_rows(answered(SCORES))) > accuracy(answered(SCORES)) - 0.03
    assert accuracy(report.readout_rows(answered(NOISE))) < 0.45


def test_test_images_are_not_fitted_on():
    other = np.where(np.arange(len(TRUTH)) < VALIDATION, TRUTH, (TRUTH + 1) % 3)
    first, second = (report.readout_rows(answered(SCORES, labels)) for labels in (TRUTH, other))
    np.testing.assert_array_equal(first[COLUMNS], second[COLUMNS])


def test_every_state_is_fitted_by_itself():
    """Two runs, of which one has its options swapped, the pretrained model and another data set with other options."""
    parts = [
        answered(SCORES),
        answered(SCORES[:, [2, 0, 1]], run=1),
        answered(0 * SCORES, stage="pretrained", run=None),
        answered(SCORES[:, :2], np.minimum(TRUTH, 1), ["Yes", "No"], dataset="covid19-ct"),
    ]
    read, keys = SCHEMA.validate(report.readout_rows(pd.concat(parts, ignore_index=True))), ["dataset", "stage", "run"]
    assert len(read) == 4 * TEST
    for alone in map(report.readout_rows, parts):
        same = read.merge(alone[keys].drop_duplicates().astype({"run": "Int64"}), on=keys)
        columns = [column for column in alone if column.startswith("p_")]
        np.testing.assert_array_equal(same[columns].to_numpy(), alone[columns].to_numpy())
    assert read.loc[read["dataset"] == "busi", ["p_Yes", "p_No"]].isna().all(axis=None)


def test_validation_images_of_one_class_are_an_error():
    rows = answered(SCORES)
    with pytest.raises(InputError, match=r"m on busi: .* several classes, found 1: raise validation_fraction"):
        report.readout_rows(rows[(rows["split"] == "test") | (rows["label"] == "Benign")])


DATASET = "busi-phantom"
EVEN = dict.fromkeys(SITES, 0.9)
LOST = EVEN | {OUTPUT: 0.6}
READ = {"end_rows": "probed", "prediction_rows": "predicted", "reference_rows": "reference"}


def rows(after: dict, images: int) -> dict[str, pd.DataFrame]:
    before, own = made(LOST, images, stage="pretrained", dataset=DATASET), made(after, images, dataset=DATASET)
    both = {name: pd.concat([before[name], own[name]], ignore_index=True) for name in ("probed", "predicted")}
    return both | {"reference": own["reference"].assign(dataset=DATASET)}


@pytest.mark.parametrize(("after", "held"), [(LOST, True), (EVEN, False)])
def test_a_claim_held_where_its_verdict_is_the_same_on_fresh_phantoms(after, held, monkeypatch, tmp_path):
    tested, fresh = rows(LOST, 400), rows(after, 500)
    for name, own in READ.items():
        monkeypatch.setattr(headlines.results, name, lambda _, own=own: tested[own])
    drawn = pd.concat([*fresh.values(), fresh["reference"]], ignore_index=True)  # the latter of two models
    monkeypatch.setattr(headlines.results, "gather", lambda *_: drawn)
    monkeypatch.setattr(headlines.tables, "usual_losses", lambda _: KNOWN)
    manifest = image_set(400).manifest.assign(split_paper="test")
    sets = {DATASET: ImageSet(load_data_card(DATASET), manifest, "0" * 64, {}, tmp_path)}
    planted = partial(headlines.faults_found, [SimpleNamespace(slug="m", mode=READ_OUT_GAP)])
    of_run = Selection(("m",), (DATASET,), "miniature", "paper"), sets
    table = headlines.replicated(headlines.CLAIMS | {"faults": planted}, *of_run)
    assert table["test images"][0].startswith("+")
    assert [*table["replicated"]] == ["yes", *["yes" if held else "no"] * 4]
    for row, what in ((3, "pairs"), (4, "cases")):
        assert [*table.iloc[row, 1:3]] == [f"1 of 1 {what}", f"{int(held)} of 1 {what}"]


def test_nothing_is_replicated_on_real_images():
    assert headlines.replicated(headlines.CLAIMS, Selection(("m",), ("busi",), "miniature", "paper"), {}).empty
