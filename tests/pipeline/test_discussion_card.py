"""Which models and data sets a discussion is about: those that it names, and their miniatures and phantoms."""

import shutil

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, cards, discussion_card
from mlprobe_utils.pipeline.book_card import load_book
from mlprobe_utils.pipeline.cards import load_card
from mlprobe_utils.pipeline.discussion_card import Discussion, discussed_on, discussions, load_discussion, taking_part

PAPER = {  # discussion -> models of the paper's tables; question first is this book's own
    "frozen-vision-tower": {"huatuogpt-vision-7b", "medgemma-4b"},
    "training-paradigms": {"shizhengpt-7b-vl", "medgemma-1.5-4b"},
    "question-first": {"lingshu-7b"},
}


@pytest.fixture
def own_cards(tmp_path, monkeypatch):
    """A copy of the cards that a test may spoil."""
    folder = shutil.copytree(artefacts.ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("raw"))
    monkeypatch.setattr(cards, "CARDS", folder)
    load_card.cache_clear()
    yield folder / "discussions"
    load_card.cache_clear()


@pytest.mark.parametrize("slug", PAPER)
def test_the_papers_models_take_part_as_miniatures_and_one_of_the_default(slug):
    card, book = load_discussion(slug), load_book()
    assert set(card.models) >= PAPER[slug]
    assert set(taking_part(card, book.all)) == {f"{model}-miniature" for model in card.models}
    assert len(taking_part(card, book.models)) == 1


def test_every_card_varies_something_else():
    assert {card.slug for card in discussions()} == set(PAPER)
    assert len({card.varies for card in discussions()}) == len(PAPER)


def test_a_model_and_its_miniature_both_take_part_and_others_do_not():
    card = load_discussion("question-first")
    assert taking_part(card, ["lingshu-7b-miniature", "lingshu-32b", "lingshu-7b"]) == [
        "lingshu-7b-miniature",
        "lingshu-7b",
    ]
    assert taking_part(card, ["qwen2.5-vl-7b-miniature", "lingshu-32b"]) == []


def test_a_discussion_is_about_its_data_sets_and_their_phantoms():
    card, every = load_discussion("question-first"), ["busi-phantom", "covid19-ct-phantom", "covid19-ct"]
    assert discussed_on(card, every) == every[1:]
    assert discussed_on(card, ["busi", "chest-xray"]) == ["busi"]  # none of its own: the first
    assert discussed_on(load_discussion("training-paradigms"), every) == every


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


def test_a_data_set_without_a_card_is_named_with_its_file(own_cards):
    path = own_cards / "question-first.yml"
    path.write_text(path.read_text().replace("[covid19-ct]", "[covid]"))
    with pytest.raises(InputError, match=r"unknown data set 'covid'.*discussions/question-first\.yml"):
        load_discussion("question-first")


def test_an_unknown_discussion_is_named_with_the_near_one():
    with pytest.raises(InputError, match="unknown discussion 'question_first': did you mean 'question-first'"):
        discussion_card.load_discussion("question_first")
