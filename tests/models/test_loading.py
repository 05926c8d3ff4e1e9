"""Loading: checkpoints come back as they were saved; a wrong one, or one too large, says what is wrong with it."""

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_parts import card_of, each_family, each_family_with, edit, logits_of, refusal
from transformers import PreTrainedModel

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import known_hash
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.models import loading
from mlprobe_utils.models.encoding import Encoder, questions_about
from mlprobe_utils.models.families import FAMILIES
from mlprobe_utils.models.families.base import Packed
from mlprobe_utils.models.families.hulu_med import NAMING_IT
from mlprobe_utils.models.identity import identity_of
from mlprobe_utils.models.loading import load, load_processor
from mlprobe_utils.pipeline.cards import ModelCard, load_protocol
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.training.trainer import AnswerTrainer

PACKED = [name for name, family in FAMILIES.items() if issubclass(family, Packed)]
HOMEMADE = {"model_type": "homemade", "auto_map": {"AutoModelForImageTextToText": "modeling_homemade.Homemade"}}
WEIGHTS, SHARD = "model.safetensors", "model-00001-of-00002.safetensors"


@each_family
def test_saved_checkpoint_comes_back(tiny, image_set, tmp_path, family):
    """As transformers saves it: also Hulu-Med, which was loaded in the hub's form."""
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    again = load(card_of(tmp_path, family=family))
    assert (type(again.family), again.model.training, again.model.dtype) == (FAMILIES[family], False, torch.float32)
    assert torch.equal(logits_of(tiny, image_set), logits_of(again, image_set))


@each_family_with("own, protocols", (None, "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16"))
def test_precision_is_the_cards_before_the_protocols(tiny_folder, own, protocols):
    model = load(card_of(tiny_folder, precision=own), protocols).model
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, own or protocols)}


@each_family_with("own, expected", ("eager", "eager"), (None, "sdpa"))
def test_attention_is_the_cards_in_all_parts(copied, own, expected):
    published, saved = json.loads((copied / "config.json").read_text()), {"_attn_implementation": "flash_attention_2"}
    parts = {name: part | saved for name, part in published.items() if name.endswith("_config")}
    edit(copied / "config.json", **saved, **parts)  # as some were saved
    modules = load(card_of(copied, attention=own)).model.modules()
    assert {part.config._attn_implementation for part in modules if isinstance(part, PreTrainedModel)} == {expected}


@each_family
def test_a_device_map_changes_no_feature(tiny, tiny_folder, inputs):
    mapped = load(card_of(tiny_folder, device_map="auto"))
    torch.testing.assert_close(features_of(mapped, inputs), features_of(tiny, inputs), rtol=0, atol=0)


@pytest.mark.parametrize("family", PACKED, indirect=True)
def test_an_image_of_more_pixels_than_the_cap_gets_no_more_tokens(tiny, tiny_folder, image_set):
    cap, token = 64 * 64, tiny.model.config.image_token_id
    small, large, counts = np.zeros((64, 64, 3), np.uint8), np.zeros((160, 96, 3), np.uint8), []
    for card in (card_of(tiny_folder), card_of(tiny_folder, max_pixels=cap)):
        questions = Encoder(load_processor(card), image_set.card.template).questions([small, large])
        counts.append((questions["input_ids"] == token).sum(dim=1).tolist())
    whole, capped = counts
    assert capped[0] == whole[0]  # of exactly as many pixels
    assert 0 < capped[1] <= whole[0] < whole[1]


@each_family
def test_a_setting_that_a_family_has_no_use_for(tiny_folder, family):
    unused = {"max_pixels": (100, family not in PACKED), "pad_to_square": (True, family != "llava")}
    for field, value in [(field, value) for field, (value, useless) in unused.items() if useless]:
        message = refusal(card_of(tiny_folder, **{field: value}), load_processor)
        assert re.fullmatch(f"model card 'mine': models of class .* remove {field}", message)


@each_family_with("height", 1, 3)
def test_an_image_of_one_or_three_pixels_in_height_is_read_as_it_lies(encoder, height):
    image = np.zeros((height, 96, 3), np.uint8)
    image[:, :48] = 255
    assert encoder.questions([image])["pixel_values"].float().std() > 0.5  # both halves are there


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_an_image_that_the_processor_refuses_is_named(tiny):
    images = [np.zeros((64, 64, 3), np.uint8), np.zeros((8, 2000, 3), np.uint8)]  # which image_list would refuse
    questions = questions_about(tiny, Question("<image> Which?", {"a": "A", "b": "B"}), images)
    with pytest.raises(InputError, match=r"image 0*1, 2000 x 8 pixels, is refused .*aspect ratio.*: pad it, cut it"):
        questions.batch([0, 1])


@pytest.mark.parametrize("family", ["llava"], indirect=True)
def test_padding_to_a_square_keeps_what_lies_in_the_outer_fifth(tiny_folder):
    """The authors of HuatuoGPT-Vision-34B pad; the processor that ships cuts the long side."""
    plain = np.full((64, 160, 3), 90, np.uint8)
    lesion = plain.copy()
    lesion[24:40, 4:24] = 250
    for padded in (False, True):
        encoder = Encoder(load_processor(card_of(tiny_folder, pad_to_square=padded)), "<image> Which?")
        with_it, without = (encoder.questions([image])["pixel_values"] for image in (lesion, plain))
        assert torch.equal(with_it, without) != padded
    bars = without[0, :, 0].mean(dim=1)  # of the mean colour, which is normalised to 0 but for its rounding
    torch.testing.assert_close(bars, torch.zeros(3), atol=0.02, rtol=0)


def test_results_are_made_from_what_the_card_says_of_reading(image_set, tmp_path):
    def made_from(**fields) -> dict:
        work = Work(card_of("some/model", **fields), load_protocol("paper"), "paper", image_set, tmp_path, "commit")
        return work.features(None).made_from()

    plain = made_from()
    changes = {"precision": "float32", "max_pixels": 9, "attention": "eager", "chat_template": "{{ messages }}"}
    changes |= {"system_prompt": "", "thought": ("[", "]"), "pad_to_square": True}
    assert load_protocol("paper").fine_tuning.precision != changes["precision"]
    for field, value in changes.items():
        assert made_from(**{field: value}) != plain
    assert made_from(device_map="auto", licence="another") == plain


@pytest.fixture
def without_template(copied):
    for path in copied.glob("chat_template.*"):
        path.unlink()
    return copied


@each_family
def test_the_cards_chat_template_wins_and_none_at_all_is_an_error(tiny, tiny_folder, without_template, image_set):
    assert "'mine' ships no chat template: give one as chat_template" in refusal(card_of(without_template))
    part = "{% if part.type == 'image' %}" + tiny.processor.image_token + "{% else %}{{ part.text }}{% endif %}"
    template = "{% for message in messages %}SO: {% for part in message.content %}" + part + "{% endfor %}{% endfor %}"
    for folder in (without_template, tiny_folder):
        prompt = Encoder(load(card_of(folder, chat_template=template)).processor, "<image> Which?").prompt
        assert prompt == f"SO: {tiny.processor.image_token}Which?"


@each_family_with("place", "chat_template.jinja", "chat_template.json", "tokenizer_config.json")
def test_chat_templates_are_found_wherever_they_lie(tiny, without_template, place):
    template, file = tiny.processor.chat_template.removeprefix(NAMING_IT), without_template / place
    fields = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(template if place.endswith("jinja") else json.dumps(fields | {"chat_template": template}))
    assert load_processor(card_of(without_template)).chat_template == tiny.processor.chat_template


def test_a_cap_under_the_earlier_names_of_sizes(tiny):
    tiny.processor.image_processor.size = {"min_pixels": 1024, "max_pixels": 65536}
    tiny.family.cap_pixels(tiny.processor, 4096)
    size = tiny.processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (1024, 4096)


@pytest.mark.parametrize(("count", "expected"), [(1, "auto"), (2, None)])
def test_a_device_map_is_of_a_single_process(tiny_folder, monkeypatch, count, expected):
    """Each of several processes has a device of its own; accelerate trains nothing that is spread otherwise."""
    monkeypatch.setattr(loading, "processes", lambda: SimpleNamespace(num_processes=count, device=torch.device("cpu")))
    assert loading._checked(card_of(tiny_folder, device_map="auto"), "float32")[2] == expected


@pytest.mark.parametrize("family", ["llava"], indirect=True)
def test_a_tokenizer_that_cannot_pad(tiny, copied, image_set):
    edit(copied / "tokenizer_config.json", pad_token=None)
    loaded, images, found = load(card_of(copied)), [image_set.pixels(i) for i in (0, 1)], []
    assert loaded.processor.tokenizer.pad_token == loaded.processor.tokenizer.eos_token
    for own in (loaded, tiny):
        inputs = Encoder(own.processor, "<image> Which?").answered(images, ["Benign", "Malignant"])
        found.append(AnswerTrainer.losses_of(own.model, **inputs)[0])
    assert torch.equal(*found)


@each_family
def test_an_image_token_without_an_embedding(copied, tiny):
    """Said before the weights are read."""
    (copied / "model.safetensors").unlink()
    name = next(name for name in json.loads((copied / "config.json").read_text()) if name.startswith("image_token_i"))
    other = f"the image token's id is 5 in config.json, but [{tiny.model.config.image_token_id}]"
    beyond = "'mine': the image token's id in config.json is {0}, but the model has embeddings for 0 to"
    for token in (-1, tiny.model.get_input_embeddings().num_embeddings, 5):
        edit(copied / "config.json", **{name: token})
        assert (other if token == 5 else beyond.format(token)) in refusal(card_of(copied))


@pytest.mark.parametrize("name", ["pad", "end", "end-of-turn"])
def test_a_special_token_without_an_embedding(copied, tiny, name):
    """A device assert on a GPU, and only once a batch is padded or an answer ends."""
    rows = tiny.model.get_input_embeddings().num_embeddings
    processor = load_processor(card_of(copied))
    while len(processor.tokenizer) < rows:  # as resized checkpoints are: rows of no token
        processor.tokenizer.add_tokens([f"<more {len(processor.tokenizer)}>"])
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<beyond>"]})
    if name == "end-of-turn":
        processor.chat_template = processor.chat_template.replace("<|im_end|>", "<beyond>")
    else:
        setattr(processor.tokenizer, f"{'eos' if name == 'end' else name}_token", "<beyond>")
    processor.save_pretrained(copied)
    wrong = f"'mine': the {name} token of the tokenizer, '<beyond>', has the id {rows}, but the model has embeddings"
    assert wrong in refusal(card_of(copied))


def test_missing_processor(copied):
    (copied / "processor_config.json").unlink()
    assert re.search("'mine': cannot read .*preprocessor_config.json", refusal(card_of(copied), load_processor))
    edit(copied / "config.json", model_type=None)
    edit(copied / "tokenizer_config.json", processor_class=None)  # transformers takes the tokenizer for all there is
    assert "has no preprocessor_config.json" in refusal(card_of(copied), load_processor)


def config(**changes) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def pointer(name: str) -> Callable[[Path], int]:
    lines = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    return lambda folder: (folder / name).write_text(lines)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: os.truncate(folder / WEIGHTS, 1000), ""),
        (config(transformers_weights="adapter_model.bin"), "names a pickle as transformers_weights"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / WEIGHTS).rename(folder / SHARD), f"{SHARD}, but no {WEIGHTS}.index.json: copy that"),
        (pointer(WEIGHTS), "pointer of Git LFS and not the file itself"),
        (pointer("tokenizer.json"), "run `git lfs pull` in its folder"),
        (config(quantization_config={"quant_method": "awq"}), "is quantised (awq), which changes the states that are"),
        (config(vision_config={"hidden_size": "wide"}), "cannot read config.json"),
        (config(architectures=["Strange"]), "no family for models of class Strange. Known classes: Qwen2VLFor"),
        (config(architectures=None, **HOMEMADE), ""),
        (config(architectures=["Qwen2ForCausalLM"], model_type="qwen2"), "Qwen2"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_its_card(copied, spoil, said):
    (copied / "modeling_homemade.py").write_text("raise SystemExit('remote code was run')")
    spoil(copied)
    assert re.search(f"'mine'.*{re.escape(said)}", refusal(card_of(copied)))


def test_family_that_the_class_denies_and_folder_that_is_not_there(tiny_folder, outputs):
    words = "'mine': family is 'llava', but the class is Qwen2_5_VLForConditionalGeneration"
    assert words in refusal(card_of(tiny_folder, family="llava"))
    for source in ("/nowhere/at/all", "./nowhere", "~/nowhere/at/all", "nowhere", "a/b/c"):
        for function in (ModelCard.located, identity_of, load):
            assert "neither a folder nor a hub id" in refusal(card_of(source), function)
    miniature = card_of("miniatures/x", made_by="miniatures")
    for function in (identity_of, load):
        assert "python -m mlprobe_utils miniatures mine" in refusal(miniature, function)


def test_identity_is_the_content_of_the_folder(copied, tmp_path):
    """Neither when files were written nor a record beside them counts; kept hashes are of the files as they are."""
    content, identities = (copied / "model.safetensors").read_bytes(), []
    other = content[:-1] + bytes([content[-1] ^ 1])
    files = [("model.safetensors", content), ("made_from.json", b"{}"), ("model.safetensors", other)]
    for name, written in [*files, ("chat_template.jinja", b"{{ messages }}")]:
        (copied / name).write_bytes(written)
        identities.append(identity_of(card_of(copied)))
        assert identity_of(card_of(copied), partial(known_hash, tmp_path / "hashes.json")) == identities[-1]
    assert (identities[0], len({*identities})) == (identities[1], 3)


GIB = 2**30


def let_there_be(monkeypatch, machine: float, *others: float) -> None:
    """Memory of the machine and its accelerators, in GiB."""
    monkeypatch.setattr(loading, "memory", lambda: (machine * GIB, [size * GIB for size in others]))


@pytest.mark.parametrize(
    ("sizes", "device_map", "precision", "fits", "words", "missing"),
    [
        ((16,), None, "float32", 4, ["this machine has 16.0 GiB", "bfloat16", "larger"], ["auto"]),
        ((16,), None, "bfloat16", 8, ["in bfloat16", "larger"], ["`precision", "auto"]),
        ((16,), "auto", "bfloat16", 8, [], []),
        ((64, 24, 80), None, "bfloat16", 12, ["the device has 24.0 GiB", "`device_map: auto`"], ["`precision"]),
        ((8, 10, 10), "auto", "float32", 7, ["all devices", "28.0 GiB", "`precision: bfloat16`"], ["device_map"]),
    ],
)
def test_weights_are_compared_with_what_there_is(monkeypatch, sizes, device_map, precision, fits, words, missing):
    let_there_be(monkeypatch, *sizes)
    card, given = card_of("some/model", device_map=device_map), (precision, bool(device_map))
    loading.check_memory(card, fits * GIB, *given)
    message = refusal(card, lambda card: loading.check_memory(card, fits * GIB + 1, *given))
    assert all(word in message for word in ("'mine'", *words))
    assert not any(word in message for word in missing)


def test_a_model_is_refused_before_its_weights_are_read(monkeypatch, tiny, copied):
    count = sum(parameter.numel() for parameter in tiny.model.parameters())
    let_there_be(monkeypatch, 4 * count / GIB)
    loading.load(card_of(copied))
    let_there_be(monkeypatch, (4 * count - 1) / GIB)
    loading.load(card_of(copied, precision="bfloat16"))
    (copied / "model.safetensors").unlink()
    assert "its weights alone need 0.0 GiB" in refusal(card_of(copied))
