"""Makes a miniature: its own architecture or its base's weights, then the recipe's stages, then `save_pretrained`."""

import functools
import re
import shutil
from pathlib import Path
from typing import get_args

import mlprobe_utils.models.compat

import torch
from transformers import PreTrainedModel, ProcessorMixin, set_seed

from mlprobe_utils.models.families.base import below
from mlprobe_utils.models.families.hulu_med import HuluMed
from mlprobe_utils.models.families.registry import family_by_name, family_of
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, load_model_card, slugs
from mlprobe_utils.pipeline.lineage import miniature
from mlprobe_utils.synthetic.miniatures.blueprints import INITIAL_DEVIATION, blueprint
from mlprobe_utils.synthetic.miniatures.conversations import ConversationEncoder, Conversations, conversations, drawn_of
from mlprobe_utils.synthetic.miniatures.hub_form import save_hulu_med
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Stage, Text, architecture_of, recipe_of
from mlprobe_utils.synthetic.miniatures.rejection_sampling import right_answers
from mlprobe_utils.synthetic.phantoms.captions import MODALITIES
from mlprobe_utils.training.trainer import Examples, TrainingSettings, train

WARMUP_RATIO, WEIGHT_DECAY = 0.05, 0.01


def make_miniature(slug: str) -> Path:
    """Makes the checkpoint of a miniature below outputs/, unless it is there and current; its base is made first.

    Raises:
        InputError: the card is not of a miniature, or its recipe is not valid.
    """
    card = load_model_card(slug)
    recipe = recipe_of(card)
    if card.base:
        make_miniature(card.base)
    if (own := miniature(card)).is_current():
        return own.folder
    with own.making() as temporary:
        set_seed(recipe.seed)
        if card.base:
            loaded = load(load_model_card(card.base))
            model, processor = loaded.model, loaded.processor
        else:
            model, processor = from_scratch(card.family, recipe.architecture)
        side = architecture_of(card).side
        for number, stage in enumerate(recipe.stages):
            checkpoints = temporary / "checkpoints" / str(number)
            taught = conversations(stage, number, side)  # the same for all miniatures, so that it is drawn once
            run_stage(model, processor, stage, taught, recipe.seed + number, checkpoints)
        shutil.rmtree(temporary / "checkpoints", ignore_errors=True)  # random weights have none
        save(model, processor, temporary)
    return own.folder


def from_scratch(family: str, architecture: Architecture) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model of a family's class with random weights, and its processor.

    Args:
        family: name of a module of `mlprobe_utils.models.families`.
    """
    config, processor = blueprint(family, architecture, corpus(architecture.side))
    model = family_by_name(family).transformers_class()(config)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # Gemma 3's projection: nothing of the image would get through
            torch.nn.init.normal_(parameter, std=INITIAL_DEVIATION)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


@functools.cache
def corpus(side: int) -> list[str]:
    """What the tokenizer should know in few tokens: the data cards' questions and answers, and all that is taught."""
    cards: list[DataCard] = [load_data_card(slug) for slug in slugs(DataCard)]
    asked = [text for card in cards for text in (card.template, *card.options)]
    drawn = [part for text in get_args(Text) for part in drawn_of(text, MODALITIES, 200, seed=0, side=side)]
    taught = [text for part in drawn for turn in part.turns() for text in turn]
    return [*(asked * 20), *(["user", "assistant"] * 20), *taught]


def run_stage(model, processor, stage: Stage, taught: Conversations, seed: int, checkpoints: Path) -> None:
    """One training stage: the named modules learn to write the answers, the others stay as they are."""
    parts = family_of(model).parts()
    learning = below([path for module in stage.train for path in parts[module]])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = bool(re.fullmatch(learning, name))
    encoder = ConversationEncoder(processor)
    if stage.samples:
        taught = right_answers(model, encoder, taught, stage.samples, seed)
    settings = TrainingSettings(stage.learning_rate, stage.epochs, stage.batch_size, WARMUP_RATIO, WEIGHT_DECAY, seed)
    examples = Examples(taught.image, list(range(len(taught))), taught.turns())
    curve, _ = train(model, encoder, examples, None, settings, checkpoints)
    curve = curve.assign(conversations=len(taught))
    curve.to_csv(checkpoints.parent.parent / f"learning_curve_{checkpoints.name}.csv", index=False)


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Saves model and processor as the hub's are saved."""
    for parameter in model.parameters():
        parameter.requires_grad = True
    if isinstance(family_of(model), HuluMed):
        return save_hulu_med(model, processor, folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
