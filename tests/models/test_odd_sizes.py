"""A user's own model: a folder of any depths, widths and sizes."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tiny_parts import card_of, make_tiny

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.families import name_of
from mlprobe_utils.models.loading import load
from mlprobe_utils.probing.extraction import features_of, stacked
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Tower


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
def test_a_model_of_odd_sizes(odd, image_set, tmp_path):
    found = load(card_of(odd.make(tmp_path / "model")))
    assert name_of(type(found.family)) == odd.family
    assert [point.name for point in found.family.probe_points()] == odd.points
    encoder = Encoder(found.processor, image_set.card.template)
    images = [image_set.pixels(position) for position in range(4)]  # of four sizes, three of them not square
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
