"""Which models take part in a discussion: those that it names and their miniatures; if there are none, all."""

import shutil

import pytest

from mlprobe_utils import artefacts, cards, discussion_card
from mlprobe_utils.cards import load_card, load_model_card
from mlprobe_utils.configuration import MODELS
from mlprobe_utils.discussion_card import Discussion, discussions, load_discussion, taking_part
from mlprobe_utils.errors import InputError

PAPER = {  # discussion -> models of the paper's tables; question first is this book's own
    "frozen-vision-tower": {"huatuogpt-vision-7b", "medgemma-4b"},
    "training-paradigms": {"shizhengpt-7b-vl", "medgemma-1.5-4b"},
    "question-first": {"lingshu-7b", "medgemma-4b"},
}


def of(*models: str) -> dict:
    return {slug: load_model_card(slug) for slug in models}


@pytest.fixture
def own_cards(tmp_path, monkeypatch):
    """A copy of the cards that a test may spoil."""
    folder = shutil.copytree(artefacts.ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("raw"))
    monkeypatch.setattr(cards, "CARDS", folder)
    load_card.cache_clear()
    yield folder / "discussions"
    load_card.cache_clear()


@pytest.mark.parametrize("slug", PAPER)
def test_of_the_embedded_default_the_papers_models_take_part_as_miniatures(slug):
    card = load_discussion(slug)
    assert set(card.models) == PAPER[slug]
    assert {*taking_part(card, of(*MODELS))} == {f"{model}-miniature" for model in PAPER[slug]}


def test_every_card_varies_something_else():
    assert {card.slug for card in discussions()} == set(PAPER)
    assert len({card.varies for card in discussions()}) == len(PAPER)


def test_a_model_and_its_miniature_both_take_part_and_others_do_not():
    card = load_discussion("question-first")
    run = of("lingshu-7b-miniature", "lingshu-7b", "lingshu-32b", "qwen2.5-vl-7b-miniature")
    assert [*taking_part(card, run)] == ["lingshu-7b-miniature", "lingshu-7b"]


def test_a_run_with_none_of_the_models_takes_part_whole():
    card = load_discussion("question-first")
    run = of("qwen2.5-vl-7b-miniature", "lingshu-32b")
    assert taking_part(card, run) == run


def test_a_model_without_a_card_is_named_with_its_file_and_the_near_one(own_cards):
    path = own_cards / "question-first.yml"
    path.write_text(path.read_text().replace("lingshu-7b", "lingshu-7"))
    with pytest.raises(InputError, match=r"unknown model 'lingshu-7'.* 'lingshu-7b'.*discussions/question-first\.yml"):
        load_discussion("question-first")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("varies: order", "varies: colour", "varies"), ("models:", "modles:", "models"), ("[lingshu-7b", "[", "models")],
)
def test_a_card_that_is_not_valid_names_file_and_field(own_cards, old, new, said):
    path = own_cards / "question-first.yml"
    changed = path.read_text().replace(old, new)
    path.write_text("title: t\nvaries: order\nmodels: []\n" if new == "[" else changed)
    with pytest.raises(InputError, match=said) as error:
        load_card(Discussion, "question-first")
    assert "question-first.yml" in str(error.value)


def test_an_unknown_discussion_is_named_with_the_near_one():
    with pytest.raises(InputError, match="unknown discussion 'question_first': did you mean 'question-first'"):
        discussion_card.load_discussion("question_first")
