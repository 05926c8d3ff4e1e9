"""The diagnosis judged on planted faults: cases of a tiny model, thresholds, tables."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import MODES, NAMES
from mlprobe_utils.evaluation.names import FIDELITY, QUALITY, READ_OUT_GAP
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.pipeline import artefacts, fault_card, laboratory_results
from mlprobe_utils.pipeline.configuration import Run, load_book
from mlprobe_utils.pipeline.jobs import prepare
from mlprobe_utils.synthetic.faults.planting import run_trial, write_confusion

MODULE = dict(zip(MODES, ("V", "C", "L", ANSWER), strict=True))
LOST = dict(zip(MODES, (NAMES[0], NAMES[1], NAMES[2], NAMES[-1]), strict=True))


def case(family: str, mode: str | None = None, lost: float = 0.0, noise: float = 0.0, **fields) -> dict:
    """A row of a table of cases: nothing lost but by what was planted, and `noise` at every statement."""
    row = {"model": family, "family": family, "dataset": "d", "mode": mode, "wanted": lost or np.nan}
    row |= {name: lost or np.nan for name in laboratory_results.MEASURES}
    row |= {"run": 0, "fault": mode and "f", "kind": mode and "noise", "module": mode and MODULE[mode]}
    row |= {"collapsed": False, "destroys": True if mode else None, "reached": True, "severity": 0.5}
    row |= dict.fromkeys(laboratory_results.EDITED)
    for name in NAMES:
        row |= {f"value: {name}": -noise - (lost if mode and name == LOST[mode] else 0), f"error: {name}": 1.0}
    return row | fields


def test_a_case_is_judged_by_undamaged_cases_of_other_families():
    quiet = [case(family, noise=1.0) for family in "abc" for _ in range(10)]
    loud = [case("d", noise=30.0) for _ in range(10)]
    table = laboratory_results.judged(pd.DataFrame([*quiet, *loud]), 0.0)
    known = laboratory_results.by_family(table, "ad")
    assert [known[family][NAMES[0]].mean for family in "da"] == [1.0, pytest.approx(32 / 3)]
    assert table["diagnosed"].notna().tolist() == [False] * 30 + [True] * 10
    with pytest.raises(InputError, match="found 0: run models of another family"):
        laboratory_results.judged(pd.DataFrame(loud), 0.0)


def test_planted_cases_give_the_confusion_and_the_rates_that_were_planted():
    rows = [case(family, model=f"{family}{number}") for family in "abc" for number in range(4)]
    rows += [case(family, mode, 30.0) for family in "abc" for mode in MODES]
    rows += [case(family, QUALITY, 1.5) for family in "abc"]  # less than counts
    unusable = {"destroys": False, "mode": READ_OUT_GAP}  # shows where it is planted, and not in its own module
    rows += [case(family, READ_OUT_GAP, 30.0) | unusable | {"module": "C"} for family in "abc"]
    rows += [case("a", FIDELITY, 30.0) | unusable | {"module": "V"}]  # a wrong place
    table = laboratory_results.judged(pd.DataFrame(rows), 2.0)
    counts = laboratory_results.confusion(table)
    assert counts.loc["vision tower, destroyed", [QUALITY, laboratory_results.NOTHING]].tolist() == [3, 3]
    assert counts.loc["connector, made unusable", READ_OUT_GAP] == 3
    assert counts.loc[laboratory_results.NOTHING, laboratory_results.NOTHING] == 12
    assert counts.to_numpy().sum() == len(table)
    rates = laboratory_results.Laboratory(None, table).rates.set_index(["what", "of"])
    whole = rates.xs("all", level="of")[["cases", "models", "counted"]]
    assert whole.to_numpy().tolist() == [[12, 3, 12], [3, 3, 0], [4, 3, 4], [16, 3, 1], [12, 12, 0]]
    assert rates.iloc[0][["low", "high"]].tolist() == pytest.approx([73.5, 100], abs=0.1)
    assert rates.loc[(rates.index[0][0], "C"), "cases"] == 3


def edited(part: str, helps: str | None, **fields) -> dict:
    """Of a fault in `part` 30 points are missing, of which a block of the part `helps` brings back 28."""
    row = {"decodable": 90.0, "answered": 60.0, "part": part, "by twin": part, "destroys": False}
    for name in laboratory_results.HELPED:
        own = (28.0, 33.0, 1e-6) if name == helps else (0.0, 4.0, 1.0)
        row |= {f"{column}: {name}": value for column, value in zip(("change", "high", "p"), own, strict=True)}
    return case(mode=READ_OUT_GAP, lost=30.0, **fields) | row


def test_placements_are_by_shares_of_other_families_and_kinds():
    parts = laboratory_results.PARTS_OF_MODELS
    rows = [edited(part, part, family=family, kind=kind) for part in parts for family in "abc" for kind in ("x", "y")]
    rows += [edited(parts[0], parts[2], family="a", kind="x")]  # a wrong place
    rows += [edited(parts[0], parts[0], family="a", kind="x") | {"lost": 9.0}]  # too little to count
    rows += [case(family, model=f"{family}{number}") for family in "abc" for number in range(4)]
    table = laboratory_results.judged(pd.DataFrame(rows), 2.0)
    table.loc[0, "diagnosed"] = None  # nothing is named, and nothing is placed
    found = laboratory_results.Laboratory(laboratory_results.LaboratoryRun.model_construct(date="d"), table)
    counts = found.placements().set_index("planted in")
    assert counts.loc[parts[0], [parts[0], parts[2], laboratory_results.NOTHING]].tolist() == [5, 1, 1]
    assert [counts.at[part, part] for part in parts[1:]] == [6] * 4
    assert counts.to_numpy().sum() == found.placements(twin=True)[[*parts]].to_numpy().sum() == 31
    assert "without a twin: located correctly in 29 of 31 (94 %" in found.placement_words()


def test_a_laboratory_is_kept_whole_and_says_when_its_cards_have_changed(outputs, monkeypatch):
    rows = [case(family, noise=8.534, model=f"{family}{number}") for family in "ab" for number in range(3)]
    rows += [case("a", QUALITY, 60.0), case("b")]
    laboratory_results.write(pd.DataFrame(rows), "2026-01-02", "abc1234", "make laboratory")
    found = laboratory_results.read()
    assert found.usual("b")["b"][NAMES[0]].mean == pytest.approx(8.53)
    assert laboratory_results.CHANGED not in found.words()
    for words in ("2026-01-02", "abc1234", "1 damaged and 7 undamaged cases of 8 miniatures", "1 of 1", "0 of 7"):
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
    assert {row for family in found.usual(set(families)).values() for row in family} == set(NAMES)
    assert set(found.cases["mode"].dropna()) == set(MODES)


def test_a_laboratory_that_cannot_be_read_says_how_to_have_one(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(fault_card, "CARDS", tmp_path)
    with pytest.raises(InputError, match=r"laboratory\.csv does not exist: restore it, or run `make laboratory`"):
        laboratory_results.read()
    laboratory_results.write(pd.DataFrame([case("a"), case("b")]), "d", "c", "m")
    file, run = fault_card.laboratory_files()
    file.write_text(file.read_text().replace("severity", "severe"))
    with pytest.raises(InputError, match=r"laboratory\.csv was changed after it was written: restore it, or run"):
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
    strong = table[table["destroys"].eq(True) & (table["lost"] >= 20)]
    assert len(strong)
    for row in strong.to_dict("records"):
        assert row[f"value: {LOST[row['mode']]}"] < 0
    assert table[table["module"].isna()]["model"].nunique() == 2
