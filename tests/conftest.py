"""Fixtures that several test files share: an outputs folder, a random-weight model with its card, an image set."""

import mlprobe_utils  # isort: skip  (first: it makes torchvision importable beside a CPU torch)

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mlprobe_utils import artefacts
from mlprobe_utils.cards import FineTuning, ModelCard, load_data_card
from mlprobe_utils.datasets.manifest import ImageSet
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.loading import LoadedModel, load
from mlprobe_utils.miniatures import making
from mlprobe_utils.miniatures.recipe import Architecture, Tower

torch.set_num_threads(1)

ARCHITECTURE = Architecture(
    vision=Tower(depth=4, width=32, feed_forward=64, heads=2),
    llm=Tower(depth=3, width=32, feed_forward=64, heads=4, key_value_heads=2),
    patch_size=16,
    side=64,  # also the side of an attention window: larger images have several, and their tokens are permuted
    vocabulary=300,
)
SIZES = ((64, 64), (128, 96), (32, 64), (96, 160))  # height, width; 4, 12, 2 and 15 image tokens
RECIPE = FineTuning(
    rank=2,
    alpha=8,
    dropout=0.0,
    vision_tower="lora",
    learning_rate=0.01,
    weight_decay=0.01,
    warmup_ratio=0.05,
    epochs=2,
    batch_size=4,
    runs=1,
    precision="float32",
    gradient_checkpointing=False,
)


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder of the test's own."""
    folder = tmp_path / "outputs"
    monkeypatch.setattr(artefacts, "OUTPUTS", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A saved checkpoint of Qwen2.5-VL's class: random weights, 4 vision blocks, 3 decoder layers, images of any size."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        # "Benign" and "Yes" are one token each, "Malignant" is several
        patch.setattr(making, "corpus", lambda: [load_data_card("chest-xray").template, "Benign Normal"] * 9)
        model, processor = making.from_scratch(ARCHITECTURE)
    for parameter in model.parameters():  # no bias is exactly zero and no norm exactly one, as after training
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.1)
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    making.save(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_card(tiny_folder) -> ModelCard:
    return ModelCard(slug="tiny", name="tiny", source=str(tiny_folder))


@pytest.fixture
def tiny(tiny_card) -> LoadedModel:
    """The tiny model, freshly loaded: a test may change it."""
    return load(tiny_card)


@pytest.fixture(scope="session")
def image_set(tmp_path_factory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"))


@pytest.fixture
def encoder(tiny, image_set) -> Encoder:
    return Encoder(tiny.processor, image_set.card.template)


def make_image_set(folder: Path, count: int = 12, dataset: str = "busi") -> ImageSet:
    """An image set of noise in four sizes; the class sets the brightness, 8 images train, 2 validate, 2 test."""
    card = load_data_card(dataset)
    rng = np.random.default_rng(0)
    rows, offset = [], 0
    with open(folder / "pixels.bin", "wb") as file:
        for i in range(count):
            height, width = SIZES[i % len(SIZES)]
            kind = i % len(card.classes)
            pixels = rng.integers(kind * 60, kind * 60 + 90, (height, width, 3), dtype=np.uint8)
            file.write(pixels.tobytes())
            part = "train" if i < count - 4 else "validation" if i < count - 2 else "test"
            rows.append(
                {
                    "image": f"image-{i:02d}.png",
                    "label": card.classes[kind].name,
                    "option": card.classes[kind].option,
                    "split_paper": part,
                    "split_clean": part,
                    "offset": offset,
                    "stored_height": height,
                    "stored_width": width,
                }
            )
            offset += pixels.size
    return ImageSet(card, pd.DataFrame(rows), artefacts.hash_of(rows), {}, folder)
