"""Which models and data sets a discussion is about: those that it names, and their miniatures and phantoms."""

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.variants import discussed_on, discussions, load_discussion, taking_part

PAPER = {  # discussion -> what it varies, models of the paper's tables; question first is this book's own
    "frozen-vision-tower": ("vision_tower", {"huatuogpt-vision-7b", "medgemma-4b"}),
    "question-first": ("order", {"lingshu-7b"}),
    "training-paradigms": ("training", {"shizhengpt-7b-vl", "medgemma-1.5-4b"}),
}


def test_the_papers_models_take_part_as_miniatures_and_one_of_the_default():
    book, found = load_book(), discussions()
    assert [card.slug for card in found] == [*PAPER]
    for card in found:
        varies, models = PAPER[card.slug]
        assert (card.varies, set(card.models) >= models) == (varies, True)
        assert set(taking_part(card, book.all)) == {f"{model}-miniature" for model in card.models}
        assert len(taking_part(card, book.models)) == 1
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
def test_a_card_that_is_not_valid_names_file_and_field(own_cards, old, new, words):
    path = own_cards / "discussions" / "question-first.yml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=words):
        load_discussion("question-first")
