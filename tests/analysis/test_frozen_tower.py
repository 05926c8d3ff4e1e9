"""Frozen against adapted: a planted change is significant, chance is not, and an average gap has two sizes."""

import numpy as np
import pandas as pd
import pytest
from made_rows import answers_of, right_of
from site_rows import image_set

from mlprobe_utils.analysis import frozen_tower
from mlprobe_utils.analysis.frozen_tower import LOWERED, METRICS, NEITHER, POINTS, RAISED, RELATIVE
from mlprobe_utils.evaluation.metrics import output_scores
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.tested import Evaluated, resamples_of_tested

IMAGES, RUNS = 400, 2
HARD = np.random.default_rng(0).random(IMAGES)  # the same images are hard for both
DRAWN, _ = resamples_of_tested(image_set(IMAGES), "paper")


def answers(share: float, seed: int, unparsed: int = 0) -> pd.DataFrame:
    """Prediction rows of two runs; of the wrong answers, so many are none of the options."""
    frames = []
    for run in range(RUNS):
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
    table = frozen_tower.changes([compared(frozen, 0.75)]).set_index("metric")
    assert table.index.tolist() == [*METRICS]
    assert (table["verdict"] == verdict).all()
    assert table.at["accuracy", "change"] == pytest.approx(100 * (frozen - 0.75), abs=4)
    np.testing.assert_allclose(table["change"], table["frozen"] - table["adapted"])


def test_scores_are_those_of_the_answers_that_were_given():
    """Unparsed answers are wrong, and runs are averaged."""
    sides = answers(0.7, 1, unparsed=20), answers(0.8, 2)
    table = frozen_tower.changes([of_rows(*sides)]).set_index("metric")
    for name, rows in zip(("frozen", "adapted"), sides, strict=True):
        scores = output_scores(rows, {"d": "Yes"})
        for metric in METRICS:
            assert table.at[metric, name] == pytest.approx(scores[metric].mean())


def test_both_gaps_are_the_means_of_the_changes():
    both = [compared(0.6, 0.8), compared(0.7, 0.75, "e")]
    changes, gaps = frozen_tower.changes(both), frozen_tower.gaps(both).set_index("gap")
    assert gaps.at[POINTS, "value"] == pytest.approx(changes["change"].mean())
    relative = 100 * (changes["frozen"] / changes["adapted"] - 1)
    assert gaps.at[RELATIVE, "value"] == pytest.approx(relative.mean())
    assert gaps["numbers"].tolist() == [4, 4]
    assert (gaps["high"] < 0).all()
    of_each = [frozen_tower.gaps([own]).set_index("gap").loc[POINTS] for own in both]  # data sets are independent
    widths = [own["high"] - own["low"] for own in of_each]
    assert gaps.at[POINTS, "high"] - gaps.at[POINTS, "low"] == pytest.approx(np.hypot(*widths) / 2)
    # accuracy and F1 of one data set are of the same answers: their mean is hardly surer than either
    of_last = changes[changes["dataset"] == "e"]
    assert widths[1] > 0.9 * (of_last["high"] - of_last["low"]).min()
    never = frozen_tower.gaps([compared(0.5, -1.0)]).set_index("gap")  # never correct: F1 of nothing
    assert np.isnan(never.loc[RELATIVE, ["value", "low", "high"]].astype(float)).all()
    assert never.at[POINTS, "low"] > 0


def test_where_nothing_differs_nothing_is_significant_and_intervals_have_a_width():
    rows = answers(0.75, 1)
    alike = [compared(0.75, 0.75, f"d{n}") for n in range(6)] + [of_rows(rows, rows, "same")]
    changes, same = frozen_tower.changes(alike), frozen_tower.gaps(alike[-1:])
    assert (changes["verdict"] == NEITHER).all()
    assert (same["value"] == 0).all()
    for found in (changes, frozen_tower.gaps(alike), same):
        assert (found["low"] < 0).all()
        assert (found["high"] > 0).all()
