"""Loading: checkpoints come back as they were saved, and a wrong one says what is wrong with it."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from mlprobe_utils.cards import ModelCard
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.errors import InputError
from mlprobe_utils.families.qwen2_5_vl import Qwen2_5_VL
from mlprobe_utils.loading import identity_of, load, load_processor, source_of
from mlprobe_utils.miniatures import making


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny checkpoint that a test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "checkpoint")


def card_of(source, **fields) -> ModelCard:
    return ModelCard(slug="mine", name="mine", source=str(source), **fields)


def refusal(card: ModelCard, function=load) -> str:
    with pytest.raises(InputError) as caught:
        function(card)
    return str(caught.value)


def test_saved_checkpoint_comes_back(tiny, image_set, tmp_path):
    making.save(tiny.model, tiny.processor, tmp_path)
    again = load(card_of(tmp_path, family="qwen2_5_vl"))
    assert isinstance(again.family, Qwen2_5_VL)
    assert not again.model.training
    assert again.model.dtype == torch.float32
    before, after = tiny.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    images = [image_set.pixels(i) for i in range(4)]
    inputs, same = (Encoder(l.processor, image_set.card.template).questions(images) for l in (tiny, again))  # noqa: E741
    assert inputs.keys() == same.keys()
    with torch.no_grad():
        assert torch.equal(tiny.model(**inputs).logits, again.model(**same).logits)


def test_precision_is_the_protocols(tiny_card):
    assert load(tiny_card, "bfloat16").model.dtype == torch.bfloat16


def test_missing_and_unexpected_weights_are_listed(copied):
    weights = load_file(copied / "model.safetensors")
    weights["visual.stray.weight"] = weights.pop("visual.blocks.2.attn.proj.weight")
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    message = refusal(card_of(copied))
    assert "'mine' does not fit Qwen2_5_VLForConditionalGeneration" in message
    assert "'missing_keys': ['model.visual.blocks.2.attn.proj.weight']" in message
    assert "'unexpected_keys': ['model.visual.stray.weight']" in message


def test_weights_of_another_shape_are_listed(copied):
    weights = load_file(copied / "model.safetensors")
    key = "visual.merger.mlp.2.weight"
    weights[key] = weights[key][:, :5].contiguous()
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    message = refusal(card_of(copied))
    assert "'mine'" in message
    assert key in message


def test_torn_weights_are_an_error(copied):
    with open(copied / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    assert "'mine'" in refusal(card_of(copied))


def test_pickled_weights_are_not_read(copied):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    message = refusal(card_of(copied))
    assert "'mine'" in message
    assert "safetensors" in message


def test_missing_chat_template(copied):
    (copied / "chat_template.jinja").unlink()
    message = refusal(card_of(copied))
    assert "'mine' ships no chat template" in message
    assert "give its card one as chat_template" in message


def test_missing_processor(copied):
    (copied / "processor_config.json").unlink()
    (copied / "tokenizer_config.json").unlink()
    (copied / "tokenizer.json").unlink()
    assert "'mine'" in refusal(card_of(copied), load_processor)


def test_class_that_no_family_knows(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"architectures": ["StrangeForConditionalGeneration"]}))
    for function in (load, load_processor):
        message = refusal(card_of(copied), function)
        assert "'mine': no family for models of class StrangeForConditionalGeneration" in message
        assert "Known classes: Qwen2VLForConditionalGeneration" in message


def test_model_without_a_vision_tower(tmp_path):
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=40, num_key_value_heads=1, **small)).save_pretrained(tmp_path)
    message = refusal(card_of(tmp_path))
    assert "'mine'" in message
    assert "qwen2" in message.lower()


def test_model_that_needs_code_of_its_own(copied):
    config = json.loads((copied / "config.json").read_text())
    del config["architectures"]
    config |= {"model_type": "homemade", "auto_map": {"AutoModelForImageTextToText": "modeling_homemade.Homemade"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "modeling_homemade.py").write_text("raise SystemExit('remote code was run')")
    assert "'mine'" in refusal(card_of(copied))


def test_family_that_the_class_denies(copied):
    message = refusal(card_of(copied, family="llava"))
    assert "'mine': family is 'llava', but the class is Qwen2_5_VLForConditionalGeneration" in message


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere", "~/nowhere/at/all", "nowhere", "a/b/c"])
def test_folder_that_is_not_there(source):
    for function in (source_of, identity_of, load):
        assert "neither a folder nor a hub id" in refusal(card_of(source), function)


def test_miniature_that_was_not_made(outputs):
    card = card_of("miniatures/x", made_by="mlprobe_utils.miniatures")
    for function in (identity_of, load):
        message = refusal(card, function)
        assert "python -m mlprobe_utils.miniatures mine" in message


@pytest.mark.parametrize("function", [load, identity_of])
def test_hub_id_that_cannot_be_reached(function, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refusal(card_of("nobody/nothing"), function)
    assert "model card 'mine': cannot read 'nobody/nothing'" in message
    assert "Offline, give a folder as source" in message


def test_identity_without_a_connection_is_that_of_the_cached_copy(monkeypatch, tmp_path):
    cached = tmp_path / "models--some--one"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee")
    (cached / "snapshots" / "c0ffee").mkdir(parents=True)
    (cached / "snapshots" / "c0ffee" / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    assert identity_of(card_of("some/one")) == "c0ffee"


def test_identity_is_the_content_of_the_folder(tiny_card, copied):
    identity = identity_of(card_of(copied))
    assert identity == identity_of(card_of(copied))
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    assert identity_of(card_of(copied)) != identity


def test_identity_of_a_made_model_is_what_it_was_made_from(copied, tmp_path):
    (copied / "made_from.json").write_text('{"seed": 1}')
    identity = identity_of(card_of(copied))
    (copied / "model.safetensors").touch()  # made again from the same
    assert identity_of(card_of(copied)) == identity
    (copied / "made_from.json").write_text('{"seed": 2}')
    assert identity_of(card_of(copied)) != identity
