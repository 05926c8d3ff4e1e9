"""What a family promises of its probe points, held against passes without hooks and padding; models of any size."""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from slow_reference import slow_reference
from tiny_parts import RECIPE, WIDTHS, card_of, each_family, each_family_with, make_tiny

from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.families import FAMILIES, name_of
from mlprobe_utils.models.families.base import PIECES, Packed, TextTokens, below, image_mean, image_places, unpacked
from mlprobe_utils.models.loading import load
from mlprobe_utils.probing.extraction import features_of, stacked
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Tower
from mlprobe_utils.training.fine_tuning import lora_config


def largest_difference(features: dict, reference: dict) -> float:
    """Largest difference of any feature, in standard deviations of its probe point's reference."""
    assert features.keys() == reference.keys()
    return max(float((features[k] - reference[k]).abs().max() / reference[k].std()) for k in reference)


@each_family
def test_parts_hold_every_parameter_once(tiny):
    parts = {part: below(paths) for part, paths in tiny.family.parts().items()}
    for name, _ in tiny.model.named_parameters(remove_duplicate=False):
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in parts.values()) == 1, name


@each_family_with("attention", "eager", "sdpa")
def test_features_of_a_batch_equal_a_slow_reference_of_each_image(tiny, encoder, inputs, images, family, attention):
    tiny.model.set_attn_implementation(attention)
    padded = inputs["attention_mask"][:, 0] == 0
    assert padded.any() == issubclass(FAMILIES[family], Packed)  # the others' images all have as many tokens
    alone = [slow_reference(tiny, encoder.questions([image])) for image in images]
    reference = {key: stacked([features[key][None] for features in alone]) for key in alone[0]}
    assert largest_difference(features_of(tiny, inputs), reference) < 1e-4


@each_family_with("precision, tolerance", (torch.bfloat16, 0.2), (torch.float16, 0.03))
def test_any_precision_gives_the_same_features_but_for_its_rounding(tiny, inputs, precision, tolerance):
    reference = features_of(tiny, inputs)
    tiny.model.to(precision)
    features = features_of(tiny, inputs)
    assert {tensor.dtype for tensor in features.values()} == {torch.float32}
    assert 0 < largest_difference(features, reference) < tolerance


@each_family
@torch.no_grad()
def test_logits_are_computed_where_requested_only(tiny, inputs):
    """A class that passes over the request computes a vocabulary of numbers for every image token."""
    whole, requested = tiny.model(**inputs).logits, tiny.model(**inputs, logits_to_keep=3).logits
    assert requested.shape[1] == 3 < whole.shape[1]
    torch.testing.assert_close(requested, whole[:, -3:])


@each_family
def test_inputs_with_a_part_left_out_are_an_error(tiny, inputs):
    assert set(inputs) == set(tiny.family.inputs)  # nothing that the processor returns is unknown to the family
    for key in inputs:
        crippled = {name: value for name, value in inputs.items() if name != key}
        with pytest.raises(RuntimeError, match=f"^{key}: missing from the processor's output"):
            features_of(tiny, crippled)


@each_family_with("vision_tower", "lora", "frozen")
def test_points_survive_lora(tiny, inputs, family, vision_tower):
    """peft puts other modules in place of the Linear ones; a fresh adapter changes nothing, a trained one is seen."""
    before = features_of(tiny, inputs)
    adapted = get_peft_model(tiny.model, lora_config(tiny, RECIPE.model_copy(update={"vision_tower": vision_tower})))
    assert [point.name for point in tiny.family.probe_points()] == list(WIDTHS[family])
    assert largest_difference(features_of(tiny, inputs), before) < 1e-5
    connector, decoder = tiny.family.connector_layers[0], tiny.family.decoder_layers
    first, reached = (decoder, "L.00/image_mean") if family == "gemma3" else (connector, "C.00/image_mean")
    for name, parameter in adapted.named_parameters():
        if f".{first}." in name and ".lora_B" in name:
            torch.nn.init.constant_(parameter, 0.5)
    after = features_of(tiny, inputs)
    last_block = [f"{point}/image_mean" for point in WIDTHS[family] if point[0] == "V"][-1]
    torch.testing.assert_close(after[last_block], before[last_block])
    assert (after[reached] - before[reached]).abs().min() > 0  # the adapter's share is captured
    adapted.unload()
    assert largest_difference(features_of(tiny, inputs), before) == 0


@each_family
def test_image_tokens_see_what_comes_before_them_and_no_question_behind(tiny, images):
    """The question where it comes first, and irrelevant text as long as it. Both questions are of as many tokens."""
    seen = {}
    for order in ORDERS:
        encoders = [Encoder(tiny.processor, f"<image> {question}", order) for question in ("is it 1", "is it 2")]
        seen[order] = [features_of(tiny, encoder.questions(images)) for encoder in encoders]

    def differ(one: dict, other: dict, modules: str) -> list[float]:
        keys = [key for key in one if key[0] in modules and key.endswith("image_mean")]
        return [largest_difference({key: one[key]}, {key: other[key]}) for key in keys]

    for order, (one, other) in seen.items():
        assert max(differ(one, other, "VDC")) < 1e-5
        assert min(differ(one, other, "L")) > 1e-3 if order == "question_first" else max(differ(one, other, "L")) < 1e-5
        assert min((one[key] - other[key]).abs().max() for key in ("L.01/last_token", "L.02/last_token")) > 1e-3
    plain, behind = seen["image_first"][0], seen["irrelevant_first"][0]
    assert max(differ(plain, behind, "VDC")) < 1e-5
    assert min(differ(plain, behind, "L")) > 1e-3


def text_tokens(mask) -> TextTokens:
    mask = torch.as_tensor(mask, dtype=torch.bool)
    return TextTokens(mask, torch.ones_like(mask).long())


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9))
def test_pooling_of_llm_states_equals_a_loop(seed, batch, tokens):
    """Image tokens anywhere, in one range or several: text states between them do not count."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, tokens, generator=generator) < 0.5
    mask[:, seed % tokens] = True
    output = torch.randn(batch, tokens, 3, generator=generator)
    output[~mask] = torch.nan
    expected = [[output[i, t] for t in range(tokens) if mask[i, t]] for i in range(batch)]
    means = torch.stack([sum(states) / len(states) for states in expected])
    torch.testing.assert_close(image_mean(text_tokens(mask).of_images(output)), means)


@given(st.integers(1, 200), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_places_equal_a_loop_and_keep_all_that_is_small(length, width, seed):
    tokens = torch.randn(2, length, width, generator=torch.Generator().manual_seed(seed))
    found = image_places(tokens)
    pieces = [tokens[:, [i for i in range(length) if i * PIECES // length == k]] for k in range(PIECES)]
    kept = [piece.mean(dim=1) for piece in pieces if piece.shape[1]] if length > PIECES else tokens.unbind(dim=1)
    if width <= 32:
        torch.testing.assert_close(found, torch.cat(kept, dim=1))
    assert found.shape == (2, min(length, 64) * min(width, 32))
    longer = image_places([tokens[0], torch.cat([tokens[1], tokens[1]])])  # of other numbers: zeros behind the fewer
    torch.testing.assert_close(longer[0, : found.shape[1]], found[0])
    assert not longer[0, found.shape[1] :].any()


def test_pooling_is_done_in_float32():
    output = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)  # bfloat16 counts to 256 only
    output[::2] = 3.0
    means = [image_mean(unpacked(output, lengths)) for lengths in ([4096], [96, 4000])]
    means.append(image_mean(text_tokens(torch.ones(1, 4096)).of_images(output[None])))
    assert {*torch.cat(means).flatten().tolist()} == {2.0}
    assert text_tokens(torch.ones(1, 4096)).last_token(output[None]).dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (1, 6, 8), (6,)])
def test_output_of_another_shape_is_an_error(shape):
    with pytest.raises(RuntimeError, match=r"expected \[6, width\], got"):
        unpacked(torch.zeros(shape), [4, 2])
    tokens = text_tokens(torch.ones(2, 4))
    for pool in (tokens.of_images, tokens.last_token):
        with pytest.raises(RuntimeError, match=r"expected \[2, 4, width\], got"):
            pool(torch.zeros(shape))
    with pytest.raises(RuntimeError, match="no image token"):
        text_tokens([[True, False], [False, False]])


@dataclass(frozen=True)
class Odd:
    """An architecture, what of its configuration is unlike the full-size models', and its probe points."""

    family: str
    counts: dict[str, int]  # module -> its probe points
    vision: tuple[int, int, int, int]  # depth, width, feed-forward width, heads
    llm: tuple[int, int, int, int, int]  # and heads of keys and values
    patch: int
    side: int
    changes: dict[str, object] = field(default_factory=dict)  # of the configuration, by path
    llm_type: str | None = None

    @property
    def points(self) -> list[str]:
        return [f"{module}.{number:02d}" for module, count in self.counts.items() for number in range(count)]

    def make(self, folder: Path) -> Path:
        vision, llm = (dict(zip(Tower.model_fields, sizes, strict=False)) for sizes in (self.vision, self.llm))
        shape = {"llm_type": self.llm_type, "patch_size": self.patch, "side": self.side, "vocabulary": 300}
        architecture = Architecture(vision=Tower(**vision), llm=Tower(**llm), **shape)

        def change(config) -> None:
            for path, value in self.changes.items():
                *parts, name = path.split(".")
                setattr(functools.reduce(getattr, parts, config), name, value)

        return make_tiny(self.family, folder, architecture, change)


SHORT, LONG, SIDE = {"V": 3, "C": 2, "L": 5}, {"V": 5, "C": 2, "L": 3}, {"V": 5, "D": 3, "C": 2, "L": 3}
UNTIED = {"tie_word_embeddings": False, "text_config.tie_word_embeddings": False}
WINDOWS = {"vision_config.fullatt_block_indexes": [0, 2]}
DEEP = {"vision_config.deepstack_visual_indexes": [0, 2, 4]}
LAST, SEVERAL = {"vision_feature_layer": -1}, {"vision_feature_layer": [-4, 3]}
CLS = {"vision_feature_select_strategy": "full"}
ODD = {
    "qwen2-vl": Odd("qwen2_vl", SHORT, (3, 40, 80, 2), (5, 56, 72, 4, 1), 14, 56, UNTIED),
    "qwen2.5-vl": Odd("qwen2_5_vl", LONG, (5, 72, 100, 3), (3, 40, 56, 5, 5), 8, 48, WINDOWS),
    "llava, last layer": Odd("llava", LONG, (5, 40, 56, 4), (3, 72, 40, 9, 3), 14, 70, UNTIED | LAST),
    "llava, several and CLS": Odd("llava", SHORT, (3, 56, 72, 7), (5, 40, 88, 2, 1), 8, 40, SEVERAL | CLS),
    "hulu-med, qwen2": Odd("hulu_med", SHORT, (3, 72, 40, 6), (5, 56, 40, 7, 1), 14, 56, UNTIED, "qwen2"),
    "hulu-med, qwen3": Odd("hulu_med", LONG, (5, 40, 56, 2), (3, 72, 56, 6, 2), 8, 40, {}, "qwen3"),
    "gemma-3, 9 tokens": Odd("gemma3", SHORT | {"C": 1, "L": 7}, (3, 40, 72, 5), (7, 56, 40, 7, 7), 14, 84),
    "gemma-3, 4 of 25": Odd("gemma3", LONG | {"C": 1}, (5, 72, 56, 3), (3, 40, 88, 5, 1), 8, 40, UNTIED),
    "qwen3-vl": Odd("qwen3_vl", SIDE, (5, 40, 72, 5), (3, 56, 40, 7, 1), 14, 84, UNTIED | DEEP),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_model_of_odd_sizes(odd, images, image_set, tmp_path):
    found = load(card_of(odd.make(tmp_path / "model")))
    assert name_of(type(found.family)) == odd.family
    assert [point.name for point in found.family.probe_points()] == odd.points
    encoder = Encoder(found.processor, image_set.card.template)
    together = features_of(found, encoder.questions(images))
    alone = [features_of(found, encoder.questions([image])) for image in images]
    assert {key.split("/")[0] for key in together} == set(odd.points)
    for key, tensor in together.items():
        expected = stacked([features[key] for features in alone])
        assert tensor.shape == expected.shape
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-3 * expected.std().item())
    blocks = found.model.get_submodule(found.family.vision_blocks)
    read = [reaches_the_connector(found, block, encoder.questions(images[:1])) for block in blocks]
    assert read == [f"V.{number:02d}" in odd.points for number in range(len(blocks))]
    if odd.family == "llava":
        means_are_of_the_tokens_that_the_connector_reads(found, encoder.questions(images[1:2]))


def reaches_the_connector(loaded, module, questions, tokens=slice(None)) -> bool:
    """Whether the connector's output changes with some tokens of a module's."""
    before = features_of(loaded, questions)["C.00/image_mean"]

    def disturb(module, arguments, output):
        output = output.clone()
        output[..., tokens, :] += torch.linspace(-1, 1, output.shape[-1]) ** 3
        return output

    handle = module.register_forward_hook(disturb, prepend=True)  # before transformers' own, which keep layers' outputs
    after = features_of(loaded, questions)["C.00/image_mean"]
    handle.remove()
    return not torch.equal(before, after)


def means_are_of_the_tokens_that_the_connector_reads(loaded, questions) -> None:
    last, kept = [point for point in loaded.family.probe_points() if point.name[0] == "V"][-1], []
    handle = last.module.register_forward_hook(lambda module, arguments, output: kept.append(output))
    mean = features_of(loaded, questions)[f"{last.name}/image_mean"]
    handle.remove()
    first = 0 if reaches_the_connector(loaded, last.module, questions, slice(0, 1)) else 1  # CLS
    assert first == (0 if loaded.model.config.vision_feature_select_strategy == "full" else 1)
    torch.testing.assert_close(mean, kept[0][:, first:].mean(dim=1))
