"""Random-weight models of the real classes in sizes worth timing, and images of several sizes for them."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import Gemma3ImageProcessor, Gemma3Processor, PreTrainedConfig, ProcessorMixin, set_seed

from mlprobe_utils.models.families import family_named, family_of, name_of
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.pipeline.published import published_config
from mlprobe_utils.synthetic.miniatures import making
from mlprobe_utils.synthetic.miniatures.blueprints import INITIAL_DEVIATION, blueprint
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Tower


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


SMALL_TOWERS = SIZES["tiny"].architecture  # only its patches of 14 pixels and its vocabulary count


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


def full_size(architecture: str, precision: str) -> LoadedModel:
    """A full-size model with random weights, made on the accelerator, with the small tokenizer of a miniature.

    Args:
        architecture: a file in data/architectures.
    """
    set_seed(0)
    published = published_config(architecture)
    family = family_named(published["architectures"])
    config = family.config_of(published)
    small, processor = blueprint(name_of(family), SMALL_TOWERS, making.corpus(SMALL_TOWERS.side))
    for name in ("image", "video", "vision_start", "vision_end", "boi", "eoi"):
        if hasattr(config, f"{name}_token_id"):
            setattr(config, f"{name}_token_id", getattr(small, f"{name}_token_id"))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    with torch.device(device):
        model = family.transformers_class()._from_config(config, dtype=getattr(torch, precision))
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # as in `making.from_scratch`
            torch.nn.init.normal_(parameter, std=0.02)
    return LoadedModel(model.eval(), fitted(processor, config), family(model))


def fitted(processor: ProcessorMixin, config: PreTrainedConfig) -> ProcessorMixin:
    """The processor with the full-size model's images: of one size, or of any up to 512 x 512 pixels."""
    if isinstance(processor, Gemma3Processor):
        side = config.vision_config.image_size
        images = Gemma3ImageProcessor(size={"height": side, "width": side})
        return Gemma3Processor(images, processor.tokenizer, processor.chat_template, config.mm_tokens_per_image)
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 512 * 512}
    return processor


def random_images(size: str, count: int, each: int = 1) -> list[np.ndarray]:
    """Noise, uint8 [height, width, 3], in the sizes in turn, so many of `each`."""
    random, sizes = np.random.default_rng(0), SIZES[size].images
    return [random.integers(0, 256, (*sizes[i // each % len(sizes)], 3), dtype=np.uint8) for i in range(count)]


def describe(loaded: LoadedModel) -> str:
    """Class, parameters in millions, and where they are."""
    parts = {"vision": loaded.model.model.visual, "LLM": loaded.model.model.language_model.layers}
    counts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    counts["embedding, also the LM head"] = loaded.model.get_input_embeddings().weight.numel() / 1e6
    total = sum(p.numel() for p in loaded.model.parameters()) / 1e6
    of = ", ".join(f"{name} {count:.1f}" for name, count in counts.items())
    return f"{type(loaded.model).__name__}, {total:.1f} million parameters ({of}), {loaded.model.dtype}"
