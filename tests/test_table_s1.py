"""Table S1 recounted: the paper's fourteen models and their two bases, built without weights from their shapes."""

import subprocess
import sys

import pytest

from mlprobe_utils import parameter_counts
from mlprobe_utils.cards import load_model_card
from mlprobe_utils.errors import InputError
from mlprobe_utils.families.registry import family_named
from mlprobe_utils.model_table import published, short
from mlprobe_utils.parameter_counts import ARCHITECTURES, count, published_config, table, without_weights

PARTS = ("vision tower", "connector", "LLM", "LM head")
QWEN2, QWEN2_5 = "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"
LLAVA, GEMMA3 = "LlavaForConditionalGeneration", "Gemma3ForConditionalGeneration"
HOST = "VideoLlama3ForConditionalGeneration"  # of Hulu-Med's weights
# counted once, by other code, with transformers 5.23; 8,292,166,656, 33,452,718,336, 4,300,079,472 and 27,432,406,640
# in all are also half the bytes that the hub's bfloat16 weights take
EXPECTED = [
    (["medvlm-r1"], QWEN2, (631183360, 34087936, 1543714304, 0), (32, 2, 28)),
    (
        ["qwen2.5-vl-7b", "huatuogpt-vision-7b", "lingshu-7b", "shizhengpt-7b-vl"],
        QWEN2_5,
        (631975680, 44574464, 7070619136, 544997376),
        (32, 2, 28),
    ),
    (["lingshu-32b", "shizhengpt-32b-vl"], QWEN2_5, (636401664, 52440320, 31985308672, 778567680), (32, 2, 64)),
    (["huatuogpt-vision-34b"], LLAVA, (303507456, 58734592, 33930165248, 458752000), (23, 2, 60)),
    (["hulu-med-4b"], HOST, (412147440, 9507840, 4022468096, 388956160), (27, 2, 36)),
    (["hulu-med-7b"], HOST, (412147440, 16980992, 7070619136, 544997376), (27, 2, 28)),
    (["hulu-med-14b"], HOST, (412147440, 32122880, 13990394880, 777912320), (27, 2, 40)),
    (["hulu-med-32b"], HOST, (412147440, 32122880, 31985308672, 778567680), (27, 2, 64)),
    (["gemma-3-4b", "medgemma-4b", "medgemma-1.5-4b"], GEMMA3, (416866032, 2950272, 3880263168, 0), (27, 1, 34)),
    (["medgemma-27b"], GEMMA3, (416866032, 6194304, 27009346304, 0), (27, 1, 62)),
]
SIXTEEN = {slug: (model_class, parts, points) for slugs, model_class, parts, points in EXPECTED for slug in slugs}
BASES = {"qwen2.5-vl-7b": 8292166656, "gemma-3-4b": 4300079472}
FOURTEEN = sorted(set(SIXTEEN) - set(BASES))


def row_of(slug: str) -> dict[str, str]:
    """The row that the paper prints of a card's model."""
    return published().set_index("model").loc[load_model_card(slug).name].to_dict()


def test_table_s1_has_the_models_of_the_cards():
    assert len(SIXTEEN) == 16
    assert sorted(published()["model"]) == sorted(load_model_card(slug).name for slug in FOURTEEN)


@pytest.mark.parametrize("slug", SIXTEEN)
def test_table_s1_counts_by_part(slug):
    model_class, parts, points = SIXTEEN[slug]
    card = load_model_card(slug)
    counted = count(card.architecture)
    assert counted.model_class == model_class
    assert counted.parameters == dict(zip(PARTS, parts, strict=True))
    assert counted.points == dict(zip("VCL", points, strict=True))
    assert counted.total == card.parameters


@pytest.mark.parametrize("slug", FOURTEEN)
def test_table_s1_prints_the_counted_total(slug):
    assert short(count(load_model_card(slug).architecture).total) == row_of(slug)["parameters"]


@pytest.mark.parametrize(("slug", "total"), BASES.items())
def test_table_s1_bases_are_as_large_as_what_is_adapted_from_them(slug, total):
    card = load_model_card(slug)
    assert count(card.architecture).total == total
    adapted = [load_model_card(other) for other in FOURTEEN if load_model_card(other).base == slug]
    assert len(adapted) > 1
    assert {other.architecture for other in adapted} == {card.architecture}


@pytest.mark.parametrize("slug", FOURTEEN)
def test_table_s1_words_are_the_cards(slug):
    card, printed = load_model_card(slug), row_of(slug)
    assert (card.vision_tower, card.connector, card.llm) == tuple(
        printed[column] for column in ("vision tower", "connector", "LLM")
    )
    if printed["base model"] == "-":
        assert card.base is None
    else:  # the paper names a series, a card the model of that size
        name = card.base.split("/")[1] if "/" in card.base else load_model_card(card.base).name
        assert name.casefold().startswith(f"{printed['base model']}-".casefold())


@pytest.mark.parametrize("slug", SIXTEEN)
def test_table_s1_models_are_of_the_family_that_their_card_asserts(slug):
    card = load_model_card(slug)
    family = family_named(published_config(card.architecture)["architectures"])
    assert family.__module__ == f"mlprobe_utils.families.{card.family}"


@pytest.mark.parametrize("slugs", [slugs for slugs, *_ in EXPECTED], ids=lambda slugs: slugs[0])
def test_table_s1_models_are_probed_in_the_order_of_the_data(slugs):
    numbers = dict(zip("VCL", SIXTEEN[slugs[0]][2], strict=True))
    family = without_weights(load_model_card(slugs[0]).architecture)
    points = family.probe_points()
    assert [point.name for point in points] == [f"{m}.{i:02d}" for m, many in numbers.items() for i in range(many)]
    places = {id(module): place for place, module in enumerate(family.model.modules())}  # parents before children
    paths = {id(module): path for path, module in family.model.named_modules()}
    for module, part in zip("VCL", PARTS, strict=False):
        own = [point.module for point in points if point.name.startswith(module)]
        assert [places[id(layer)] for layer in own] == sorted(places[id(layer)] for layer in own)
        assert all(paths[id(layer)].startswith(tuple(family.parts()[part])) for layer in own)
    for module in "VL":  # blocks from the first on, none left out
        layers = [paths[id(point.module)] for point in points if point.name.startswith(module)]
        assert [path.rpartition(".")[2] for path in layers] == [str(i) for i in range(numbers[module])]
        assert len({path.rpartition(".")[0] for path in layers}) == 1


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"connector": ()}, "model.visual.merger.ln_q.weight of Qwen2VLForConditionalGeneration is in no part"),
        ({"connector": ("model.visual",)}, r"model.visual.patch_embed.proj.weight .* \['vision tower', 'connector'\]"),
    ],
)
def test_table_s1_counts_no_parameter_twice_and_leaves_none_out(monkeypatch, parts, said):
    family = family_named([QWEN2])
    changed = family.parts() | parts
    monkeypatch.setattr(family, "parts", lambda self: changed)
    with pytest.raises(RuntimeError, match=said):
        count.__wrapped__("qwen2-vl-2b")


def test_table_s1_architectures_are_all_of_some_card():
    assert {path.stem for path in ARCHITECTURES.glob("*.json")} == {
        load_model_card(slug).architecture for slug in SIXTEEN
    }


def test_table_s1_command_prints_a_row_a_model():
    command = [sys.executable, "-m", "mlprobe_utils.parameter_counts"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert " ".join(head.split()) == "model class vision tower connector LLM LM head total Table S1 equal probe points"
    cells = {row.split()[0]: " ".join(row.split()) for row in rows}
    assert cells.keys() == {load_model_card(slug).name for slug in SIXTEEN}
    assert cells["MedGemma-27B"].endswith(" 27,432,406,640 27.43B yes V 27, C 1, L 62")
    assert cells["Gemma-3-4B"].endswith(" 4,300,079,472 V 27, C 1, L 34")
    assert all((" yes " in cells[load_model_card(slug).name]) == (slug in FOURTEEN) for slug in SIXTEEN)


def test_table_s1_command_counts_what_it_is_given(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["parameter_counts", "medgemma-4b"])
    parameter_counts.main()
    _, row = capsys.readouterr().out.splitlines()
    assert row.split()[0] == "MedGemma-4B"


def test_table_s1_tells_a_count_that_differs():
    card = load_model_card("lingshu-7b").model_copy(update={"architecture": "hulu-med-7b"})
    assert table([card]).loc[0, "equal"] == "NO"


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (None, r"data/models/lingshu-7b\.yml: add `architecture`"),
        ("qwen2.5-vl-8b", r"unknown architecture 'qwen2\.5-vl-8b': did you mean 'qwen2\.5-vl-7b'\?"),
        ("../models/lingshu-7b", "unknown architecture"),
    ],
)
def test_table_s1_needs_an_architecture(architecture, said):
    card = load_model_card("lingshu-7b").model_copy(update={"architecture": architecture})
    with pytest.raises(InputError, match=said):
        table([card])


def test_table_s1_architecture_that_is_no_json_is_named(monkeypatch, tmp_path):
    (tmp_path / "mine.json").write_text('{"architectures": [')
    monkeypatch.setattr(parameter_counts, "ARCHITECTURES", tmp_path)
    with pytest.raises(InputError, match=r"data/architectures/mine\.json is not valid JSON"):
        published_config("mine")
