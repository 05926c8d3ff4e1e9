"""The diagnosis judged on planted faults: cases of a tiny model, thresholds, tables."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import MODES, NAMES
from mlprobe_utils.evaluation.names import COMPREHENSION, FIDELITY, MISALIGNMENT, QUALITY
from mlprobe_utils.pipeline import artefacts, fault_card, laboratory_results
from mlprobe_utils.pipeline.configuration import Run, load_book
from mlprobe_utils.pipeline.jobs import prepare
from mlprobe_utils.pipeline.laboratory_results import by_family, judged
from mlprobe_utils.synthetic.faults.planting import run_trial, write_confusion

LOST = {QUALITY: NAMES[0], FIDELITY: NAMES[1], COMPREHENSION: NAMES[2], MISALIGNMENT: NAMES[4]}


def case(family: str, mode: str | None = None, lost: float = 0.0, noise: float = 0.0, **fields) -> dict:
    """A row of a table of cases: nothing lost but by what was planted, and `noise` at every statement."""
    row = {"model": family, "family": family, "dataset": "d", "mode": mode}
    row |= dict.fromkeys(laboratory_results.MEASURES, lost or np.nan)
    row |= dict.fromkeys(laboratory_results.PLANTED, mode and "f") | {"run": 0, "wanted": lost or np.nan}
    for name in NAMES:
        value = -noise - (lost if mode and name == LOST[mode] else 0)
        row |= {f"value: {name}": value, f"band_low: {name}": value - 5, f"band_high: {name}": value + 5}
    return row | fields


def test_thresholds_never_see_the_family_that_they_judge():
    quiet = [case(family, noise=1.0) for family in "abc" for _ in range(10)]
    loud = [case("d", noise=30.0) for _ in range(10)]
    table = judged(pd.DataFrame([*quiet, *loud]), 0.0)
    limits = by_family(table, "ad", 0.0)
    assert (limits["d"][NAMES[0]], limits["a"][NAMES[0]]) == (0.0, 25.0)
    assert table["diagnosed"].notna().tolist() == [False] * 30 + [True] * 10
    with pytest.raises(InputError, match="found none: run models of another family"):
        judged(pd.DataFrame(loud), 0.0)


def test_planted_cases_give_the_confusion_that_was_planted():
    rows = [case(family, noise=0.0) for family in "abc" for _ in range(4)]
    rows += [case(family, mode, 30.0) for family in "abc" for mode in MODES]
    rows += [case(family, QUALITY, 3.0) for family in "abc"]  # less than can be told
    table = judged(pd.DataFrame(rows), 2.0)
    table["strong"] = table["lost"] >= 20
    counts = laboratory_results.confusion(table)
    assert [counts.loc[mode, mode] for mode in MODES] == [3] * 4
    assert counts.loc[QUALITY, laboratory_results.NOTHING] == 3
    assert counts.loc[laboratory_results.NOTHING, laboratory_results.NOTHING] == 12
    assert counts.to_numpy().sum() == len(table)
    rates = laboratory_results.Laboratory(None, table).rates.set_index(["what", "of"])
    strong = rates.loc[(laboratory_results.STRONG, "all")]
    assert strong[["cases", "models", "correct"]].tolist() == [12, 3, 12]
    assert strong[["low", "high"]].tolist() == pytest.approx([73.5, 100], abs=0.1)
    assert rates.loc[(laboratory_results.WEAK, "all"), "share"] == 0
    assert rates.loc[(laboratory_results.STRONG, FIDELITY), "cases"] == 3


def test_a_laboratory_is_kept_whole_and_says_when_its_cards_have_changed(outputs, monkeypatch):
    rows = [case(family, noise=8.534) for family in "ab" for _ in range(3)] + [case("a", QUALITY, 30.0), case("b")]
    laboratory_results.write(pd.DataFrame(rows), "2026-01-02", "abc1234", "make laboratory")
    found = laboratory_results.read()
    assert found.cases["strong"].tolist() == [False] * 6 + [True, False]
    assert found.thresholds("ab") == {"a": dict.fromkeys(NAMES, 3.53), "b": dict.fromkeys(NAMES, 3.53)}
    assert laboratory_results.CHANGED not in found.words()
    for words in ("2026-01-02", "abc1234", "1 damaged and 7 undamaged cases of 2 miniatures", "1 of 1", "0 of 7"):
        assert words in found.words()
    monkeypatch.setattr(laboratory_results, "all_faults", lambda: fault_card.all_faults()[:3])
    assert laboratory_results.read().words().endswith(laboratory_results.CHANGED)


def test_the_projects_own_laboratory_is_that_of_its_cards_and_of_every_family(outputs):
    found = laboratory_results.read()
    assert fault_card.laboratory_files()[0].is_relative_to(artefacts.ROOT / "data")
    assert laboratory_results.CHANGED not in found.words()
    families = found.cases.groupby("model")["family"].first()
    assert set(load_book().models) <= set(families.index)
    assert families.nunique() >= 5
    assert {row for family in found.thresholds(set(families)).values() for row in family} == set(NAMES)
    assert set(found.cases["mode"].dropna()) == set(MODES)


def test_a_laboratory_that_cannot_be_read_says_how_to_have_one(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(fault_card, "CARDS", tmp_path)
    with pytest.raises(InputError, match=r"laboratory\.csv is not there: restore it, or run `make laboratory`"):
        laboratory_results.read()
    laboratory_results.write(pd.DataFrame([case("a"), case("b")]), "d", "c", "m")
    file, run = fault_card.laboratory_files()
    file.write_text(file.read_text().replace("severity", "severe"))
    with pytest.raises(InputError, match=r"laboratory\.csv is not as it was written: restore it, or run"):
        laboratory_results.read()
    run.write_text(run.read_text().partition("table:")[0])  # as of an earlier run
    with pytest.raises(InputError, match=r"laboratory\.csv lacks the column 'severity'"):
        laboratory_results.read()


@pytest.mark.nightly
def test_one_model_on_one_set_for_real(tmp_path, monkeypatch):
    """Two families, of which each is judged by the other's thresholds; what destroys much is seen where it is."""
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)
    models, where = ("qwen2.5-vl-7b-miniature", "gemma-3-4b-miniature"), (("chest-xray-phantom",), "miniature", "paper")
    prepare(Run(models, *where, ""))
    run_trial(models[0], *where)
    run_trial(models[1], *where, undamaged=True)
    write_confusion(models, *where)
    table = laboratory_results.read().cases
    strong = table[table["strong"] & (table["destroys"] == True)]  # noqa: E712
    assert len(strong)
    for row in strong.to_dict("records"):
        assert row[f"band_high: {LOST[row['mode']]}"] < 0
    assert table[table["mode"].isna()]["model"].nunique() == 2
