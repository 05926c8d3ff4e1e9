"""The vision tower of a model as a classifier (paper section 5, Table 3): a linear layer on the mean of each image's
tokens at the tower's end, trained with all weights of the tower, or with LoRA beside its linear layers."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from peft import get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import set_seed

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import sharded
from mlprobe_utils.models.adapters import flags_kept
from mlprobe_utils.models.encoding import Encoder, Questions, joined
from mlprobe_utils.models.families.base import ProbePoint
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.training.fine_tuning import finish, lora_config, train_on
from mlprobe_utils.training.settings import FineTuning
from mlprobe_utils.training.trainer import AnswerTrainer


class _Reached(Exception):
    """Ends a pass where the vision tower ends; its argument holds the means there."""


def tower_end(loaded: LoadedModel) -> ProbePoint:
    """The last vision block that the connector's input depends on."""
    return [point for point in loaded.family.probe_points() if point.name.startswith("V")][-1]


def means_at_end(loaded: LoadedModel, inputs: dict) -> torch.Tensor:
    """Mean of each image's tokens where the vision tower ends, float32 [images, width], with its gradient."""
    end, pool = tower_end(loaded), loaded.family.poolers(inputs)["V/image_mean"]

    def leave(module, arguments, output):
        raise _Reached(pool(output[0] if isinstance(output, tuple) else output))

    hook = end.module.register_forward_hook(leave)
    try:
        loaded.model(**inputs, logits_to_keep=1, use_cache=False)
    except _Reached as reached:
        return reached.args[0]
    finally:
        hook.remove()
    raise RuntimeError(f"probe point {end.name}: its module was not called")


class VisionClassifier(nn.Module):
    """Logits, float32 [images, classes]. It has the trained parameters alone: for checkpoints, and DDP's gradients."""

    def __init__(self, loaded: LoadedModel, trained: Sequence[nn.Parameter], width: int, classes: int):
        super().__init__()
        self.loaded = loaded
        self.trained = nn.ParameterList(trained)
        self.head = nn.Linear(width, classes, device=loaded.device)

    def train(self, mode: bool = True) -> "VisionClassifier":
        for path in self.loaded.family.vision_tower:  # dropout, LoRA's too
            self.loaded.model.get_submodule(path).train(mode)
        return super().train(mode)

    def forward(self, **inputs) -> torch.Tensor:
        return self.head(means_at_end(self.loaded, inputs)).float()


class ClassTrainer(AnswerTrainer):
    """Trainer whose loss is cross-entropy on the class; its index is in place of an answer."""

    @staticmethod
    def encoded(encoder: Encoder, rows: list[tuple[dict[str, torch.Tensor], int | None]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([-100 if index is None else index for _, index in rows])
        return joined([question for question, _ in rows], encoder.tokenizer.pad_token_id) | {"labels": labels}

    @staticmethod
    def losses_of(model, labels: torch.Tensor, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_entropy(model(**inputs), labels, reduction="none"), (labels != -100).long()


def classify(
    loaded: LoadedModel,
    questions: Questions,
    images: pd.DataFrame,
    options: list[str],
    positions: Sequence[int],
    trained: str,
    recipe: FineTuning,
    run: int,
    batch_size: int,
    folder: Path,
) -> np.ndarray:
    """The options' probabilities, float64 [positions, options], after training `all` weights of the tower or `lora` by
    `recipe`. Arguments as for `train_adapter`; the model stays as it was. InputError under FSDP."""
    if sharded():
        mend = "it fits on one device, start these processes without --use_fsdp (DDP), or a single one"
        raise InputError(f"a vision tower alone is not trained under FSDP: {mend}")
    set_seed(run)
    recipe = recipe.model_copy(update={"gradient_checkpointing": False})  # a tower is small
    on_device = partial(send_to_device, device=loaded.device)  # a tower casts to its precision itself
    images = images.assign(option=images["option"].map(options.index))
    with _trainable(loaded, on_device(questions(positions[0])), trained, recipe) as (parameters, width):
        classifier = VisionClassifier(loaded, parameters, width, len(options))
        how = {"name": f"vision tower of {loaded.card.called}", "trainer_class": ClassTrainer}
        curve, _ = train_on(classifier, questions, images, recipe, run, folder, **how)
        finish(curve, folder)
        batches = [positions[first : first + batch_size] for first in range(0, len(positions), batch_size)]
        with torch.inference_mode():
            logits = [classifier(**on_device(questions.batch(batch))).cpu() for batch in batches]
        return torch.cat(logits).double().softmax(dim=1).numpy()


@contextlib.contextmanager
def _trainable(
    loaded: LoadedModel, sample: dict, trained: str, recipe: FineTuning
) -> Iterator[tuple[list[nn.Parameter], int]]:
    """The parameters to train, and the width at the tower's end; afterwards the model is bit for bit what it was."""
    model, adapted, kept = loaded.model, None, {}
    model.activation_checkpointing_disable()  # an earlier training in this process may have left it on
    with flags_kept(model):
        try:
            model.requires_grad_(True)
            means = means_at_end(loaded, sample)
            named = dict(model.named_parameters())
            gradients = torch.autograd.grad(means.sum(), [*named.values()], allow_unused=True)
            reached = {name: named[name] for name, own in zip(named, gradients, strict=True) if own is not None}
            model.requires_grad_(False)
            if trained == "lora":
                linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
                targets = [name for name in linear if f"{name}.weight" in reached]
                adapted = get_peft_model(model, lora_config(loaded, recipe, targets))
                learning = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
            else:
                learning = list(reached.values())
                places = loaded.family.vision_tower + loaded.family.connector  # a side path runs before the end
                run = {p for place in places for p in model.get_submodule(place).parameters()}
                kept = {parameter: parameter.detach().clone() for parameter in run.union(learning)}
                for parameter in kept:
                    parameter.data = parameter.data.float()  # steps this small would be lost in bfloat16
                for parameter in learning:
                    parameter.requires_grad_(True)
            yield learning, means.shape[1]
        finally:
            if adapted is not None:
                adapted.unload()
            for parameter, weights in kept.items():
                parameter.data, parameter.grad = weights, None
            model.eval()
