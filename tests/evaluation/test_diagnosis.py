"""The diagnosis: planted losses are found where they are, from outcomes and from rows, in words, charts and cards."""

import re

import numpy as np
import pandas as pd
import pytest
from simulated_rows import LAST, image_set, made, right_of, rows_of

from mlprobe_utils.analysis import diagnosis_tables as report
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, STATEMENTS, UNDECIDED, losses, verdicts
from mlprobe_utils.evaluation.names import COMPREHENSION, FIDELITY, MISALIGNMENT, MODES, OUTPUT, QUALITY, SITES
from mlprobe_utils.pipeline.fault_card import DamagedModel, Fault
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.intervals import PROBE, RECIPE
from mlprobe_utils.stats.paired import NEITHER
from mlprobe_utils.stats.resampling import resample

THRESHOLDS = {statement.name: 5.0 for statement in STATEMENTS}
PLANTED = {
    QUALITY: (0.9, 0.65, 0.65, 0.65, 0.65, 0.65),
    FIDELITY: (0.9, 0.9, 0.65, 0.65, 0.65, 0.65),
    COMPREHENSION: (0.9, 0.9, 0.9, 0.65, 0.9, 0.9),
    MISALIGNMENT: (0.9, 0.9, 0.9, 0.9, 0.9, 0.65),
}


def sites(shares):
    """Outcomes of five seeds with these shares correct, on much the same images at every site."""
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    noise = rng.normal(0, 0.05, (len(SITES), 5, 400))
    return {s: hard + noise[i] < share for i, (s, share) in enumerate(zip(SITES, shares, strict=True))}


@pytest.mark.parametrize("shares", [(0.9, 0.65, 0.65, 0.9, 0.65, 0.65), (0.9, 0.65, 0.65, 0.65, 0.65, 0.9)])
def test_what_a_later_site_has_was_not_lost_before(shares):
    judged = verdicts(losses(sites(shares), resample(np.arange(400))), THRESHOLDS).set_index("statement")
    assert judged.at[QUALITY, "verdict"] == RULED_OUT
    assert judged.at[QUALITY, "after"] == SITES[shares.index(0.9, 1)]


def test_the_threshold_and_the_interval_decide_what_a_loss_is_called():
    lost = pd.DataFrame({"statement": MISALIGNMENT, "value": [-8.0], "band_low": [-13.0], "band_high": [-3.0]})
    for threshold, verdict in ((2, NAMED), (5, UNDECIDED), (15, RULED_OUT)):
        assert verdicts(lost, {MISALIGNMENT: threshold})["verdict"].tolist() == [verdict]


def test_of_several_modes_the_first_is_the_main_one_and_what_has_no_seeds_counts_for_all():
    seeds, drawn = sites((0.95, 0.8, 0.8, 0.8, 0.8, 0.4)), resample(np.arange(400))
    judged = verdicts(losses(seeds, drawn), THRESHOLDS)
    assert set(judged.loc[judged["verdict"] == NAMED, "mode"]) == {QUALITY, MISALIGNMENT}
    place = {"model": "m", "dataset": "d", "stage": "finetuned", "scope": RECIPE}
    assert report.in_short(judged.assign(**place))["main"].tolist() == [QUALITY]
    alone, repeated = (seeds | {OUTPUT: own} for own in (seeds[OUTPUT][0], np.repeat(seeds[OUTPUT][:1], 5, axis=0)))
    pd.testing.assert_frame_equal(losses(alone, drawn), losses(repeated, drawn))


def planted(mode: str | None, images: int = 400, **state) -> dict[str, pd.DataFrame]:
    return made(dict(zip(SITES, PLANTED.get(mode, [0.9] * 6), strict=True)), images, **state)


def diagnosed(tables: dict[str, pd.DataFrame], images: int = 400) -> pd.DataFrame:
    given = {"image_sets": {"d": image_set(images)}, "split_rule": "paper", "thresholds": {"m": THRESHOLDS}}
    return report.diagnoses(**tables, **given)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_planted_in_rows_is_the_main_mode(mode):
    judged = diagnosed(planted(mode))
    assert set(judged.loc[judged["verdict"] == NAMED, "mode"]) == {mode}
    assert (judged.loc[judged["mode"] != mode, "verdict"] == RULED_OUT).all()
    short = report.in_short(judged)
    assert short[["scope", "main"]].to_numpy().tolist() == [[scope, mode] for scope in (PROBE, RECIPE)]
    for words in short["diagnosis"]:
        found = re.fullmatch(rf"({mode}\S*.*): (\S+) \((\S+) to (\S+)\)", words.split("; ")[0])
        low, high = float(found[3]), float(found[4])
        assert 5 < low < float(found[2]) < high


def test_no_loss_and_too_few_images_are_two_answers():
    for images, words, verdict in ((400, report.NOTHING, RULED_OUT), (12, UNDECIDED, UNDECIDED)):
        judged = diagnosed(planted(None, images), images)
        assert (judged["verdict"] == verdict).all()
        assert set(report.in_short(judged)["diagnosis"]) == {words}


def test_stages_are_apart_and_other_runs_are_not_diagnosed():
    one, other = planted(FIDELITY), planted(MISALIGNMENT, stage="pretrained", run=None)
    again = one["predicted"].assign(run=1, parsed=None)
    both = {"probed": pd.concat([one["probed"], other["probed"]]), "reference": one["reference"]}
    both["predicted"] = pd.concat([one["predicted"], other["predicted"], again])
    short = report.in_short(diagnosed(both))
    assert dict(zip(short["stage"], short["main"], strict=True)) == {"finetuned": FIDELITY, "pretrained": MISALIGNMENT}
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
    assert all(words in chart.html for words in ("Set &lt;D&gt;", "upright ticks: thresholds"))
    for statement in STATEMENTS:
        own = judged[judged["statement"] == statement.name].iloc[0]
        words = f"{own['value']:+.1f} ({own['band_low']:+.1f} to {own['band_high']:+.1f}) pp, {own['verdict']}"
        for model in several["model"].unique():
            assert chart.html.count(f'data-told="{model}, {statement.name}: {words}"') == 2  # interval and point
            assert f"{model}, {statement.name}: {words}" in chart.description
    assert "ticks" not in change_chart(judged.drop(columns="threshold"), {}, "Losses").html


def test_what_was_diagnosed_stands_beside_what_was_planted():
    fault = Fault(slug="f", name="f", module="C", seed=1)
    damaged = [DamagedModel("m", fault, word, 10) for word in ("weak", "middle", "strong")]
    named = {"weak": (), "middle": (QUALITY, FIDELITY), "strong": (FIDELITY,)}
    judged = pd.DataFrame(
        {"model": one.slug, "dataset": "d", "stage": "finetuned", "scope": RECIPE, "statement": s.name}
        | {"mode": s.mode, "verdict": NAMED if s.mode in named[one.strength] else UNDECIDED}
        | {"value": -20.0, "band_low": -25.0, "band_high": -15.0}
        for one in damaged
        for s in STATEMENTS
    )
    judged = report.against_planted(judged, damaged)
    assert judged["planted"].tolist() == [FIDELITY] * 3
    assert judged["detected"].tolist() == ["no", "another mode", "yes"]
    assert judged["diagnosis"].iloc[2] == f"{FIDELITY}: 20.0 (15.0 to 25.0)"
