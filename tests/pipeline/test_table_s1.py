"""Table S1 recounted from published shapes, and as the pages show it: cards, miniatures and what leads where."""

import json
import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from parameter_counts import count, main, table

from mlprobe_utils.book.model_table import card_table, facts, first_met, model_table
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families import family_named
from mlprobe_utils.pipeline import published as of_paper
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, load_protocol, slugs
from mlprobe_utils.pipeline.published import ARCHITECTURES, published, published_config
from mlprobe_utils.synthetic.miniatures.recipe import described, recipe_of

PARTS = ("vision tower", "connector", "LLM", "LM head")
QWEN2, QWEN2_5 = "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"
LLAVA, GEMMA3 = "LlavaForConditionalGeneration", "Gemma3ForConditionalGeneration"
QWENS = ["qwen2.5-vl-7b", "huatuogpt-vision-7b", "lingshu-7b", "shizhengpt-7b-vl"]
HOST = "VideoLlama3ForConditionalGeneration"  # of Hulu-Med's weights
# counted once, by other code, with transformers 5.23; 8,292,166,656, 33,452,718,336, 4,300,079,472 and 27,432,406,640
# in all are also half the bytes that the hub's bfloat16 weights take
EXPECTED = [
    (["medvlm-r1"], QWEN2, (631183360, 34087936, 1543714304, 0), (32, 2, 28)),
    (QWENS, QWEN2_5, (631975680, 44574464, 7070619136, 544997376), (32, 2, 28)),
    (["lingshu-32b", "shizhengpt-32b-vl"], QWEN2_5, (636401664, 52440320, 31985308672, 778567680), (32, 2, 64)),
    (["huatuogpt-vision-34b"], LLAVA, (303507456, 58734592, 33930165248, 458752000), (23, 2, 60)),
    (["hulu-med-4b"], HOST, (412147440, 9507840, 4022468096, 388956160), (27, 2, 36)),
    (["hulu-med-7b"], HOST, (412147440, 16980992, 7070619136, 544997376), (27, 2, 28)),
    (["hulu-med-14b"], HOST, (412147440, 32122880, 13990394880, 777912320), (27, 2, 40)),
    (["hulu-med-32b"], HOST, (412147440, 32122880, 31985308672, 778567680), (27, 2, 64)),
    (["gemma-3-4b", "medgemma-4b", "medgemma-1.5-4b"], GEMMA3, (416866032, 2950272, 3880263168, 0), (27, 1, 34)),
    (["medgemma-27b"], GEMMA3, (416866032, 6194304, 27009346304, 0), (27, 1, 62)),
]
BASES = ("qwen2.5-vl-7b", "gemma-3-4b")
BASE, ADAPTED = "qwen2.5-vl-7b-miniature", "lingshu-7b-miniature"
REAL = ModelCard(
    slug="org.model-7b", name="Model <7B>", source="org/Model-7B", parameters=8_290_000_000, base=BASE,
    vision_tower="ViT & more", connector="MLP", llm="Qwen2.5-7B", licence="Apache-2.0",
    training_stages=["aligned", "instructed"],
)  # fmt: skip


@pytest.mark.parametrize(("slugs", "model_class", "parts", "points"), EXPECTED, ids=[own[0][0] for own in EXPECTED])
def test_table_s1_models_are_counted_by_part(slugs, model_class, parts, points):
    for card in map(load_model_card, slugs):
        config, counted = published_config(card.architecture), count(card.architecture)
        assert (counted.model_class, counted.total) == (model_class, card.parameters)
        assert counted.parameters == dict(zip(PARTS, parts, strict=True))
        assert counted.points == dict(zip("VCL", points, strict=True))
        assert family_named(config["architectures"]).__module__ == f"mlprobe_utils.models.families.{card.family}"


def test_table_s1_is_that_of_the_cards():
    names = {load_model_card(slug).name: load_model_card(slug) for slugs, *_ in EXPECTED for slug in slugs}
    assert len(names) == 16
    printed = published().set_index("model").to_dict("index")
    assert names.keys() - printed.keys() == {load_model_card(slug).name for slug in BASES}
    for name, row in printed.items():
        card = names[name]
        assert [card.vision_tower, card.connector, card.llm] == [row[c] for c in ("vision tower", "connector", "LLM")]
        if card.base:  # the paper names a series, a card the model of that size
            base = card.base.split("/")[1] if "/" in card.base else load_model_card(card.base).name
            assert base.casefold().startswith(f"{row['base model']}-".casefold())
        else:
            assert row["base model"] == "-"
    assert {path.stem for path in ARCHITECTURES.glob("*.json")} == {card.architecture for card in names.values()}


def test_table_s1_command_prints_a_row_a_model(capsys):
    main([])
    head, *rows = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "model class vision tower connector LLM LM head total Table S1 equal probe points"
    cells = {row.split()[0]: " ".join(row.split()) for row in rows}
    assert cells["MedGemma-27B"].endswith(" 27,432,406,640 27.43B yes V 27, C 1, L 62")
    assert cells["Gemma-3-4B"].endswith(" 4,300,079,472 V 27, C 1, L 34")
    assert {name for name, row in cells.items() if " yes " not in row} == {load_model_card(s).name for s in BASES}
    main(["medgemma-4b"])
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "MedGemma-4B"


def test_table_s1_needs_an_architecture(monkeypatch, tmp_path):
    def row(architecture: str | None) -> pd.Series:
        return table([load_model_card("lingshu-7b").model_copy(update={"architecture": architecture})]).iloc[0]

    assert row("hulu-med-7b")["equal"] == "NO"
    (tmp_path / "mine.json").write_text('{"architectures": [')
    monkeypatch.setattr(of_paper, "ARCHITECTURES", tmp_path)
    for architecture, words in (
        (None, r"data/models/lingshu-7b\.yml: add `architecture`"),
        ("mien", "unknown architecture 'mien': did you mean 'mine'"),
        ("mine", r"data/architectures/mine\.json is not valid JSON"),
    ):
        with pytest.raises(InputError, match=words):
            row(architecture)


def rows_of(page) -> list[list[str]]:
    """The texts of the cells, row by row, without the head."""
    table = ElementTree.fromstring(page._repr_html_()).find("div/table/tbody")
    return [["".join(cell.itertext()) for cell in row] for row in table]


def test_a_card_fills_the_papers_columns_and_has_what_it_takes_to_run_it():
    found = facts(REAL.model_copy(update={"precision": "bfloat16", "max_pixels": 262144, "gated": True}))
    assert list(found)[:5] == ["parameters", "base model", "vision tower", "connector", "LLM"]
    assert [found[key] for key in ("parameters", "licence", "source")] == ["8.29B", "Apache-2.0", "org/Model-7B"]
    assert (found["base model"], found["vision tower"]) == (load_model_card(BASE).name, "ViT &amp; more")
    stages = ElementTree.fromstring(found["training stages"])
    assert (stages.tag, [stage.text for stage in stages]) == ("ol", ["aligned", "instructed"])
    words = "bfloat16, 15.4 GiB of weights, at most 262,144 pixels, gated"  # 8.29e9 x 2 bytes / 2^30
    assert found["requirements"].replace("\N{NO-BREAK SPACE}", " ") == words
    assert not re.search(r"[^,] ", found["requirements"])  # a line breaks at commas only
    assert facts(REAL.model_copy(update={"precision": "float32", "parameters": None}))["requirements"] == "float32"


def test_what_a_user_of_a_model_meets_first_is_a_line():
    slugs = ["medgemma-1.5-4b", "huatuogpt-vision-34b", "lingshu-7b"]
    thinks, pads, plain = rows_of(first_met(map(load_model_card, slugs), load_protocol("paper")))
    assert thinks[1:5] == ["gated: accept its terms", "4.30B, 8.0 GiB in bfloat16", "896 × 896 pixels",
                           "thinks first: up to 2,000 tokens, 62 times the protocol's"]  # fmt: skip
    uncounted = REAL.model_copy(update={"parameters": None, "precision": "bfloat16"})
    assert rows_of(first_met([uncounted], load_protocol("paper")))[0][2] == ""  # also where a card gives a precision
    assert pads[3] == "336 × 336 pixels, padded to a square"
    assert "chat template" in pads[6]
    assert plain[1:] == ["open", "8.29B, 15.4 GiB in bfloat16", "at most 802,816 pixels", "direct", "MIT", ""]


def test_what_a_card_leaves_out_is_empty_and_no_folder_is_named(tmp_path):
    found = facts(ModelCard(slug="mine", name="Mine", source="me/mine"))
    assert {key for key, value in found.items() if value} == {"source"}
    assert str(tmp_path) not in json.dumps(facts(ModelCard(slug="x", name="x", source=str(tmp_path))))
    assert facts(REAL.model_copy(update={"base": "org/Base-7B"}))["base model"] == "org/Base-7B"
    with pytest.raises(InputError, match=r"unknown model 'qwen2\.5-vl-7b-miniatur': did you mean"):
        facts(REAL.model_copy(update={"base": "qwen2.5-vl-7b-miniatur"}))


def test_a_miniature_is_described_by_its_recipe_and_its_base():
    base, adapted = described(load_model_card(BASE)), described(load_model_card(ADAPTED))
    vision = recipe_of(load_model_card(BASE)).architecture.vision
    assert base.vision_tower.split() == [str(vision.depth), "blocks,", "width", str(vision.width)]
    for field in ("vision_tower", "connector", "llm"):
        assert getattr(adapted, field) == getattr(base, field) > ""
    assert adapted.training_stages == [stage.title for stage in recipe_of(load_model_card(ADAPTED)).stages]
    assert adapted.training_stages != base.training_stages
    assert described(REAL) is REAL
    for slug, field, value in ((ADAPTED, "connector", "x"), (BASE, "training_stages", ["x"])):
        with pytest.raises(InputError, match=rf"{slug}.yml: remove {field}"):  # given by the recipe
            described(load_model_card(slug).model_copy(update={field: value}))


def test_every_card_has_a_row_models_of_the_run_come_first_and_one_alone_has_a_row_a_fact(outputs):
    cards = [REAL, *(described(load_model_card(slug)) for slug in slugs(ModelCard))]
    page, run = model_table(cards, [BASE, REAL.slug]), [load_model_card(BASE).name, REAL.name]
    rows = rows_of(page)
    assert [row[0] for row in rows] == [*run, *sorted(card.name for card in cards if card.name not in run)]
    assert next(row for row in rows if row[0] == "Lingshu-7B")[1:3] == ["8.29B", "Qwen2.5-VL-7B"]
    links = re.findall(r'<a href="models/(.*?).html">(.*?)</a>', page._repr_html_())
    assert links == [(BASE, run[0]), (REAL.slug, "Model &lt;7B&gt;")]
    page = card_table(ModelCard(slug="mine", name="Mine", source="me/mine", revision="v1"))
    assert rows_of(page) == [["slug", "mine"], ["revision", "v1"], ["source", "me/mine"]]  # none that is empty
    assert "data/models/mine.yml" in page._repr_html_()
