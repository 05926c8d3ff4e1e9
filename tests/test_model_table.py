"""Table S1: what a card says of a model, what a miniature's recipe and weights say, and what leads where."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlprobe_utils.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.errors import InputError
from mlprobe_utils.miniatures.recipe import described, recipe_of
from mlprobe_utils.model_table import card_table, facts, model_table, parameters_of, published, short

BASE, ADAPTED = "qwen2.5-vl-7b-miniature", "lingshu-7b-miniature"
REAL = ModelCard(
    slug="org.model-7b",
    name="Model <7B>",
    source="org/Model-7B",
    parameters=8_290_000_000,
    base=BASE,
    vision_tower="ViT & more",
    connector="MLP",
    llm="Qwen2.5-7B",
    training_stages=["aligned", "instructed"],
    licence="Apache-2.0",
)


def rows_of(page) -> list[list[str]]:
    """The texts of the cells, row by row, without the head."""
    table = ElementTree.fromstring(page.data).find("div/table/tbody")
    return [["".join(cell.itertext()) for cell in row] for row in table]


def test_a_card_says_it_in_the_papers_columns():
    said = facts(REAL)
    assert list(said)[:5] == ["parameters", "base model", "vision tower", "connector", "LLM"]
    assert said["parameters"] == "8.29B"
    assert said["base model"] == load_model_card(BASE).name
    assert said["vision tower"] == "ViT &amp; more"
    stages = ElementTree.fromstring(said["training stages"])
    assert (stages.tag, [stage.text for stage in stages]) == ("ol", ["aligned", "instructed"])
    assert (said["licence"], said["source"]) == ("Apache-2.0", "org/Model-7B")


def test_a_card_of_two_lines_leaves_the_rest_empty():
    said = facts(ModelCard(slug="mine", name="Mine", source="me/mine"))
    assert {key for key, value in said.items() if value} == {"source"}


def test_a_card_says_what_it_takes_to_run_it():
    card = REAL.model_copy(update={"precision": "bfloat16", "max_pixels": 262144, "gated": True})
    # 8.29e9 x 2 bytes / 2^30; a line breaks at commas only
    words = "bfloat16, 15.4 GiB of weights, at most 262,144 pixels, gated"
    assert facts(card)["to run it"].replace("\N{NO-BREAK SPACE}", " ") == words
    assert facts(card)["to run it"].split(" ")[1].startswith("15.4\N{NO-BREAK SPACE}GiB")
    whole = card.model_copy(update={"precision": "float32", "max_pixels": None, "gated": False})
    assert facts(whole)["to run it"].replace("\N{NO-BREAK SPACE}", " ") == "float32, 30.9 GiB of weights"


def test_memory_is_not_said_where_precision_or_parameters_are_not_known():
    assert facts(REAL)["to run it"] == ""
    assert facts(REAL.model_copy(update={"precision": "float32", "parameters": None}))["to run it"] == "float32"
    assert facts(described(load_model_card(ADAPTED)))["to run it"] == ""


def test_a_base_without_a_card_here_is_named_by_its_hub_id():
    assert facts(REAL.model_copy(update={"base": "org/Base-7B"}))["base model"] == "org/Base-7B"
    assert facts(REAL.model_copy(update={"base": None}))["base model"] == ""


def test_a_miniature_is_described_by_its_recipe_and_its_base():
    base, adapted = described(load_model_card(BASE)), described(load_model_card(ADAPTED))
    vision = recipe_of(load_model_card(BASE)).architecture.vision
    assert base.vision_tower.split() == [str(vision.depth), "blocks,", "width", str(vision.width)]
    for field in ("vision_tower", "connector", "llm"):
        assert getattr(adapted, field) == getattr(base, field)
        assert getattr(base, field)
    assert adapted.training_stages == [stage.title for stage in recipe_of(load_model_card(ADAPTED)).stages]
    assert adapted.training_stages != base.training_stages
    assert described(REAL) is REAL


@pytest.mark.parametrize(
    ("slug", "field", "value"),
    [(BASE, "llm", "x"), (ADAPTED, "connector", "x"), (BASE, "training_stages", ["x"])],
)
def test_what_the_recipe_says_is_not_typed_twice(slug, field, value):
    card = load_model_card(slug).model_copy(update={field: value})
    with pytest.raises(InputError, match=rf"{slug}.yml: remove {field}"):
        described(card)


def test_parameters_are_counted_in_the_weights_and_none_are_guessed(outputs, tmp_path):
    card = load_model_card(BASE)
    assert parameters_of(card) is None
    folder = outputs / card.source
    folder.mkdir(parents=True)
    save_file({"a": np.zeros((3, 4)), "b": np.zeros(5)}, folder / "model-00001-of-00002.safetensors")
    save_file({"c": np.zeros((2, 2), "float16")}, folder / "model-00002-of-00002.safetensors")
    assert parameters_of(card) == 21
    assert parameters_of(ModelCard(slug="x", name="x", source=str(folder))) == 21
    assert parameters_of(REAL) == 8_290_000_000


def test_a_folder_is_not_named_on_a_page(tmp_path):
    assert str(tmp_path) not in json.dumps(facts(ModelCard(slug="x", name="x", source=str(tmp_path))))


def test_models_of_the_run_come_first_and_lead_to_their_pages(outputs):
    cards = [REAL, described(load_model_card(ADAPTED)), described(load_model_card(BASE))]
    page = model_table(cards, [BASE, ADAPTED])
    names = [row[0] for row in rows_of(page)]
    assert names == [load_model_card(BASE).name, load_model_card(ADAPTED).name, "Model <7B>"]
    assert page.data.count("<a ") == 2
    assert f'<a href="models/{BASE}.html">' in page.data
    assert f'<a href="models/{ADAPTED}.html">' in page.data
    alone = model_table(cards, [REAL.slug])
    assert rows_of(alone)[0][0] == "Model <7B>"
    assert '<a href="models/org.model-7b.html">Model &lt;7B&gt;</a>' in alone.data


def test_every_shipped_card_has_a_row():
    cards = [described(load_model_card(slug)) for slug in slugs(ModelCard)]
    rows = rows_of(model_table(cards, [BASE]))
    assert [row[0] for row in rows] == [load_model_card(BASE).name, *sorted(c.name for c in cards if c.slug != BASE)]
    lingshu = next(row for row in rows if row[0] == "Lingshu-7B")
    assert lingshu[1:3] == ["8.29B", "Qwen2.5-VL-7B"]


def test_one_card_is_a_row_a_fact_without_empty_ones():
    page = card_table(ModelCard(slug="mine", name="Mine", source="me/mine", revision="v1"))
    assert rows_of(page) == [["slug", "mine"], ["revision", "v1"], ["source", "me/mine"]]
    assert "data/models/mine.yml" in page.data


def test_a_base_without_a_card_is_named():
    with pytest.raises(InputError, match=r"unknown model 'qwen2\.5-vl-7b-miniatur': did you mean"):
        facts(REAL.model_copy(update={"base": "qwen2.5-vl-7b-miniatur"}))


@pytest.mark.parametrize(("count", "words"), [(8_290_000_000, "8.29B"), (34_750_000_000, "34.75B"), (520_000, "0.52M")])
def test_counts_are_printed_as_the_paper_prints_them(count, words):
    assert short(count) == words


def test_the_papers_table_is_as_printed():
    table = published()
    assert len(table) == 14
    assert list(table) == ["model", "parameters", "base model", "vision tower", "connector", "LLM"]
    first = table.set_index("model")
    assert first.loc["Lingshu-7B", "parameters"] == "8.29B"
    assert first.loc["Hulu-Med-4B", "base model"] == "-"
    assert not table.isna().any().any()
