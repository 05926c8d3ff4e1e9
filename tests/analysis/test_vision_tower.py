"""The vision tower frozen, adapted and trained alone: planted changes are significant, chance is not."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_rows import SEEDS, answers_of, image_set, right_of, rows_of

from mlprobe_utils.analysis import vision_tower
from mlprobe_utils.analysis.vision_tower import ABSOLUTE, ALONE, FINE_TUNED, LOWERED, METRICS, PROBES, RAISED, RELATIVE
from mlprobe_utils.evaluation.metrics import output_scores
from mlprobe_utils.evaluation.names import FROZEN_TOWER
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.tested import Evaluated, evaluated, resamples_of_tested
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER, sign_flip_p

IMAGES = 400
HARD = np.random.default_rng(0).random(IMAGES)  # the same images are hard for all
SETS = {"d": image_set(IMAGES)}
DRAWN, _ = resamples_of_tested(SETS["d"], "paper")


def answers(share: float, seed: int, unparsed: int = 0) -> pd.DataFrame:
    """Prediction rows of two runs; of the wrong answers, so many are none of the options."""
    frames = []
    for run in (0, 1):
        rows = answers_of(right_of(HARD, share, [seed, run]), run, run=run)
        rows.loc[rows.index[rows["parsed"] != rows["label"]][:unparsed], "parsed"] = None
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def of_rows(frozen: pd.DataFrame, adapted: pd.DataFrame, dataset: str = "d") -> Evaluated:
    outcomes = {("frozen",): output_outcomes(frozen), ("adapted",): output_outcomes(adapted)}
    return Evaluated("m", dataset, outcomes, DRAWN, "Yes")


def compared(frozen: float, adapted: float, dataset: str = "d") -> Evaluated:
    return of_rows(answers(frozen, 1), answers(adapted, 2), dataset)


@pytest.mark.parametrize(("frozen", "verdict"), [(0.6, LOWERED), (0.9, RAISED)])
def test_a_planted_change_is_significant_with_its_sign(frozen, verdict):
    sides = answers(frozen, 1, unparsed=20), answers(0.75, 2)
    table = vision_tower.changes([of_rows(*sides)]).set_index("metric")
    assert table.index.tolist() == [*METRICS]
    assert (table["verdict"] == verdict).all()
    assert table.at["accuracy", "change"] == pytest.approx(100 * (frozen - 0.75), abs=4)
    for name, rows in zip(("frozen", "adapted"), sides, strict=True):  # means over runs, unparsed answers are wrong
        scores = output_scores(rows, {"d": "Yes"})
        assert table[name].to_dict() == pytest.approx(scores[[*METRICS]].mean().to_dict())
    np.testing.assert_allclose(table["change"], table["frozen"] - table["adapted"])


def test_both_gaps_are_the_means_of_the_changes():
    changes = vision_tower.changes([compared(0.6, 0.8), compared(0.7, 0.75, "e")])
    gaps = vision_tower.gaps(changes).set_index("gap")
    assert gaps.at[ABSOLUTE, "value"] == pytest.approx(changes["change"].mean())
    assert gaps.at[RELATIVE, "value"] == pytest.approx(100 * (changes["frozen"] / changes["adapted"] - 1).mean())
    assert gaps["scores"].tolist() == [4, 4]
    assert (gaps["high"] < 0).all()
    never = vision_tower.gaps(vision_tower.changes([compared(0.5, -1.0)]))  # never correct: F1 of nothing
    never = never.set_index("gap")
    assert np.isnan(never.loc[RELATIVE, ["value", "low", "high"]].astype(float)).all()
    assert never.at[ABSOLUTE, "low"] > 0


def test_the_widest_interval_is_of_a_change_that_is_not_significant():
    rows = [("wide", RAISED, 20.0, 60.0), ("narrow", NEITHER, -1.0, 2.0), ("middle", NEITHER, -4.0, 5.0)]
    planted = pd.DataFrame(rows, columns=["model", "verdict", "low", "high"]).assign(metric="accuracy", dataset="Set")
    said = vision_tower.summary(planted)
    assert "significantly raises 1 of 3 scores and lowers 0. For 2 of 3 the change is not significant" in said
    assert "is -4.0 to +5.0 pp (accuracy, middle, Set)" in said
    assert "wide," not in said
    assert "widest" not in vision_tower.summary(planted[:1])


def test_percent_and_points_are_never_averaged():
    planted = pd.DataFrame({"gap": [RELATIVE, ABSOLUTE] * 2, "value": [10.0, 1, 20, 3]})
    planted = planted.assign(low=planted["value"] - [5.0, 1, 5, 1], high=planted["value"] + [5.0, 1, 5, 1])
    said = vision_tower.gaps_in_words(planted)
    assert said == "+15.0 (+10.0 to +20.0) % as a relative change, and +2.0 (+1.0 to +3.0) pp as a difference"


def test_several_runs_of_several_models_make_a_statement_about_the_training():
    found = [replace(of_rows(answers(0.6, n), answers(0.75, 9 + n)), model=f"m{n}") for n in range(2)]
    trained, alone = vision_tower.changes(found), vision_tower.changes(found[:1])
    assert (trained["scope"].unique(), alone["scope"].unique()) == (TRAINING, WEIGHTS)
    assert (trained["verdict"] == LOWERED).all()


def test_where_nothing_differs_nothing_is_significant_and_intervals_have_a_width():
    rows = answers(0.75, 1)
    alike = [compared(0.75, 0.75, f"d{n}") for n in range(6)] + [of_rows(rows, rows, "same")]
    changes = vision_tower.changes(alike)
    assert (changes["verdict"] == NEITHER).all()
    for found in (changes, vision_tower.gaps(changes)):
        assert (np.sign(found[["low", "high"]]) == [-1, 1]).all(axis=None)


def of_shares(monkeypatch, shares: dict[str, float]) -> Evaluated:
    """Outcomes of rows in which every paradigm has a share correct of its own, and all others nothing."""
    right = {name: right_of(HARD, share, n, (SEEDS,)) for n, (name, share) in enumerate(shares.items())}
    answers = [answers_of(right[FINE_TUNED][run], run=run) for run in (0, 1)]
    answers.append(answers_of(~right[FINE_TUNED][0], stage="pretrained", run=None))
    probed = [
        rows_of(right[name][seed] ^ (point != "V.05"), stage=stage, seed=seed, point=point, pooling="image_mean")
        for (stage, name), seed, point in itertools.product(PROBES.items(), range(SEEDS), ("V.05", "C.01"))
    ]
    alone = [
        rows_of(right[name][run], run=run, seed=run, probe=weights, point="V.05")
        for (weights, name), run in itertools.product(ALONE.items(), (0, 1))
    ]
    head = [rows_of(right[FROZEN_TOWER][0], stage="pretrained", point="V.05", probe="linear", seed=0)]
    tables = {"prediction_rows": answers, "end_rows": probed, "frozen_tower_rows": head, "classifier_rows": alone}
    for name, rows in tables.items():
        decoys = [rows[0].head(5).assign(split="validation")] if rows is not head else []
        table = pd.concat([*rows, *decoys], ignore_index=True)
        module = variants if rows is alone else results
        monkeypatch.setattr(module, name, lambda selection, table=table: table)
    selection = results.Selection(("m",), ("d",), "miniature", "paper")
    (found,) = evaluated(selection, SETS, vision_tower.outcomes_of_paradigms)
    for name, own in found.outcomes.items():
        assert (own.correct[:, 0] == right[name[0]][: len(own.seeds)]).all(), name
    return found


@pytest.mark.parametrize(
    ("changed", "share", "verdict"), [("all", 0.95, HIGHER), ("lora", 0.5, LOWER), ("all", 0.75, NEITHER)]
)
def test_a_planted_difference_is_significant_and_no_other_is(monkeypatch, changed, share, verdict):
    paradigms = vision_tower.FINE_TUNED, *vision_tower.PROBES.values(), *ALONE.values()
    shares = dict.fromkeys(paradigms, 0.75) | {ALONE[changed]: share, FROZEN_TOWER: 0.65}
    found = of_shares(monkeypatch, shares)
    table = vision_tower.differences([found])
    assert list(zip(table["paradigm"], table["reference"], strict=True)) == vision_tower.COMPARED
    planted = table["paradigm"] == ALONE[changed]
    assert (table.loc[planted, "verdict"] == verdict).all()
    assert table.loc[planted, "difference"].to_numpy() == pytest.approx(100 * (share - 0.75), abs=5)
    assert (table.loc[~planted, "verdict"] == NEITHER).all()
    names = FINE_TUNED, PROBES["pretrained"]
    pairs = itertools.product(*(found.outcomes[name,].correct for name in names))  # each run with each seed
    one, other = map(np.stack, zip(*pairs, strict=True))
    p = table.set_index(["paradigm", "reference"]).at[names, "p"]
    assert p == pytest.approx(sign_flip_p(other, one, found.resamples.clusters)[0])
    levels = vision_tower.levels([found]).set_index("paradigm")
    assert levels["trained"].tolist() == [2, SEEDS, SEEDS, 1, 2, 2]
    for (paradigm,), own in found.outcomes.items():
        assert levels.at[paradigm, "accuracy"] == pytest.approx(100 * own.correct.mean())
    assert (levels["low"] < levels["accuracy"]).all()
