"""What edits show, on worlds in which it is known which block does harm and what is used, and in the chapter."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.analysis import interventions
from mlprobe_utils.evaluation import used
from mlprobe_utils.evaluation.used import CUT, MOVED, NOTHING, PAIRS, PUT_BACK, RANKED, TESTED, TWIN

BLOCKS = ["V.00", "V.01", "L.00", "L.01", "L.02", "L.03"]
LABELS = np.array(["No", "Yes"] * 100)


def rows_of(edit: str, point: str, wrong: int | np.ndarray, images: str = TESTED, tokens=None) -> pd.DataFrame:
    """Answers to 200 images, of which the first `wrong`, or those, are wrong."""
    missed = np.arange(len(LABELS)) < wrong if isinstance(wrong, int) else wrong
    yes = (LABELS == "Yes") ^ missed
    rows = pd.DataFrame({"image": range(len(LABELS)), "label": LABELS, "other": np.roll(LABELS, 1)})
    rows = rows.assign(images=images, edit=edit, point=point, tokens=tokens)
    return rows.assign(p_No=1.0 - yes, p_Yes=1.0 * yes)


def world(unedited: int, ranked: int | None = None, **skipped: int) -> pd.DataFrame:
    """How many answers are wrong: unedited, as the output layer ranks, and without a block (`V_01=…`)."""
    ranked = unedited if ranked is None else ranked
    frames = [rows_of(NOTHING, "", unedited), rows_of(RANKED, "L.03", ranked, tokens="t")]
    wrong = {block: skipped.get(block.replace(".", "_"), unedited) for block in BLOCKS}
    return pd.concat([*frames, *(rows_of(used.SKIPPED, block, own) for block, own in wrong.items())], ignore_index=True)


def placed(rows: pd.DataFrame, decodable: float = 95.0) -> str:
    parts = used.by_part(used.gains(rows)).to_dict("records")
    return used.place(parts, decodable - used.answered(rows), used.Shares(0.6, 0.6))[0]


@pytest.mark.parametrize(
    ("truth", "rows"),
    [
        (used.VISION_TOWER, world(80, V_01=20)),
        (used.FIRST_HALF, world(80, L_01=20)),
        (used.SECOND_HALF, world(80, L_02=20)),
        (used.SECOND_HALF, world(80, V_00=60, L_03=10)),  # less, but for certain, elsewhere
        (used.OUTPUT, world(80, ranked=12)),
        (used.CONNECTOR, world(80)),  # nothing that can be left out does harm
        (used.CONNECTOR, world(80, V_00=120, L_00=150)),
        (used.INCONCLUSIVE, world(80, V_01=20, L_01=20)),  # two alike
        (used.INCONCLUSIVE, world(80, V_01=45)),  # for certain, but maybe too little of what is missing
        (used.INCONCLUSIVE, world(14, V_01=9)),  # too few images
    ],
)
def test_the_part_that_does_harm_is_found(truth, rows):
    assert placed(rows) == truth


def test_gains_are_exact_changes_of_the_same_images():
    found = used.gains(world(80, V_01=20, L_00=100)).set_index("point")
    assert found["change"].round(6).to_dict() == dict.fromkeys(BLOCKS, 0.0) | {"V.01": 30.0, "L.00": -10.0, "L.03": 0.0}
    assert found.loc["V.01", "p"] == pytest.approx(2 * 0.5**60)  # McNemar: 60 changed, all for the better
    assert found["change"].between(found["low"], found["high"]).all()


def test_a_twin_places_by_the_first_part_that_restores_it():
    parts, rows = used.PARTS[:-1], [rows_of(NOTHING, "", 80), rows_of(TWIN, "", 10)]
    for restored in range(len(parts) + 1):
        put = [rows_of(PUT_BACK, part, 12 if place >= restored else 78) for place, part in enumerate(parts)]
        assert used.place_by_twin(pd.concat([*rows, *put])) == used.PARTS[restored]
    rows[1] = rows_of(TWIN, "", 90)  # it is no better
    assert used.place_by_twin(pd.concat([*rows, *put])) == used.INCONCLUSIVE


def test_effects_count_what_changes_and_what_follows():
    changed = np.arange(len(LABELS)) % 4 < 2  # whole pairs
    after = (np.arange(200) < 100) ^ changed
    frames = [rows_of(NOTHING, "", 100, PAIRS), rows_of(CUT, "L.01", after, PAIRS, "text")]
    partner = LABELS.reshape(-1, 2)[:, ::-1].ravel()
    frames.append(rows_of(MOVED, "L.01", np.arange(200) >= 150, PAIRS, "image_tokens"))
    rows = pd.concat(frames).assign(other=lambda own: own["image"].map(dict(enumerate(partner))))
    found = used.effects(rows).set_index("edit")["value"]
    assert found[CUT] == pytest.approx(50.0)  # answers that change, right or wrong
    assert found[MOVED] == pytest.approx(50.0)  # of the 100 that were right, those of 150 on
    assert found[NOTHING] == pytest.approx(50.0)


def test_the_llm_is_halved_by_its_layers():
    halves = [used.part_of(f"L.{number:02d}", 5) for number in range(5)]
    assert halves == [used.FIRST_HALF] * 3 + [used.SECOND_HALF] * 2
    parts = {"V.07": used.VISION_TOWER, "C.00": used.CONNECTOR, "output": used.OUTPUT}
    assert {point: used.part_of(point, 5) for point in parts} == parts


STATE = {"model": "m", "dataset": "d", "stage": "finetuned"}
OF_PAIRS = [(CUT, "text"), *((edit, "last_token") for edit in (used.PATCHED, MOVED, used.MOVED_AT_RANDOM))]


def answers(edit: str, point: str, tokens: str | None, images: str, right: bool) -> pd.DataFrame:
    rows = pd.DataFrame({"image": range(40), "label": ["a", "b"] * 20, "other": ["b", "a"] * 20})
    rows = rows.assign(images=images, edit=edit, point=point, tokens=tokens, p_a=(rows["label"] == "a") == right)
    return rows.assign(p_a=rows["p_a"].astype(float), p_b=1.0 - rows["p_a"], **STATE)


def swept(right: bool, **changes: bool) -> pd.DataFrame:
    """Pairs at one layer; `changes`: edits that turn right answers into the partner's."""
    edits = [answers(edit, "L.00", tokens, PAIRS, right != changes.get(edit, False)) for edit, tokens in OF_PAIRS]
    return interventions.effects(pd.concat([answers(NOTHING, "", None, PAIRS, right), *edits]))


def test_layers_and_uses_are_those_whose_edits_change_answers():
    found = swept(True, cut=True, patched=True, moved=True)
    assert interventions.last_readers(found)["layer"].tolist() == ["L.00"]
    assert interventions.deciding_layers(found)["layer"].tolist() == ["L.00"]
    assert interventions.uses(found)["use"].tolist() == [interventions.USED]
    assert interventions.uses(swept(True, patched=True))["use"].tolist() == [interventions.ELSEWHERE]
    assert interventions.uses(swept(True))["use"].tolist() == [interventions.UNUSED]


def test_a_model_that_answers_nothing_right_or_alone_has_tables_without_values():
    found = swept(False)
    for layers in (interventions.last_readers(found), interventions.deciding_layers(found)):
        assert layers[[*STATE]].to_dict("records") == [STATE]
        assert layers["layer"].isna().all()
    assert interventions.uses(found)["use"].isna().all()
    alone = [answers(NOTHING, "", None, TESTED, True), answers(PUT_BACK, "connector", None, TESTED, False)]
    assert interventions.restored(interventions.effects(pd.concat(alone))).empty
    twin = interventions.restored(interventions.effects(pd.concat([*alone, answers(TWIN, "", None, TESTED, True)])))
    assert [*twin][3:] == ["nothing", "connector", "the twin itself"]
    assert twin["connector"].item().startswith("0 [0, ")
