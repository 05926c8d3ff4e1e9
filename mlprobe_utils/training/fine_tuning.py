"""LoRA fine-tuning on one data set (paper section 3.2)."""

import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from mlprobe_utils.models.compat import quiet

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import set_seed

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import claimed, hash_of, write_parquet
from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.common.settings import paper
from mlprobe_utils.datasets.own_images import Images
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.models.adapters import flags_kept
from mlprobe_utils.models.encoding import Questions, questions_about
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.probing.extraction import made_of
from mlprobe_utils.training.settings import FineTuning
from mlprobe_utils.training.trainer import Examples, TrainingSettings, train

CURVE, CHECKPOINTS = "learning_curve.parquet", "checkpoints"  # the former is written when the adapter stands


def fine_tune(
    model: LoadedModel, images: Images, question: Question, folder: str | Path, *, seed: int = 0, **changed
) -> LoadedModel:
    """Trains a LoRA adapter on the training images, with the paper's settings, and returns the model with it.

    >>> tuned = mp.fine_tune(model, images, question, "adapter", epochs=1, learning_rate=0.003)
    >>> again = mp.load(checkpoint, adapter="adapter")

    An interrupted training continues from the last epoch; a finished one is not repeated. The weights of `model` are
    shared and not changed. `folder` gets the adapter (as peft saves it) and `learning_curve.parquet` (epoch,
    training_loss and validation_loss, nats per answer token).

    Args:
        seed: of the adapter's initial weights and of the order of the images.
        changed: fields of `training.settings.FineTuning`; others are as in the protocol `paper`, and `precision` is
            the model's own.

    InputError for a label without an answer or an answer without label, an unknown field, a folder with an adapter of
    other inputs, and a model that has an adapter."""
    if model.adapter is not None:
        raise InputError(f"the model has the adapter {model.adapter}: fine-tune its base, or merge it into the model")
    if not images.rows("train").size:
        raise InputError("no image has a label: give image_list the labels")
    question.check_labels(images.table["label"].dropna())
    recipe = paper(FineTuning, "fine_tuning", **{"precision": str(model.model.dtype).removeprefix("torch.")} | changed)
    rows = pd.DataFrame({"split": images.table["split"], "option": images.table["label"].map(dict(question.options))})
    rows["stored_height"], rows["stored_width"] = zip(*images.sizes, strict=True)
    recorded = {"labels": hash_of(rows.to_dict("list")), "recipe": recipe.model_dump(), "seed": seed}
    with claimed(folder, made_of(model, question, images) | recorded) as kept:
        if not (kept / CURVE).is_file():
            with quiet(), flags_kept(model.model):
                train_adapter(model, questions_about(model, question, images), rows, recipe, seed, kept)
    return replace(model, adapter=kept)


def train_adapter(
    loaded: LoadedModel, questions: Questions, images: pd.DataFrame, recipe: FineTuning, run: int, folder: Path
) -> None:
    """Trains an adapter on the train images; leaves it and its learning curve in `folder`. `images` has split, option,
    stored_height, stored_width, index: position in `questions`; `run` is the seed. FSDP leaves the model sharded."""
    set_seed(run)
    adapted = get_peft_model(loaded.model, lora_config(loaded, recipe))
    try:
        curve, weights = train_on(adapted, questions, images, recipe, run, folder, name=loaded.card.called)
        if processes().is_main_process:
            adapted.save_pretrained(folder, state_dict=weights)
        finish(curve, folder)
    finally:
        if not sharded():
            adapted.unload()


def train_on(
    model: nn.Module, questions: Questions, images: pd.DataFrame, recipe: FineTuning, run: int, folder: Path, **how
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """As `trainer.train`, on the train images of `train_adapter`, with the loss on those of validation."""

    def examples(rows: pd.DataFrame) -> Examples:
        return Examples(questions, [*rows.index], [*rows["option"]])

    training = examples(rows := images[images["split"] == "train"])
    validation = examples(images[images["split"] == "validation"])
    if recipe.length_grouped:  # similar sizes share a batch
        training.lengths = (rows["stored_height"] * rows["stored_width"]).tolist()
    return train(model, questions.encoder, training, validation, settings_of(recipe, run), folder / CHECKPOINTS, **how)


def finish(curve: pd.DataFrame, folder: Path) -> None:
    """Leaves the learning curve in the folder of a training, and no checkpoints."""
    if processes().is_main_process:
        write_parquet(curve, folder / CURVE)
        shutil.rmtree(folder / CHECKPOINTS)


def settings_of(recipe: FineTuning, run: int) -> TrainingSettings:
    shared = {own.name: getattr(recipe, own.name) for own in fields(TrainingSettings) if own.name != "seed"}
    return TrainingSettings(**shared, seed=run)


def lora_config(loaded: LoadedModel, recipe: FineTuning, modules: Sequence[str] | None = None) -> LoraConfig:
    """LoRA on these linear layers; else on all that the output depends on, but not in a vision tower that is frozen."""
    left_out = None if modules else loaded.family.not_adapted(recipe.vision_tower == "frozen")
    where = {"target_modules": modules or "all-linear", "exclude_modules": left_out}
    return LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, **where)
