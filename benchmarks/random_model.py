"""A random-weight model of Qwen2.5-VL's real class in a size worth timing, and images of several sizes for it."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import set_seed

from mlprobe_utils.families.registry import family_of
from mlprobe_utils.loading import LoadedModel
from mlprobe_utils.miniatures import making
from mlprobe_utils.miniatures.blueprints import INITIAL_DEVIATION
from mlprobe_utils.miniatures.recipe import Architecture, Tower


@dataclass(frozen=True)
class Size:
    """An architecture, and the images to show it: [height, width] in pixels, a token for every 28 x 28 of them."""

    architecture: Architecture
    images: tuple[tuple[int, int], ...]


SIZES = {
    "tiny": Size(
        Architecture(
            vision=Tower(depth=4, width=32, feed_forward=64, heads=2),
            llm=Tower(depth=3, width=32, feed_forward=64, heads=4, key_value_heads=2),
            patch_size=14,
            side=112,
            vocabulary=300,
        ),
        images=((112, 140), (56, 56), (84, 84), (140, 140)),
    ),
    "base": Size(
        Architecture(
            vision=Tower(depth=8, width=512, feed_forward=1408, heads=8),
            llm=Tower(depth=12, width=768, feed_forward=2048, heads=12, key_value_heads=4),
            patch_size=14,
            side=112,  # the real models' attention window
            vocabulary=2000,
        ),
        images=((336, 448), (224, 224), (392, 504), (512, 512)),
    ),
}


def random_model(size: str, precision: str, vocabulary: int | None = None) -> LoadedModel:
    """The model on the accelerator if there is one, ready to be probed or fine-tuned; the same weights every time.

    Args:
        vocabulary: rows of the embedding; the tokenizer's own number if not given.

    Raises:
        ValueError: the tokenizer has more tokens than `vocabulary`.
    """
    set_seed(0)
    model, processor = making.from_scratch("qwen2_5_vl", SIZES[size].architecture)
    if vocabulary is not None:
        if vocabulary < len(processor.tokenizer):
            raise ValueError(f"the tokenizer alone has {len(processor.tokenizer)} tokens, more than {vocabulary}")
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.02 / INITIAL_DEVIATION)  # a miniature's weights are wide, and this is none
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 512 * 512}
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    model = model.to(device, getattr(torch, precision)).eval()
    return LoadedModel(model, processor, family_of(model))


def random_images(size: str, count: int) -> list[np.ndarray]:
    """Noise, uint8 [height, width, 3], in the sizes in turn."""
    random, sizes = np.random.default_rng(0), SIZES[size].images
    return [random.integers(0, 256, (*sizes[i % len(sizes)], 3), dtype=np.uint8) for i in range(count)]


def describe(loaded: LoadedModel) -> str:
    """Class, parameters in millions, and where they are."""
    parts = {"vision": loaded.model.model.visual, "LLM": loaded.model.model.language_model.layers}
    counts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    counts["embedding, also the LM head"] = loaded.model.get_input_embeddings().weight.numel() / 1e6
    total = sum(p.numel() for p in loaded.model.parameters()) / 1e6
    of = ", ".join(f"{name} {count:.1f}" for name, count in counts.items())
    return f"{type(loaded.model).__name__}, {total:.1f} million parameters ({of}), {loaded.model.dtype}"
