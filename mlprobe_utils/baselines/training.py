"""Training a baseline on one data set; after every epoch it is asked about the validation and the test images."""

import io
from collections.abc import Sequence
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import torch
from scipy.special import softmax
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torchvision.transforms import v2
from transformers import EvalPrediction, Trainer
from transformers.trainer_callback import PrinterCallback

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.pipeline.cards import Baselines
from mlprobe_utils.training.trainer import Progress, TrainingSettings, last_whole_checkpoint, training_arguments


def train(model: nn.Module, image_set: ImageSet, split: str, recipe: Baselines, run: int, folder: Path) -> np.ndarray:
    """Trains a network in place on the train images of a split, from first epoch to last, and resumes after a kill.

    Whatever is chosen later is chosen from what comes back, by the names of the parts: here nothing is.

    Args:
        run: the seed of the images' order and augmentation.
        folder: of this training alone: its last checkpoint, and what was said after each epoch.

    Returns:
        Probabilities of the options after each epoch, float [epochs, images, options]: of the validation images, then
        of the test images, each in the order of the manifest.

    Raises:
        InputError: fewer train images than a batch; processes that cannot share one.
    """
    training = Pictures(image_set, image_set.part(split, "train").index, _augmented(recipe))
    if len(training) < recipe.batch_size:
        raise InputError(
            f"'{image_set.card.slug}', split '{split}': {len(training)} train images are no batch of "
            f"{recipe.batch_size}: lower baselines.batch_size in the protocol"
        )
    asked = [place for part in ("validation", "test") for place in image_set.part(split, part).index]

    def said(epoch: int) -> Path:
        return folder / f"epoch-{epoch}.npy"

    def keep(evaluated: EvalPrediction) -> dict[str, float]:
        written = io.BytesIO()
        np.save(written, softmax(evaluated.predictions.astype(float), axis=1))
        if processes().is_main_process:  # before the epoch's checkpoint is written: no later start lacks it
            atomic_write(said(round(trainer.state.epoch)), written.getvalue())
        return {}

    settings = TrainingSettings(
        learning_rate=recipe.learning_rate,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        warmup_ratio=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        seed=run,
        max_gradient_norm=recipe.max_gradient_norm,
    )
    trainer = ClassificationTrainer(
        model=model,
        args=training_arguments(settings, folder, eval_strategy="epoch"),
        train_dataset=training,
        eval_dataset=Pictures(image_set, asked, _plain(recipe)),
        data_collator=batch,
        compute_metrics=keep,
        callbacks=[Progress()],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    processes().wait_for_everyone()
    return np.stack([np.load(said(epoch)) for epoch in range(1, recipe.epochs + 1)])


class Pictures(torch.utils.data.Dataset):
    """(image, place of its option) of some rows of an image set's manifest, each image drawn anew by a transform."""

    def __init__(self, image_set: ImageSet, positions: Sequence[int], transform: v2.Transform):
        options = image_set.manifest.loc[list(positions), "option"]
        self.image_set, self.positions, self.transform = image_set, list(positions), transform
        self.labels = options.map(image_set.card.options.index).tolist()

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self.image_set.pixels(self.positions[i])).permute(2, 0, 1)
        return self.transform(pixels), self.labels[i]


class ClassificationTrainer(Trainer):
    """Trainer for networks that map images to logits: cross-entropy, and evaluations that give logits back."""

    def _get_train_sampler(self, train_dataset=None):
        """Whole batches, in random order: a last one of a single image has no variance to normalise it by."""
        dataset, size = train_dataset or self.train_dataset, self.args.train_batch_size * self.args.world_size
        return RandomSampler(dataset, num_samples=len(dataset) // size * size)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(inputs["images"])
        loss = cross_entropy(logits, inputs["labels"])
        return (loss, logits) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return None, model(inputs["images"]), inputs["labels"]


def batch(rows: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """Images float32 [batch, 3, side, side], normalised as ImageNet's are, and labels int [batch]."""
    mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    images = torch.stack([image for image, _ in rows]).float() / 255
    return {"images": (images - mean) / spread, "labels": torch.tensor([label for _, label in rows])}


def _augmented(recipe: Baselines) -> v2.Transform:
    """A training image: a piece of it at random, enlarged to the side and perhaps mirrored."""
    side = (recipe.side, recipe.side)
    crop = v2.RandomResizedCrop(side, scale=(recipe.crop_from, 1.0), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(recipe.flip)])


def _plain(recipe: Baselines) -> v2.Transform:
    """An image to be asked about: all of it, or the middle of what it is first reduced to."""
    side = (recipe.side, recipe.side)
    if recipe.shorter_side is None:
        return v2.Resize(side, antialias=True)
    return v2.Compose([v2.Resize(recipe.shorter_side, antialias=True), v2.CenterCrop(side)])
