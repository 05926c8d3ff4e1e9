"""Which models and data sets a discussion is about: those that it names, and their miniatures and phantoms."""

import shutil

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, cards
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.variants import discussed_on, discussions, load_discussion, taking_part

PAPER = {  # discussion -> models of the paper's tables; question first is this book's own
    "frozen-vision-tower": {"huatuogpt-vision-7b", "medgemma-4b"},
    "training-paradigms": {"shizhengpt-7b-vl", "medgemma-1.5-4b"},
    "question-first": {"lingshu-7b"},
}


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
    both = ["lingshu-7b-miniature", "lingshu-7b"]
    assert taking_part(load_discussion("question-first"), ["lingshu-32b", *both, "qwen2.5-vl-7b-miniature"]) == both


def test_a_discussion_is_about_its_data_sets_and_their_phantoms():
    card, every = load_discussion("question-first"), ["busi-phantom", "covid19-ct-phantom", "covid19-ct"]
    assert discussed_on(card, every) == every[1:]
    assert discussed_on(card, ["busi", "chest-xray"]) == ["busi"]  # none of its own: the first
    assert discussed_on(load_discussion("training-paradigms"), every) == every


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lingshu-7b", "lingshu-7", "unknown model 'lingshu-7'.* 'lingshu-7b'.*discussions/question-first.yml"),
        ("[covid19-ct]", "[covid]", "unknown data set 'covid'.*discussions/question-first.yml"),
        ("varies: order", "varies: colour", "question-first.yml: varies"),
        ("models: [", "models: []  # [", "question-first.yml: models"),
    ],
)
def test_a_card_that_is_not_valid_names_file_and_field(tmp_path, monkeypatch, request, old, new, words):
    folder = shutil.copytree(artefacts.ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("raw"))
    path = folder / "discussions" / "question-first.yml"
    path.write_text(path.read_text().replace(old, new))
    monkeypatch.setattr(cards, "CARDS", folder)
    cards.load_card.cache_clear()
    request.addfinalizer(cards.load_card.cache_clear)
    with pytest.raises(InputError, match=words):
        load_discussion("question-first")


def test_an_unknown_discussion_is_named_with_the_near_one():
    with pytest.raises(InputError, match="unknown discussion 'question_first': did you mean 'question-first'"):
        load_discussion("question_first")
