"""One way to train a model on (image, answer) pairs: Trainer, loss on the answer's tokens, logits only there."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from mlprobe_utils.encoding import Encoder
from mlprobe_utils.progress import Notes


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run needs besides model and data."""

    learning_rate: float
    epochs: int
    batch_size: int
    warmup_ratio: float
    weight_decay: float
    seed: int
    max_gradient_norm: float = 1.0
    precision: str = "float32"
    gradient_checkpointing: bool = False


class Examples(torch.utils.data.Dataset):
    """(image, answer) pairs; `image_at(i)` gives uint8 [height, width, 3] when it is needed, not before."""

    def __init__(self, image_at: Callable[[int], np.ndarray], positions: list[int], answers: list[str]):
        self.image_at, self.positions, self.answers = image_at, positions, answers

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[np.ndarray, str]:
        return self.image_at(self.positions[i]), self.answers[i]


class Progress(TrainerCallback):
    """A line a minute while training."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.notes, self.begin = Notes(), state.global_step  # a resumed run begins in the middle

    def on_step_end(self, args, state, control, **kwargs):
        self.notes.note(state.global_step - self.begin, state.max_steps - self.begin, "training step")


class AnswerTrainer(Trainer):
    """Trainer whose loss is the mean over the answers' tokens: no logits are computed anywhere else."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs, logits_to_keep=labels.shape[1] + 1)
        loss = cross_entropy(outputs.logits[:, :-1].flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        return (loss, outputs) if return_outputs else loss

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """A whole model is read as it was saved: Trainer looks for the model's own parameter names in the file.

        transformers saves Qwen2.5-VL under the hub's names, which are others; Trainer passes over what it does not
        find, and would go on from the weights of before with the optimizer of after. Adapters are not concerned.
        """
        if not isinstance(self.model, PreTrainedModel) or self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


def train(
    model: torch.nn.Module,
    encoder: Encoder,
    training: Examples,
    validation: Examples | None,
    settings: TrainingSettings,
    checkpoints: Path,
) -> pd.DataFrame:
    """Trains `model` in place with AdamW and a cosine schedule, and resumes from `checkpoints` after a kill.

    Returns:
        The learning curve, one row an epoch: epoch, training_loss, validation_loss (nan without validation images).
    """
    set_seed(settings.seed)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size * 4,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch",
        bf16=settings.precision == "bfloat16" and torch.accelerator.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        seed=settings.seed,
        data_seed=settings.seed,
        save_strategy="epoch",
        save_total_limit=1,
        eval_strategy="no" if validation is None else "epoch",
        prediction_loss_only=True,
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
        use_cpu=not torch.accelerator.is_available(),
    )
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation,
        data_collator=lambda rows: encoder.answered([image for image, _ in rows], [answer for _, answer in rows]),
        callbacks=[Progress()],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    model.eval()
    return _learning_curve(trainer.state.log_history)


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The last checkpoint that was written to its end; what a kill left half-written is removed."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / "trainer_state.json").is_file():  # Trainer writes it last
            shutil.rmtree(folder, ignore_errors=True)
    return get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None


def _learning_curve(history: list[dict]) -> pd.DataFrame:
    training = {round(row["epoch"]): row["loss"] for row in history if "loss" in row}
    validation = {round(row["epoch"]): row["eval_loss"] for row in history if "eval_loss" in row}
    return pd.DataFrame(
        {
            "epoch": sorted(training),
            "training_loss": [training[epoch] for epoch in sorted(training)],
            "validation_loss": [validation.get(epoch, float("nan")) for epoch in sorted(training)],
        }
    )
