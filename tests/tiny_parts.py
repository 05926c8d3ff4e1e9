"""A tiny architecture, recipe and image set, for the tests of everything that needs a model."""

from pathlib import Path

import numpy as np
import pandas as pd

from mlprobe_utils import artefacts
from mlprobe_utils.cards import FineTuning, load_data_card
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.miniatures.recipe import Architecture, Tower

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
    max_gradient_norm=1.0,
    epochs=2,
    batch_size=4,
    length_grouped=False,
    runs=1,
    precision="float32",
    gradient_checkpointing=False,
)


def make_image_set(
    folder: Path, count: int = 12, dataset: str = "busi", validation: int = 2, test: int = 2
) -> ImageSet:
    """An image set of noise in four sizes; the class sets the brightness, the last images validate and test."""
    card = load_data_card(dataset)
    rng = np.random.default_rng(0)
    rows, offset = [], 0
    with open(folder / "pixels.bin", "wb") as file:
        for i in range(count):
            height, width = SIZES[i % len(SIZES)]
            kind = i % len(card.classes)
            pixels = rng.integers(kind * 60, kind * 60 + 90, (height, width, 3), dtype=np.uint8)
            file.write(pixels.tobytes())
            part = "train" if i < count - test - validation else "validation" if i < count - test else "test"
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
