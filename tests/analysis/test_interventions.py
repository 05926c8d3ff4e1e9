"""What the chapter on interventions computes, of models that do nothing it asks for, too."""

import pandas as pd

from mlprobe_utils.analysis import interventions
from mlprobe_utils.evaluation.used import CUT, MOVED, MOVED_AT_RANDOM, NOTHING, PAIRS, PATCHED, PUT_BACK, TESTED, TWIN

STATE = {"model": "m", "dataset": "d", "stage": "finetuned"}
OF_PAIRS = [(CUT, "text"), *((edit, "last_token") for edit in (PATCHED, MOVED, MOVED_AT_RANDOM))]


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
