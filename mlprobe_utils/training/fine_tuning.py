"""LoRA fine-tuning on one data set (paper section 3.2), and putting an adapter on and off a loaded model."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.models.encoding import Questions
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.training.settings import FineTuning
from mlprobe_utils.training.trainer import Examples, TrainingSettings, answered, train


def fine_tune(
    loaded: LoadedModel,
    questions: Questions,
    image_set: ImageSet,
    split: str,
    recipe: FineTuning,
    run: int,
    folder: Path,
) -> None:
    """Trains an adapter on the split's train images and leaves it and its learning curve in `folder`.

    Under FSDP the model is spread over the processes afterwards, and has to be loaded again for anything else.

    Args:
        questions: about the images of `image_set`.
        run: the seed of LoRA's initialisation and of the order of the images.
        folder: where checkpoints are kept while training (an interrupted run goes on from them) and the adapter after.
    """
    set_seed(run)
    adapted = get_peft_model(loaded.model, lora_config(loaded, recipe))
    settings = settings_of(recipe, run)
    checkpoints = folder / "checkpoints"
    try:
        training = examples(questions, image_set, split, "train", recipe.length_grouped)
        validation = examples(questions, image_set, split, "validation")
        curve, weights = train(adapted, questions.encoder, training, validation, settings, checkpoints, answered)
        if processes().is_main_process:
            adapted.save_pretrained(folder, state_dict=weights)
            write_parquet(curve, folder / "learning_curve.parquet")
            shutil.rmtree(checkpoints)
    finally:
        if not sharded():
            adapted.unload()


def settings_of(recipe: FineTuning, run: int) -> TrainingSettings:
    """What a training run is told of the recipe; `run` is its seed."""
    return TrainingSettings(
        learning_rate=recipe.learning_rate,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        warmup_ratio=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        seed=run,
        max_gradient_norm=recipe.max_gradient_norm,
        precision=recipe.precision,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )


def examples(
    questions: Questions, image_set: ImageSet, split: str, part: str, length_grouped: bool = False
) -> Examples:
    """The questions about a part of a split, with their answers.

    Grouped by length, images of similar size share a batch.
    """
    rows = image_set.part(split, part)
    lengths = (rows["stored_height"] * rows["stored_width"]).tolist() if length_grouped else None
    return Examples(questions, list(rows.index), list(rows["option"]), lengths)


def lora_config(loaded: LoadedModel, recipe: FineTuning) -> LoraConfig:
    """LoRA on every linear layer that the output depends on, or on all of these but the vision tower's."""
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        exclude_modules=loaded.family.not_adapted(recipe.vision_tower == "frozen"),
    )


@contextlib.contextmanager
def adapter(loaded: LoadedModel, folder: Path | None) -> Iterator[None]:
    """While it lasts, `loaded.model` works with the adapter in `folder` (None: as it was pretrained)."""
    if folder is None:
        yield
        return
    adapted = PeftModel.from_pretrained(loaded.model, folder).eval()
    try:
        yield
    finally:
        adapted.unload()
