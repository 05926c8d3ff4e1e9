"""Tables of the pages: table 1's form and its marks, recipes, examples of answers."""

import pickle
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.plots.tables import file, module_ends, picture, profile_table, show, unparsed_examples


def profiles_of(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["model", "dataset", "stage", *SCORES])


def cells(profiles: pd.DataFrame, stage="finetuned", names=None, apart=()) -> list[list[str]]:
    """Text of every cell row by row, marks as *bold* and _underlined_."""
    page = profile_table(profiles[profiles["stage"] == stage], names or {}, stage, apart)._repr_html_()
    table = ElementTree.fromstring(page).find("div/table")
    rows = []
    for row in table.iter("tr"):
        for mark, sign in (("strong", "*"), ("u", "_")):
            for element in row.iter(mark):
                element.text = f"{sign}{element.text}{sign}"
        rows.append(["".join(cell.itertext()) for cell in row])
    return rows


TWO = profiles_of(
    ("a", "busi", "finetuned", 97.691, 77.75, 83.33, 85.33),
    ("b", "busi", "finetuned", 91.42, 88.41, 81.21, 85.33),
    ("a", "busi", "pretrained", 1.0, 2.0, 3.0, 4.0),
    ("b", "busi", "pretrained", 2.0, 1.0, 3.0, 5.0),
    ("a", "covid19-ct", "finetuned", 50.0, 60.0, 70.0, 80.0),
    ("b", "covid19-ct", "finetuned", 60.0, 50.0, 80.0, 70.0),
)


def test_best_and_worst_of_each_score_and_data_set():
    head, *rows = cells(TWO, names={"busi": "BUSI", "a": "Model A"})
    assert head == ["model", "BUSI", "covid19-ct"]
    assert rows[0] == ["Model A", "*97.69* → _77.75_ → *83.33* → 85.33", "_50.00_ → *60.00* → _70.00_ → *80.00*"]
    assert rows[1] == ["b", "_91.42_ → *88.41* → _81.21_ → 85.33", "*60.00* → _50.00_ → *80.00* → _70.00_"]
    assert rows[2] == ["average", "94.56 → 83.08 → 82.27 → 85.33", "55.00 → 55.00 → 75.00 → 75.00"]
    renamed = cells(TWO, names={"b": "B", "a": "A", "covid19-ct": "CT", "busi": "BUSI"})  # in the order of the names
    assert [row[0] for row in renamed] == ["model", "B", "A", "average"]
    assert renamed[1] == ["B", *rows[1][:0:-1]]
    lacking = cells(TWO.drop(index=5))[1:]
    assert lacking[1] == ["b", rows[1][1], ""]
    assert lacking[0][2] == "50.00 → 60.00 → 70.00 → 80.00"  # alone there: neither best nor worst
    alone = TWO[TWO["model"] == "a"]
    assert cells(alone)[1:] == [["a", "97.69 → 77.75 → 83.33 → 85.33", lacking[0][2]]]  # and no average
    assert "bold" not in profile_table(alone[alone["stage"] == "finetuned"], {}, "x")._repr_html_()


def test_stages_are_apart():
    assert cells(TWO, "pretrained")[:2] == [["model", "busi"], ["a", "_1.00_ → *2.00* → 3.00 → _4.00_"]]
    names = {"a": "<script>", "busi": "R&D"}
    page = profile_table(TWO[TWO["stage"] == "pretrained"], names, "before & after")._repr_html_()
    caption = ElementTree.fromstring(page).find("figcaption")
    assert caption.text.endswith("(%), before & after. Best per data set in bold, worst underlined.")
    assert "<script>" not in page
    assert all(words in page for words in ("&lt;script&gt;", "R&amp;D", 'table-container"><table'))
    with pytest.raises(InputError, match="several profiles per model and data set: choose one stage"):
        profile_table(TWO, {}, "x")


def test_all_ties_are_marked_as_printed_and_none_where_all_are_equal():
    profiles = profiles_of(
        ("a", "x", "finetuned", 80.001, 70.0, 50.0, 60.0),
        ("b", "x", "finetuned", 80.004, 60.0, 50.0, 60.0),
        ("c", "x", "finetuned", 70.0, 60.0, 50.0, 90.0),
    )
    assert [row[1] for row in cells(profiles)[1:4]] == [
        "*80.00* → *70.00* → 50.00 → _60.00_",
        "*80.00* → _60.00_ → 50.00 → _60.00_",
        "_70.00_ → _60.00_ → 50.00 → *90.00*",
    ]


def test_what_others_were_adapted_from_stands_beneath_and_counts_for_nothing():
    third = profiles_of(("base", "busi", "finetuned", 99.0, 10.0, 99.0, 10.0))
    beneath = ["base", "99.00 → 10.00 → 99.00 → 10.00", ""]
    assert cells(pd.concat([third, TWO]), apart=("base",)) == [*cells(TWO), beneath]
    alone = cells(pd.concat([third, TWO[TWO["model"] == "a"]]), apart=("base",))
    assert [row[0] for row in alone[1:]] == ["a", "base"]


def test_the_end_of_a_module_is_its_last_point_and_not_its_best():
    state = {"dataset": "busi", "model": "a", "stage": "finetuned"}
    curve = {"L.10": 40.0, "V.00": 90.0, "V.01": 70.0, "C.00": 80.0, "L.09": 60.0}
    scores = pd.DataFrame([state | {"point": point, "accuracy": value} for point, value in curve.items()])
    ends = module_ends(scores, pd.DataFrame([state | {"accuracy": 50.0}]), "accuracy")
    assert ends.iloc[0][["V end", "C end", "L end", "final output"]].tolist() == [70, 80, 40, 50]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"count": pd.array([1200, None], "Int64"), "share": [0.5, None], "name": ["a", None]},
         ["1200", "0.5", "a", "", "", ""]),
        ({"difference": [-0.04, 0.0, -0.06]}, ["0.0", "0.0", "-0.1"]),  # no zero is negative
        ({"p": [0.00001, 0.0314], "p (Holm)": 0.5, "parts": 2.0},  # no p is rounded to zero
         ["&lt;\N{NO-BREAK SPACE}0.001", "0.500", "2.0", "0.031", "0.500", "2.0"]),
    ],
)  # fmt: skip
def test_numbers_of_a_table(columns, shown):
    assert re.findall(r"<td>(.*?)</td>", show(pd.DataFrame(columns))._repr_html_()) == shown


def test_what_is_shown_is_a_table_to_go_on_with():
    profiles = TWO[TWO["stage"] == "finetuned"]
    for shown in (show(profiles), file(profiles, "Profiles"), profile_table(profiles, {}, "x")):
        assert shown["P_final"].mean() == profiles["P_final"].mean()
        assert type(shown[shown["P_final"] > 80]) is pd.DataFrame
        assert pickle.loads(pickle.dumps(shown))._repr_html_() == shown._repr_html_()
        shown.loc[0, "P_final"] = 11.25
        assert re.search(r"11\.2", shown._repr_html_())  # what it holds now
    assert profiles["P_final"].min() > 11.25


def test_unparsed_examples_are_different_texts_first_and_of_test_images_only():
    texts = ["a shape", "a shape", "a cat", "Yes", "a dog", "a bird"]
    rows = pd.DataFrame({"text": texts, "dataset": "d", "split": "test", "image": list("abcdef")})
    rows["parsed"] = rows["text"].where(rows["text"] == "Yes")
    rows.loc[4, "split"] = "validation"
    assert list(unparsed_examples(rows, 3)["image"]) == ["a", "c", "f"]
    assert list(unparsed_examples(rows, 9)["image"]) == ["a", "c", "f", "b"]


def test_a_published_book_shows_no_picture_of_a_real_image(monkeypatch):
    pixels = lambda position: np.zeros((4, 4, 3), np.uint8)  # noqa: E731
    real, phantom = (SimpleNamespace(card=SimpleNamespace(synthetic=own), pixels=pixels) for own in (False, True))
    assert "<img" in picture(real, 0, "a scan")
    monkeypatch.setenv("MLPROBE_PUBLISH", "1")
    assert "<img" not in picture(real, 0, "a scan")
    assert "<img" in picture(phantom, 0, "a phantom")
