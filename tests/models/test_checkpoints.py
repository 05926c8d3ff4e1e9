"""Checkpoints as transformers 4 wrote them and as the hub has them: nothing missing or unexpected, the same logits."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import FAMILY_NAMES, card_of, each_family, edit, logits_of, make_tiny, refusal

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import load, load_processor
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.synthetic.miniatures.making import HUB_NAMES

# names of weights in transformers 5 -> in older checkpoints: first as transformers 4 had them at the end, then before
QWEN = [{}, {r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."}]
LLAVA = [
    {r"^model\.vision_tower\.": "model.vision_tower.vision_model."},
    {
        r"^model\.vision_tower\.": "vision_tower.vision_model.",
        r"^model\.multi_modal_projector\.": "multi_modal_projector.",
        r"^model\.language_model\.": "language_model.model.",
        r"^lm_head\.": "language_model.lm_head.",
    },
]
LAYOUTS = {"qwen2_vl": QWEN, "qwen2_5_vl": QWEN, "llava": LLAVA, "gemma3": LLAVA}
LAYOUTS |= {"hulu_med": [HUB_NAMES], "qwen3_vl": [{}]}
PAIRS = [(family, n) for family in FAMILY_NAMES for n in range(len(LAYOUTS[family]))]
each_layout = pytest.mark.parametrize(("family", "layout"), PAIRS, indirect=["family"])
hulu_med = pytest.mark.parametrize("family", ["hulu_med"], indirect=True)  # in the form of the hub
BASE = 50_000.0  # of the rotary embeddings: no class's default


@pytest.fixture
def weights(tiny) -> dict[str, torch.Tensor]:
    """By the names of transformers 5; a tied head is left out."""
    return {name: tensor for name, tensor in tiny.model.state_dict().items() if name != "lm_head.weight"}


def put(weights, names, folder) -> None:
    renamed = {}
    for name, tensor in weights.items():
        for pattern, older in names.items():
            name = re.sub(pattern, older, name)
        renamed[name] = tensor.contiguous()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


@each_layout
def test_weights_under_older_names(tiny, weights, copied, image_set, family, layout):
    if layout == 0:  # a head of its own
        weights["lm_head.weight"] = tiny.model.lm_head.weight.flip(0).detach()
        tiny.model.lm_head.weight = torch.nn.Parameter(weights["lm_head.weight"])
        published, untied = json.loads((copied / "config.json").read_text()), {"tie_word_embeddings": False}
        text = {"text_config": published["text_config"] | untied} if family != "hulu_med" else {}
        edit(copied / "config.json", **untied, **text)
    put(weights, LAYOUTS[family][layout], copied)
    assert torch.equal(logits_of(load(card_of(copied)), image_set), logits_of(tiny, image_set))


@each_layout
def test_weights_that_do_not_fit_are_listed(tiny, weights, copied, family, layout):
    block, linear = tiny.family.vision_blocks, tiny.family.decoder_layers
    missing = next(name for name in weights if name.startswith(f"{block}.2.") and name.endswith("weight"))
    reshaped = f"{linear}.1.self_attn.k_proj.weight"
    tensor = weights.pop(missing)
    weights[f"{block}.9.stray.weight"] = tensor
    weights[reshaped] = weights[reshaped][:, :5]
    put(weights, LAYOUTS[family][layout], copied)
    message = refusal(card_of(copied))
    assert f"'mine' does not fit {type(tiny.model).__name__}" in message
    assert f"'missing_keys': ['{missing}']" in message
    assert f"'unexpected_keys': ['{block}.9.stray.weight']" in message
    assert f"'mismatched_keys': [('{reshaped}'" in message


def test_buffers_that_were_saved_once_are_no_weights(tmp_path, image_set):
    folder = make_tiny("llava", tmp_path)
    expected = logits_of(load(card_of(folder)), image_set)
    saved = load_file(folder / "model.safetensors")
    saved["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    saved["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits_of(load(card_of(folder)), image_set), expected)


@each_family
def test_the_rotary_embeddings_of_an_older_configuration_count(tiny, copied, image_set, family):
    """As transformers 4 wrote them: among the text's fields, which in early Qwens stand beside the model's own."""
    whole = json.loads((copied / "config.json").read_text())
    text, early = whole if family == "hulu_med" else whole["text_config"], family in ("qwen2_vl", "qwen2_5_vl")
    expected = text.pop("rope_parameters")
    text["rope_theta"] = BASE
    if family == "gemma3":
        text |= {"rope_local_base_freq": BASE / 100, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
        expected["full_attention"] |= {"rope_type": "linear", "factor": 8.0, "rope_theta": BASE}
        expected["sliding_attention"] |= {"rope_theta": BASE / 100}
    else:
        sections = {name: value for name, value in expected.items() if name.startswith("mrope")}
        text["rope_scaling"] = {"type": "mrope" if early else "default"} | sections if sections else None
        expected |= {"rope_theta": BASE}
    if early:
        whole = text | {name: value for name, value in whole.items() if name != "text_config"}
    (copied / "config.json").write_text(json.dumps(whole))
    older = load(card_of(copied))
    assert expected.items() <= older.model.config.text_config.rope_parameters.items()
    assert not torch.equal(logits_of(older, image_set), logits_of(tiny, image_set))


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if name != "hulu_med"], indirect=True)
def test_processor_files_of_transformers_4(tiny, copied, image_set, family):
    """One file for images, one for the rest; before 4.46, LLaVA's did not say how many tokens an image takes."""
    whole = json.loads((copied / "processor_config.json").read_text())
    (copied / "processor_config.json").unlink()
    images = whole["image_processor"] | {"processor_class": whole["processor_class"]}
    if family == "qwen2_5_vl":  # which had a class of its own for a while
        images["image_processor_type"] = "Qwen2_5_VLImageProcessor"
    if "longest_edge" in images["size"]:
        size = images.pop("size")
        images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    (copied / "preprocessor_config.json").write_text(json.dumps(images))
    if family == "gemma3":
        rest = {"image_seq_length": whole["image_seq_length"], "processor_class": whole["processor_class"]}
        (copied / "processor_config.json").write_text(json.dumps(rest))
    assert torch.equal(logits_of(load(card_of(copied)), image_set), logits_of(tiny, image_set))


@hulu_med
@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"mm_projector_type": "mlp3x"}, "mm_projector_type is 'mlp3x', only 'mlp2x_gelu' is known"),
        ("config.json", {"image_token_index": None}, "image_token_index is missing"),
        ("preprocessor_config.json", {"min_tokens": None}, "min_tokens is missing"),
    ],
)
def test_hulu_med_fields_that_are_missing_or_not_known(copied, file, change, said):
    edit(copied / file, **change)
    for function in (load, load_processor) if file.startswith("pre") else (load,):
        assert refusal(card_of(copied), function).startswith(f"model card 'mine': {file}: {said}")


@hulu_med
def test_hulu_med_fields_of_preprocessor_config_json_arrive(copied, image_set):
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "patch_size": 8}
    edit(copied / "preprocessor_config.json", **said, min_tokens=20, max_tokens=30)
    processor = load_processor(card_of(copied))
    assert said.items() <= json.loads(processor.image_processor.to_json_string()).items()
    for position in range(4):  # 4,096, 12,288, 2,048 and 15,360 pixels
        questions = Encoder(processor, load_data_card("busi").template).questions([image_set.pixels(position)])
        assert 20 <= (questions["input_ids"] == processor.image_token_id).sum() <= 30
        assert questions["pixel_values"].shape[1] == 3 * 8 * 8
