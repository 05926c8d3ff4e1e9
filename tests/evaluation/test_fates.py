"""The fate of single images: planted at each place, and what the explorer gets of it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.fates import ANSWER, FATES, FULL, MEAN, compared, decoded, fates, right, state

POINTS = ["V.00", "V.10", "C.00", "C.01", "L.00", "L.09", "L.10"]  # by number, not by name
STATE = {"model": "m", "dataset": "d", "stage": "finetuned", "split": "test"}
PLANTED = {  # the points at which an image's class is decoded from the mean, what is answered, and its fate
    "all": (POINTS, "Yes", "correct"),
    "none, yet correct": ([], "Yes", "correct"),
    "silent": (POINTS, None, "unparsed"),
    "unused": (POINTS, "No", "read-out"),
    "by llm": (POINTS[:6], "No", "L"),
    "by connector": (POINTS[:3], "No", "C"),
    "regained in vain": ([*POINTS[:2], "L.00"], "No", "C"),
    "by tower": (POINTS[:1], "No", "V"),
    "never": ([], "No", "never"),
}


def rows_of(planted=PLANTED, pooling=MEAN, points=POINTS) -> pd.DataFrame:
    places = itertools.product(planted.items(), points)
    rows = [{"image": image, "point": point, "p_Yes": 0.2 + 0.6 * (point in own[0])} for (image, own), point in places]
    return pd.DataFrame(rows).assign(pooling=pooling, label="Yes", p_No=lambda own: 1 - own["p_Yes"], seed=0, **STATE)


def answers_of(planted=PLANTED) -> pd.DataFrame:
    parsed = [own[1] for own in planted.values()]
    chances = [0.9 if answer == "Yes" else 0.1 for answer in parsed]
    table = pd.DataFrame({"image": [*planted], "label": "Yes", "parsed": parsed, "text": [f" {a}" for a in parsed]})
    return table.assign(p_Yes=chances, p_No=1 - np.array(chances), **STATE)


def judged(rows: pd.DataFrame, answers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = decoded(rows.sample(frac=1, random_state=0), answers)
    return table, answers.set_index("image").loc[table.index]


def test_each_image_is_lost_where_it_was_planted_to_be():
    table, answers = judged(rows_of(), answers_of())
    assert fates(table, answers).to_dict() == {image: own[2] for image, own in PLANTED.items()}
    assert {own[2] for own in PLANTED.values()} == {*FATES}
    assert [*dict.fromkeys(key[1] for key in table)] == [*POINTS, ANSWER]
    assert right(table, answers["label"])[MEAN].loc["by llm"].tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("pooling", ["image_places", "last_token"])
def test_what_another_pooling_decodes_at_a_modules_end_is_not_lost(pooling):
    ends = ["V.10", "C.01", "L.10"] if pooling == "image_places" else ["L.10"]
    more = rows_of({image: (ends, *own[1:]) for image, own in PLANTED.items()}, pooling, ends)
    table, answers = judged(pd.concat([rows_of(), more]), answers_of())
    assert set(fates(table, answers)) == {"correct", "unparsed", "read-out"}


def test_seeds_are_averaged_and_a_side_path_decides_nothing():
    other = rows_of({image: ([], *own[1:]) for image, own in PLANTED.items()}).assign(seed=1, p_Yes=0.3, p_No=0.7)
    table, answers = judged(pd.concat([rows_of(), other]), answers_of())
    np.testing.assert_allclose(table.loc["all", (MEAN, "V.00", "Yes")], (0.8 + 0.3) / 2)
    aside = rows_of({image: (["D.00"], *own[1:]) for image, own in PLANTED.items()}, points=["D.00"])
    beside, _ = judged(pd.concat([rows_of(), other, aside]), answers_of())
    pd.testing.assert_series_equal(fates(beside, answers), fates(table, answers))


def test_what_is_missing_or_mixed_is_an_error():
    rows, answers = rows_of(), answers_of()
    with pytest.raises(InputError, match="no rows of test images"):
        decoded(rows.assign(split="validation"), answers.assign(split="validation"))
    with pytest.raises(InputError, match="choose one value of stage"):
        decoded(pd.concat([rows, rows.assign(stage="pretrained")]), answers)
    with pytest.raises(InputError, match="in the connector: probe it first"):
        fates(*judged(rows[rows["point"].str[0] != "C"], answers))


@settings(max_examples=25)
@given(arrays(float, (4, 3), elements=st.floats(0.001, 1)))
def test_the_explorer_keeps_every_decision(weights):
    chances = weights / weights.sum(axis=1, keepdims=True)
    images = [f"{place}.png" for place in range(4)]
    frame = pd.DataFrame(chances, columns=["p_a", "p_b", "p_c"]).assign(image=images, label="a", **STATE)
    answers = frame.assign(parsed="a", text="a")
    rows = pd.concat([frame.assign(pooling=MEAN, point=point, seed=0) for point in POINTS[::2]])
    table, own = judged(rows, answers)
    drawn = state(table, own, fates(table, own))
    for series in drawn["p"]:
        whole = np.reshape(series, (4, 3))
        assert (whole.argmax(axis=1) == chances.argmax(axis=1)).all()
        assert (np.sort(whole, axis=1)[:, -1] > np.sort(whole, axis=1)[:, -2]).all()  # no tie
        np.testing.assert_allclose(whole / FULL, chances, atol=1.6 / FULL)
    beside = compared(table, own, drawn)
    assert beside["points"] == [*POINTS[::2], ANSWER]
    np.testing.assert_allclose(np.array(beside["p"][0]) / FULL, chances[:, 0], atol=1.6 / FULL)
