"""A tiny architecture, recipe and image set, for the tests of everything that needs a model."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedConfig

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.families import FAMILIES
from mlprobe_utils.models.families.base import Packed
from mlprobe_utils.models.loading import LoadedModel, load
from mlprobe_utils.pipeline.cards import ModelCard, Protocol, load_data_card, load_protocol
from mlprobe_utils.synthetic.miniatures import blueprints, making
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Tower

ARCHITECTURE = Architecture(
    vision=Tower(depth=4, width=32, feed_forward=64, heads=2),
    llm=Tower(depth=3, width=32, feed_forward=64, heads=4, key_value_heads=2),
    llm_type="qwen3",  # of Hulu-Med
    patch_size=16,
    side=64,  # also the side of an attention window: larger images have several, and their tokens are permuted
    vocabulary=300,
)
FAMILY_NAMES = [*FAMILIES]
each_family = pytest.mark.parametrize("family", FAMILY_NAMES, indirect=True)  # whatever of `tiny` a test uses
IN_TIME = [pytest.param(name, marks=() if name == "qwen2_5_vl" else pytest.mark.slow) for name in FAMILY_NAMES]
each_family_in_time = pytest.mark.parametrize("family", IN_TIME, indirect=True)  # where one takes seconds


def each_family_with(names: str, *values):
    """Every family once, with one of the values in turn: what a value does, it does with each of them."""
    given = [value if isinstance(value, tuple) else (value,) for value in values]
    pairs = [(family, *given[i % len(given)]) for i, family in enumerate(FAMILY_NAMES)]
    return pytest.mark.parametrize(f"family, {names}", pairs, indirect=["family"])


_VISION = {f"V.{i:02d}": 32 for i in range(4)}
_LLM = {f"L.{i:02d}": 32 for i in range(3)}
_MERGER = {"C.00": 4 * 32, "C.01": 32}  # of 2 x 2 patches
_PROJECTOR = {"C.00": 32, "C.01": 32}
WIDTHS = {  # of each family's probe points, in the order the data flows
    "qwen2_vl": _VISION | _MERGER | _LLM,
    "qwen2_5_vl": _VISION | _MERGER | _LLM,
    "llava": dict(list(_VISION.items())[:-1]) | _PROJECTOR | _LLM,  # nothing reads the last CLIP layer
    "hulu_med": _VISION | _PROJECTOR | _LLM,
    "gemma3": _VISION | {"C.00": 32} | _LLM,
    "qwen3_vl": _VISION | {"D.00": 32} | _MERGER | _LLM,
}
SIZES = ((64, 64), (128, 96), (32, 64), (96, 160))  # height, width; 4, 12, 2 and 15 image tokens
RECIPE = load_protocol("miniature").fine_tuning.model_copy(
    update={"rank": 2, "alpha": 8, "learning_rate": 0.01, "epochs": 2, "batch_size": 4, "runs": 1}
)


def make_tiny(
    family: str,
    folder: Path,
    architecture: Architecture = ARCHITECTURE,
    change: Callable[[PreTrainedConfig], None] = lambda config: None,
) -> Path:
    """Saves a checkpoint of a family's class with random weights to `folder`: any image size where the family can.

    `change` edits its configuration.
    """
    torch.manual_seed(0)

    def blueprint(*wanted):
        config, processor = blueprints.blueprint(*wanted)
        change(config)
        return config, processor

    with pytest.MonkeyPatch.context() as patch:
        # "Benign" and "Yes" are one token each, "Malignant" is several
        patch.setattr(making, "corpus", lambda side: [load_data_card("chest-xray").template, "Benign Normal"] * 9)
        patch.setattr(making, "blueprint", blueprint)
        model, processor = making.from_scratch(family, architecture)
    for parameter in model.parameters():  # no bias is exactly zero and no norm exactly one, as after training
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.1)
    if issubclass(FAMILIES[family], Packed):
        processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    making.save(model, processor, folder)
    return folder


def card_of(source, **fields) -> ModelCard:
    return ModelCard(slug="mine", name="mine", source=str(source), **fields)


def refusal(card: ModelCard, function: Callable = load) -> str:
    """What the error says with which a model is refused."""
    with pytest.raises(InputError) as caught:
        function(card)
    return str(caught.value)


def edit(file: Path, **changes) -> None:
    """Sets fields of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@torch.no_grad()
def logits_of(loaded: LoadedModel, image_set: ImageSet) -> torch.Tensor:
    """Of images of all four sizes."""
    questions = Encoder(loaded.processor, image_set.card.template).questions([image_set.pixels(i) for i in range(4)])
    return loaded.model(**questions).logits


class Killed(BaseException):
    """As a kill: nothing but BaseException handlers sees it."""


def killed_after(count: int, monkeypatch, owner: type = ImageSet, method: str = "pixels") -> list[int]:
    """Lets a pass die, once, after `count` images; the positions that are read after that are appended to the list."""
    numbers, after, whole = itertools.count(), [], getattr(owner, method)

    def read(self, position):
        if (number := next(numbers)) == count:
            raise Killed
        if number > count:
            after.append(position)
        return whole(self, position)

    monkeypatch.setattr(owner, method, read)
    return after


def changed(protocol: Protocol, **blocks: dict) -> Protocol:
    """A protocol with fields of its blocks changed."""
    return protocol.model_copy(update={b: getattr(protocol, b).model_copy(update=own) for b, own in blocks.items()})


def newly_made(folder: Path, make: Callable[[], object]) -> list[str]:
    """The artefacts below a folder that a call makes, by their paths from there."""

    def times() -> dict[str, int]:
        records = folder.rglob("made_from.json")
        return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in records}

    before = times()
    make()
    return sorted(place for place, time in times().items() if time != before.get(place))


def make_image_set(
    folder: Path, count: int = 12, dataset: str = "busi", validation: int = 2, test: int = 2
) -> ImageSet:
    """An image set of noise in four sizes; the class sets the brightness, the last images validate and test."""
    card, rng = load_data_card(dataset), np.random.default_rng(0)
    kinds, sizes = np.arange(count) % len(card.classes), np.resize(SIZES, (count, 2))
    parts = ["train"] * (count - test - validation) + ["validation"] * validation + ["test"] * test
    drawn = [rng.integers(60 * k, 60 * k + 90, (*own, 3), dtype=np.uint8) for k, own in zip(kinds, sizes, strict=True)]
    (folder / "pixels.bin").write_bytes(b"".join(pixels.tobytes() for pixels in drawn))
    table = pd.DataFrame({"image": [f"image-{i:02d}.png" for i in range(count)], "mode": "RGB", "format": "PNG"})
    table = table.assign(extension=".png", patient=None, duplicate_group=None, split_paper=parts, split_clean=parts)
    table["label"], table["option"] = zip(*((card.classes[k].name, card.classes[k].option) for k in kinds), strict=True)
    table[["height", "width"]] = table[["stored_height", "stored_width"]] = sizes
    table["bytes"] = [pixels.size for pixels in drawn]
    table["offset"] = table["bytes"].cumsum() - table["bytes"]
    return ImageSet(card, table, hash_of(table.to_dict("records")), {}, folder)
