"""Frozen against adapted: a planted change is significant, chance is not, and an average gap has two sizes."""

import numpy as np
import pandas as pd
import pytest
from made_rows import answers_of, right_of, scored_set

from mlprobe_utils.analysis import frozen_tower
from mlprobe_utils.analysis.frozen_tower import LOWERED, NEITHER, POINTS, RAISED, RELATIVE
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.metrics import output_scores

IMAGES, RUNS = 400, 2
HARD = np.random.default_rng(0).random(IMAGES)  # the same images are hard for both


def answers(share: float, seed: int, dataset: str = "d", unparsed: int = 0, images: int = IMAGES):
    """Prediction rows of two runs; of the wrong answers, so many are none of the options."""
    frames = []
    for run in range(RUNS):
        rows = answers_of(right_of(HARD[:images], share, [seed, run]), run, run=run, dataset=dataset)
        rows.loc[rows.index[rows["parsed"] != rows["label"]][:unparsed], "parsed"] = None
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def paired(*sides: pd.DataFrame):
    return frozen_tower.compared(*sides, scored_set(IMAGES), "paper")


def compared(frozen: float, adapted: float, dataset: str = "d"):
    return paired(answers(frozen, 1, dataset), answers(adapted, 2, dataset))


@pytest.mark.parametrize(("frozen", "verdict"), [(0.6, LOWERED), (0.9, RAISED)])
def test_a_planted_change_is_significant_with_its_sign(frozen, verdict):
    table = frozen_tower.changes([compared(frozen, 0.75)]).set_index("metric")
    assert table.index.tolist() == ["accuracy", "f1"]
    assert (table["verdict"] == verdict).all()
    assert table.at["accuracy", "change"] == pytest.approx(100 * (frozen - 0.75), abs=4)
    assert (table["low"] < table["change"]).all()
    assert (table["change"] < table["high"]).all()
    assert (table["low"] * table["high"] > 0).all()
    assert (table["p"] <= table["p (Holm)"]).all()


def test_scores_are_those_of_the_answers_that_were_given():
    """Unparsed answers are wrong, and runs are averaged."""
    sides = answers(0.7, 1, unparsed=20), answers(0.8, 2)
    table = frozen_tower.changes([paired(*sides)]).set_index("metric")
    for name, rows in zip(("frozen", "adapted"), sides, strict=True):
        scores = output_scores(rows, {"d": "Yes"})
        for metric in ("accuracy", "f1"):
            assert table.at[metric, name] == pytest.approx(scores[metric].mean())


def test_both_gaps_are_the_means_of_the_changes():
    readings = [compared(0.6, 0.8), compared(0.7, 0.75, "e")]
    changes, gaps = frozen_tower.changes(readings), frozen_tower.gaps(readings).set_index("gap")
    assert gaps.at[POINTS, "value"] == pytest.approx(changes["change"].mean())
    relative = 100 * (changes["frozen"] / changes["adapted"] - 1)
    assert gaps.at[RELATIVE, "value"] == pytest.approx(relative.mean())
    assert gaps["numbers"].tolist() == [4, 4]
    assert abs(gaps.at[RELATIVE, "value"]) > abs(gaps.at[POINTS, "value"])
    assert (gaps["high"] < 0).all()
    of_each = [frozen_tower.gaps([own]).set_index("gap").loc[POINTS] for own in readings]  # data sets are independent
    widths = [own["high"] - own["low"] for own in of_each]
    assert gaps.at[POINTS, "high"] - gaps.at[POINTS, "low"] == pytest.approx(np.hypot(*widths) / 2)
    # accuracy and F1 of one data set are of the same answers: their mean is hardly surer than either
    changes, gap = (made(readings[1:]) for made in (frozen_tower.changes, frozen_tower.gaps))
    gap = gap.set_index("gap").loc[POINTS]
    assert gap["high"] - gap["low"] > 0.9 * (changes["high"] - changes["low"]).min()
    never = frozen_tower.gaps([compared(0.5, -1.0)]).set_index("gap")  # never right: F1 of nothing
    assert np.isnan(never.loc[RELATIVE, ["value", "low", "high"]].astype(float)).all()
    assert never.at[POINTS, "low"] > 0


def test_where_nothing_differs_nothing_is_significant_however_many_are_compared():
    alike = [compared(0.75, 0.75, f"d{n}") for n in range(6)]
    assert (frozen_tower.changes(alike)["verdict"] == NEITHER).all()
    gaps = frozen_tower.gaps(alike)
    assert (gaps["low"] < 0).all()
    assert (gaps["high"] > 0).all()


def test_identical_answers_have_an_interval_of_some_width():
    rows = answers(0.75, 1)
    same = paired(rows, rows.copy())
    table, gaps = frozen_tower.changes([same]), frozen_tower.gaps([same])
    for found, value in ((table, table["change"]), (gaps, gaps["value"])):
        assert (found["low"] < 0).all()
        assert (value == 0).all()
        assert (found["high"] > 0).all()
    assert (table["p"] > 0.9).all()


def test_rows_of_other_images_are_refused():
    with pytest.raises(InputError, match="m on d, vision tower adapted: its rows are not of the test images"):
        paired(answers(0.7, 1), answers(0.7, 2, images=390))
