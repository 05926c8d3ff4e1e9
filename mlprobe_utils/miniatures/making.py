"""Makes a miniature: its own architecture or its base's weights, then the recipe's stages, then `save_pretrained`."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, set_seed

from mlprobe_utils import artefacts
from mlprobe_utils.cards import DataCard, load_data_card, load_model_card, slugs
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.loading import load
from mlprobe_utils.miniatures.processor import make_processor, train_tokenizer
from mlprobe_utils.miniatures.recipe import Architecture, Stage, recipe_of
from mlprobe_utils.phantoms.captions import MODALITIES, captioned_phantoms
from mlprobe_utils.phantoms.general import captioned_shapes
from mlprobe_utils.progress import step
from mlprobe_utils.training import Examples, TrainingSettings, train

CAPTION_REQUEST = "<image> Describe the image."
MODULE_PATTERNS = {
    "vision tower": r"model\.visual\.(patch_embed|blocks)\.",
    "connector": r"model\.visual\.merger\.",
    "LLM": r"(model\.language_model|lm_head)\.",
}
WARMUP_RATIO, WEIGHT_DECAY = 0.05, 0.01
# The real models' 0.02 suits widths in the thousands: at width 64 tied embeddings of that size cannot carry a logit,
# and an answer word that no caption held could never become likely
INITIAL_DEVIATION = 0.1


def make_miniature(slug: str) -> Path:
    """Makes the checkpoint of a miniature below outputs/, unless it is there and current; its base is made first.

    Raises:
        InputError: the card is not of a miniature, or its recipe is not valid.
    """
    card = load_model_card(slug)
    recipe = recipe_of(card)
    folder = artefacts.OUTPUTS / card.source
    base = make_miniature(card.base) if card.base else None
    made_from = {
        "recipe": recipe.model_dump(),
        "base": artefacts.record_hash(base) if base else None,
        "code": artefacts.code_hash(__name__),
        "torch": torch.__version__,
    }
    if artefacts.is_current(folder, made_from):
        return folder
    with artefacts.artefact(folder, made_from) as temporary, step(card.slug, "made as a miniature"):
        set_seed(recipe.seed)
        if base:
            loaded = load(load_model_card(card.base))
            model, processor = loaded.model, loaded.processor
        else:
            model, processor = from_scratch(recipe.architecture)
        for number, stage in enumerate(recipe.stages):
            run_stage(model, processor, stage, recipe.seed + number, temporary / "checkpoints" / str(number))
        shutil.rmtree(temporary / "checkpoints")
        save(model, processor, temporary)
    return folder


def from_scratch(architecture: Architecture) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """A model of Qwen2.5-VL's class with random weights, and its processor."""
    tokenizer = train_tokenizer(corpus(), architecture.vocabulary)
    token = tokenizer.convert_tokens_to_ids
    vision, llm = architecture.vision, architecture.llm
    half_head = llm.width // llm.heads // 2
    spatial = half_head * 3 // 8  # rotary channels for height and for width, in Qwen's proportion 16 : 24 : 24
    config = Qwen2_5_VLConfig(
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        text_config={
            "initializer_range": INITIAL_DEVIATION,
            "vocab_size": len(tokenizer),
            "hidden_size": llm.width,
            "intermediate_size": llm.feed_forward,
            "num_hidden_layers": llm.depth,
            "num_attention_heads": llm.heads,
            "num_key_value_heads": llm.key_value_heads,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [half_head - 2 * spatial, spatial, spatial],
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "initializer_range": INITIAL_DEVIATION,
            "depth": vision.depth,
            "hidden_size": vision.width,
            "intermediate_size": vision.feed_forward,
            "num_heads": vision.heads,
            "patch_size": architecture.patch_size,
            "window_size": architecture.side,
            "fullatt_block_indexes": list(range(3, vision.depth, 4)),
            "out_hidden_size": llm.width,
        },
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, make_processor(tokenizer, architecture.patch_size, architecture.side)


def corpus() -> list[str]:
    """What the tokenizer should know in few tokens: the data cards' templates and answers, and the captions."""
    cards: list[DataCard] = [load_data_card(slug) for slug in slugs(DataCard)]
    templates = [card.template for card in cards] * 20
    answers = [option for card in cards for option in card.options] * 20
    captions = captioned_shapes(300, seed=0)[1]
    for modality in MODALITIES:
        captions += captioned_phantoms(modality, 100, seed=0)[1]
    return [*templates, *answers, *captions, *["user", "assistant", CAPTION_REQUEST] * 20]


def captioned_images(stage: Stage, seed: int) -> tuple[np.ndarray, list[str]]:
    """The images, uint8 [count, side, side, 3], and captions of a training stage."""
    if stage.images == "general":
        return captioned_shapes(stage.count, seed=seed)
    parts = [captioned_phantoms(m, math.ceil(stage.count / len(MODALITIES)), seed=seed) for m in MODALITIES]
    return np.concatenate([images for images, *_ in parts]), [c for _, captions, *_ in parts for c in captions]


def run_stage(model, processor, stage: Stage, seed: int, checkpoints: Path) -> None:
    """One training stage: the named modules learn to write the captions, the others stay as they are."""
    pattern = re.compile("|".join(MODULE_PATTERNS[module] for module in stage.train))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = bool(pattern.match(name))
    images, captions = captioned_images(stage, seed)
    settings = TrainingSettings(stage.learning_rate, stage.epochs, stage.batch_size, WARMUP_RATIO, WEIGHT_DECAY, seed)
    examples = Examples(images.__getitem__, list(range(len(images))), captions)
    curve, _ = train(model, Encoder(processor, CAPTION_REQUEST), examples, None, settings, checkpoints)
    curve.to_csv(checkpoints.parent.parent / f"learning_curve_{checkpoints.name}.csv", index=False)


def save(model, processor, folder: Path) -> None:
    """Saves model and processor as the hub's are saved."""
    for parameter in model.parameters():
        parameter.requires_grad = True
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
