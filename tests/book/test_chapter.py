"""What pages share: tables in the order and the words of the page, and what a page opens with."""

import html
import itertools
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pytest

from mlprobe_utils.book.chapter import Chapter
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.configuration import Run

MODELS = ("qwen2.5-vl-7b-miniature", "lingshu-7b-miniature")
DATASETS = ("covid19-ct", "busi")


@pytest.fixture
def chapter() -> Chapter:
    run = Run(MODELS, DATASETS, "miniature", "paper", "")
    given = {"models": [*MODELS], "metric": "<f1>"}, {"metric": "accuracy & others"}
    return Chapter(run, run, *given, started=0.0)


def test_tables_follow_the_selection_and_speak_its_names(chapter):
    keys = ["model", "dataset", "stage", "module", "share"]
    values = sorted(MODELS), sorted(DATASETS), ("both", "finetuned", "pretrained"), "CLV", (2, 1)
    named = chapter.named(pd.DataFrame(itertools.product(*values), columns=keys))
    assert list(named["dataset"].unique()) == ["COVID19-CT", "BUSI"]
    of_first = named[named["dataset"] == "COVID19-CT"]
    assert list(of_first["model"].unique()) == ["Qwen2.5-VL-7B-mini", "Lingshu-7B-mini"]
    of_model = of_first[of_first["model"] == "Lingshu-7B-mini"]
    assert list(of_model["stage"].unique()) == ["before fine-tuning", "after fine-tuning", "both"]
    assert list(of_model["module"]) == [*"VVCCLL"] * 3
    assert list(of_model["share"]) == [2, 1] * 9  # what nothing orders stays as it was
    other = pd.DataFrame({"hyperparameter": ["b", "a"], "value": [1, 2]})
    pd.testing.assert_frame_equal(chapter.named(other), other)


def test_a_page_opens_with_what_is_real_and_with_its_parameters(chapter):
    box, table = chapter.opening().data.split('<details class="parameters">')
    assert "The images of COVID19-CT and BUSI are real." in box
    both = "Qwen2.5-VL-7B-mini and Lingshu-7B-mini"
    assert f"miniatures, trained from scratch here ({both}): their results say nothing about the originals." in box
    assert f"Protocol: {chapter.protocol.title}. Split: paper." in box
    rows = ElementTree.fromstring(f'<details class="parameters">{table}').iter("tr")
    assert [[cell.text or "" for cell in row] for row in rows] == [
        ["parameter", "value", "meaning"],
        ["models", '["qwen2.5-vl-7b-miniature", "lingshu-7b-miniature"]', ""],
        ["metric", '"<f1>"', "accuracy & others"],
    ]


def test_scores_are_balanced_where_classes_are_very_unequal(chapter):
    def images(*counts: int) -> SimpleNamespace:
        rows = pd.DataFrame({"option": ["Rare"] * counts[0] + ["Common"] * counts[1]})
        return SimpleNamespace(card=SimpleNamespace(name="Scans"), rows_of=lambda split_rule, split: rows)

    chapter = replace(chapter, parameters=chapter.parameters | {"metric": ""})
    for counts, metric in (((9, 44), "accuracy"), ((9, 45), "balanced_accuracy")):
        page = replace(chapter)
        page.__dict__["image_sets"] = {"scans": images(*counts)}
        assert page.metric == metric
    why = "Scores are balanced accuracy, because Scans has 45 of 'Common' and 9 of 'Rare' among its test images."
    assert why in html.unescape(page.opening().data)
    assert replace(page, parameters={"metric": "f1"}).metric == "f1"


def test_a_page_about_one_model_refuses_several(chapter):
    with pytest.raises(InputError, match=r"'models': this page shows one model.*qwen2.5-vl-7b-miniature"):
        chapter.model  # noqa: B018
    one = replace(chapter, run=replace(chapter.run, models=MODELS[1:]))
    assert one.model.slug == MODELS[1]
