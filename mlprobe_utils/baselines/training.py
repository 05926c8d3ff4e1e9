"""Trains traditional classifiers, and keeps their predictions after every epoch: the command `baselines`."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import EvalPrediction, Trainer, set_seed
from transformers.trainer_callback import PrinterCallback

from mlprobe_utils.baselines.networks import build
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.rows import image_rows, write_rows
from mlprobe_utils.pipeline.baseline_card import EPOCHS, NETWORK, STEP, BaselineCard, baseline_artefact, load_baseline
from mlprobe_utils.pipeline.cards import Baselines, Protocol, load_protocol
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.work import make
from mlprobe_utils.training.trainer import Examples, TrainingSettings, Watched, last_checkpoint, training_arguments

EVALUATED = ("validation", "test")
FROM_RECIPE = ("learning_rate", "epochs", "batch_size", "warmup_ratio", "weight_decay", "max_gradient_norm")


def run_baselines(baselines: list[str], datasets: list[str], protocol: str, split_rule: str) -> None:
    """Makes every baseline's artefact on each data set where it is missing or stale; errors as `build` and `train`."""
    recipes = load_protocol(protocol)
    for card in map(load_baseline, baselines):
        for dataset in datasets:
            with step(card.slug, dataset, STEP):
                make_epochs(card, recipes, load_image_set(dataset, protocol), split_rule)


def make_epochs(card: BaselineCard, protocol: Protocol, image_set: ImageSet, split_rule: str) -> None:
    """Writes the rows of all runs after every epoch (EPOCHS), and how large the network is (NETWORK)."""
    recipe, options = protocol.baselines, image_set.card.options

    def fill(folder: Path) -> None:
        images = pd.concat([image_set.rows_of(split_rule, split).assign(split=split) for split in EVALUATED])
        frames, trainings = [], folder / "trainings"
        for run in range(recipe.runs):
            set_seed(run)
            model = build(card, recipe.variant, len(options), recipe.side, recipe.pretrained)
            epochs = train(model, image_set, split_rule, recipe, run, trainings / str(run), card.slug)
            constants = {"model": card.slug, "dataset": image_set.card.slug, "split_rule": split_rule, "run": run}
            constants |= {"data_hash": image_set.data_hash, "stage": None, "order": None}
            frames += [image_rows(images, options, own, **constants, epoch=n) for n, own in enumerate(epochs, 1)]
        if processes().is_main_process:
            shutil.rmtree(trainings)
            write_rows(pd.concat(frames, ignore_index=True), folder / EPOCHS)
            parameters = sum(own.numel() for own in model.parameters() if own.requires_grad)
            atomic_write(folder / NETWORK, json.dumps({"parameters": parameters, "side": recipe.side}))

    make(baseline_artefact(card, protocol, image_set, split_rule), fill)


def train(
    model: nn.Module, image_set: ImageSet, split_rule: str, recipe: Baselines, run: int, folder: Path, name: str
) -> np.ndarray:
    """Trains a network in place for all epochs; resumes after a kill in `folder`. `run` seeds the images' order and
    augmentation. Returns probabilities of the options after each epoch, float [epochs, images, options]: of validation,
    then of test images, as the manifest orders them. Raises InputError for fewer train images than a batch."""
    training = pictures(image_set, image_set.rows_of(split_rule, "train").index, transform(recipe, True))
    if len(training) < recipe.batch_size:
        found = f"'{image_set.card.slug}', split '{split_rule}': {len(training)} train images"
        raise InputError(f"{found} are no batch of {recipe.batch_size}: lower baselines.batch_size in the protocol")
    evaluated = [place for split in EVALUATED for place in image_set.rows_of(split_rule, split).index]

    def keep(found: EvalPrediction) -> dict[str, float]:
        written = io.BytesIO()
        np.save(written, softmax(found.predictions.astype(float), axis=1))
        if processes().is_main_process:  # before the epoch's checkpoint is written: no later start lacks it
            atomic_write(folder / f"epoch-{round(trainer.state.epoch)}.npy", written.getvalue())
        return {}

    settings = TrainingSettings(seed=run, **{name: getattr(recipe, name) for name in FROM_RECIPE})
    trainer = ClassificationTrainer(
        model=model,
        args=training_arguments(settings, folder, eval_strategy="epoch"),
        train_dataset=training,
        eval_dataset=pictures(image_set, evaluated, transform(recipe, False)),
        data_collator=batch,
        compute_metrics=keep,
        callbacks=[Watched(f"baseline '{name}'")],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    processes().wait_for_everyone()
    return np.stack([np.load(folder / f"epoch-{epoch}.npy") for epoch in range(1, recipe.epochs + 1)])


def pictures(image_set: ImageSet, positions: Sequence[int], transform: v2.Transform) -> Examples:
    """(image, index of its option) of some rows of an image set's manifest, each image transformed anew."""
    labels = image_set.manifest.loc[list(positions), "option"].map(image_set.card.options.index).tolist()
    read = lambda place: transform(torch.from_numpy(image_set.pixels(place)).permute(2, 0, 1))  # noqa: E731
    return Examples(read, list(positions), labels)


class ClassificationTrainer(Trainer):
    """Trainer for networks that map images to logits: cross-entropy, and evaluations that return the logits."""

    def get_train_dataloader(self) -> DataLoader:
        """Whole batches in random order: a last one of a single image would have no variance for normalisation."""
        whole = {"shuffle": True, "drop_last": True, "pin_memory": self.args.dataloader_pin_memory, "collate_fn": batch}
        return self.accelerator.prepare(DataLoader(self.train_dataset, self.args.train_batch_size, **whole))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return cross_entropy(model(inputs["images"]), inputs["labels"])

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad():
            return None, model(inputs["images"]), inputs["labels"]


def batch(rows: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """Images float32 [batch, 3, side, side], normalised with ImageNet's mean and deviation, and labels int [batch]."""
    mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    images = torch.stack([image for image, _ in rows]).float() / 255
    return {"images": (images - mean) / spread, "labels": torch.tensor([label for _, label in rows])}


def transform(recipe: Baselines, training: bool) -> v2.Transform:
    """A random crop, resized to the side and perhaps flipped; of evaluated images all, or the centre once reduced."""
    side = (recipe.side, recipe.side)
    if training:
        crop = v2.RandomResizedCrop(side, scale=(recipe.crop_from, 1.0), antialias=True)
        return v2.Compose([crop, v2.RandomHorizontalFlip(recipe.flip)])
    if recipe.shorter_side is None:
        return v2.Resize(side, antialias=True)
    return v2.Compose([v2.Resize(recipe.shorter_side, antialias=True), v2.CenterCrop(side)])
