"""Training on (image, answer) pairs by Trainer, with the same result in one process or several (DDP, FSDP)."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import FILES, damage, inventory, read_record, write_record
from mlprobe_utils.common.processes import processes, sharded, share_of
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.models.encoding import Encoder


@dataclass(frozen=True)
class TrainingSettings:
    learning_rate: float
    epochs: int
    batch_size: int  # of all processes together
    warmup_ratio: float
    weight_decay: float
    seed: int
    max_gradient_norm: float = 1.0
    precision: str = "float32"
    gradient_checkpointing: bool = False


@dataclass(eq=False)
class Examples(torch.utils.data.Dataset):
    """(image, answer) pairs; `image_at(position)` gives an image, uint8 [height, width, 3], or what is encoded of it. A
    batch holds examples of similar `lengths`. Of classifiers, answers are the places of the options."""

    image_at: Callable[[int], np.ndarray | torch.Tensor | dict[str, torch.Tensor]]
    positions: list[int]
    answers: list[str] | list[int]
    lengths: list[int] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[Any, str | int | None]:
        """Image and answer; ~i is example i without its answer, to complete a batch."""
        return (self.image_at(self.positions[i]), self.answers[i]) if i >= 0 else (self[~i][0], None)


class EpochSampler(LengthGroupedSampler):
    """An order that seed and epoch alone decide. Examples without answers (~i) complete a shared batch."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, shared: bool = False):
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.missing = seed, -len(lengths) % batch_size if shared else 0
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.lengths) + self.missing

    def __iter__(self) -> Iterator[int]:
        order = list(super().__iter__())
        yield from order
        yield from (~i for i in itertools.islice(itertools.cycle(order), self.missing))

    def set_epoch(self, epoch: int) -> None:
        self.generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)


class Watched(TrainerCallback):
    """A line per minute in training, and its end at a step whose weights are not finite: Trainer would go on."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.notes, self.begin = Notes(), state.global_step  # a resumed run begins in the middle

    def on_save(self, args, state, control, **kwargs):
        """A checkpoint counts once its files are listed, with what evaluations have left beside it."""
        processes().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            last = folder / f"checkpoint-{state.global_step}"
            write_record(last / FILES, inventory(last, *last.rglob("*"), *folder.iterdir()))

    def on_step_end(self, args, state, control, **kwargs):
        if not torch.nn.utils.get_total_norm(self.trained).isfinite():
            step = f"{self.name}, run {args.seed}: step {state.global_step} of {state.max_steps}"
            mend = f"lower the learning rate ({args.learning_rate:g}), or train in float32"
            raise InputError(f"{step} left weights that are not finite (nan or infinite), and none are kept: {mend}")
        if state.is_world_process_zero:
            self.notes.note(state.global_step - self.begin, state.max_steps - self.begin, "training step")


class OneDevice(TrainingArguments):
    """A process uses its own device: Trainer would spread its batch over all, which is another recipe."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


class AnswerTrainer(Trainer):
    """The loss is the mean over the answers' tokens of a step; other tasks override `encoded` and `losses_of`."""

    trains = False  # whether every module has been set to training since the beginning, or the last evaluation

    @staticmethod
    def encoded(encoder: Encoder, rows: list[tuple[np.ndarray | dict, str | None]]) -> dict[str, torch.Tensor]:
        """Model inputs and labels of examples; -100 is no label, all that an example without answer has."""
        images, answers = zip(*rows, strict=True)
        inputs = encoder.answered([*images], [answer or "" for answer in answers])
        inputs["labels"][[answer is None for answer in answers]] = -100
        return inputs

    def get_train_dataloader(self) -> DataLoader:
        size, processes = self.args.train_batch_size, self.args.world_size
        lengths = self.train_dataset.lengths or [1] * len(self.train_dataset)
        sampler = EpochSampler(size * processes, lengths, self.args.seed, processes > 1)
        options = {"collate_fn": self.data_collator, "pin_memory": self.args.dataloader_pin_memory}
        return self.accelerator.prepare(DataLoader(self.train_dataset, size, sampler=sampler, **options))

    def evaluate(self, *arguments, **named):
        self.trains = False
        return super().evaluate(*arguments, **named)

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Trainer sets every module to training at every step; here, only after an evaluation."""
        if not self.trains:
            model.train()
            self.trains = True
        loss = self.compute_loss(model, inputs)
        self.accelerator.backward(loss)
        return loss.detach()

    @staticmethod
    def losses_of(model, labels: torch.Tensor, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Each image's summed cross-entropy, float32 [images] in nats, and number of tokens, int [images]."""
        # use_cache: Trainer's setting does not reach the LLM
        logits = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return losses.sum(dim=1), (labels != -100).sum(dim=1)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses, tokens = self.losses_of(model, **inputs)
        # processes have different numbers of tokens, but gradients are averaged over processes
        mean_tokens = self.accelerator.reduce(tokens.sum().float(), reduction="mean")
        return losses.sum() / mean_tokens

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Summed loss and number of tokens of each image, gathered without the sampler's padding."""
        return None, *self.losses_of(model, **inputs)

    def floating_point_ops(self, inputs) -> int:
        return 0  # counting takes a pass over all parameters at every step


def train(
    model: torch.nn.Module,
    encoder: Encoder,
    training: Examples,
    validation: Examples | None,
    settings: TrainingSettings,
    checkpoints: Path,
    name: str = "a model",
    trainer_class: type[AnswerTrainer] = AnswerTrainer,
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Trains `model` in place with AdamW and a cosine schedule; resumes from `checkpoints`. Returns the learning curve:
    epoch, training_loss, validation_loss (nats per answer token; nan without validation images); and the weights, under
    FSDP whole in the main process. InputError, with `name`, for a batch that cannot be shared, or nan."""

    def mean_loss(evaluated: EvalPrediction) -> dict[str, float]:
        return {"loss": float(np.sum(evaluated.predictions, dtype=float) / np.sum(evaluated.label_ids))}

    set_seed(settings.seed)
    trainer = trainer_class(
        model=model,
        args=training_arguments(settings, checkpoints, eval_strategy="no" if validation is None else "epoch"),
        train_dataset=training,
        eval_dataset=validation,
        data_collator=partial(trainer_class.encoded, encoder),
        compute_metrics=mean_loss,
        callbacks=[Watched(name)],
    )
    trainer.pop_callback(PrinterCallback)
    last = last_checkpoint(checkpoints)
    if last and isinstance(model, PreTrainedModel) and not sharded():
        # read as it was saved: Trainer ignores weights under the hub's names, as Qwen2.5-VL's
        model.load_state_dict(type(model).from_pretrained(last, dtype=model.dtype).state_dict())
    trainer.train(resume_from_checkpoint=last)
    model.eval()
    logged = pd.DataFrame(trainer.state.log_history, columns=["epoch", "loss", "eval_loss"], dtype=float)
    curve = logged.groupby(logged.pop("epoch").round().astype(int)).last().reset_index()
    curve.columns = ["epoch", "training_loss", "validation_loss"]
    return curve, trainer.accelerator.get_state_dict(trainer.model_wrapped)


def training_arguments(settings: TrainingSettings, folder: Path, **more) -> TrainingArguments:
    """Trainer's arguments, `more` added or replaced: checkpoints in `folder` and a log an epoch, nothing printed."""
    accelerated, share = torch.accelerator.is_available(), share_of(settings.batch_size)
    sizes = {"per_device_train_batch_size": share, "per_device_eval_batch_size": share * 4}
    optimiser = {"optim": "adamw_torch_fused", "learning_rate": settings.learning_rate}
    optimiser |= {"weight_decay": settings.weight_decay, "max_grad_norm": settings.max_gradient_norm}
    schedule = {"lr_scheduler_type": "cosine", "warmup_steps": settings.warmup_ratio}
    schedule |= {"num_train_epochs": settings.epochs, "seed": settings.seed, "data_seed": settings.seed}
    saving, memory = settings.gradient_checkpointing, {"bf16": settings.precision == "bfloat16" and accelerated}
    memory |= {"activation_checkpointing": saving, "dataloader_pin_memory": accelerated, "use_cpu": not accelerated}
    memory["activation_checkpointing_kwargs"] = {"use_reentrant": False} if saving else None
    kept = {"output_dir": str(folder), "save_strategy": "epoch", "save_total_limit": 2, "logging_strategy": "epoch"}
    quiet = {"report_to": [], "disable_tqdm": True, "log_level": "error", "remove_unused_columns": False}
    return OneDevice(**sizes | optimiser | schedule | memory | kept | quiet | more)


def last_checkpoint(checkpoints: Path) -> str | None:
    """The last whole checkpoint; what a kill left half-written, or was damaged since, is removed."""
    if processes().is_main_process:
        for folder in checkpoints.glob("checkpoint-*"):
            if damage(folder, read_record(folder / FILES)):
                shutil.rmtree(folder, ignore_errors=True)
    processes().wait_for_everyone()
    return get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None
