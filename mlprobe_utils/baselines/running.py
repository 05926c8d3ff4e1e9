"""Trains traditional classifiers on some data sets and keeps what they say of every image after every epoch.

`python -m mlprobe_utils baselines BASELINE ... --datasets D ... --protocol P`; what is current is skipped.
"""

import json
import shutil

import mlprobe_utils.models.compat

import pandas as pd
from transformers import set_seed

from mlprobe_utils.baselines.building import build, parameters_in
from mlprobe_utils.baselines.training import train
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.rows import image_rows, write_rows
from mlprobe_utils.pipeline.baseline_card import STEP, BaselineCard, load_baseline
from mlprobe_utils.pipeline.baseline_files import EPOCHS, NETWORK, baseline_artefact
from mlprobe_utils.pipeline.cards import Protocol, load_protocol
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.work import shared


def run_baselines(baselines: list[str], datasets: list[str], protocol_slug: str, split: str) -> None:
    """Makes every baseline's artefact on each data set where it is not there and current.

    Raises:
        InputError: an unknown slug, a data set whose manifest is not there; as `building.build` and `training.train`.
    """
    protocol = load_protocol(protocol_slug)
    for card in map(load_baseline, baselines):
        for dataset in datasets:
            with step(card.slug, dataset, STEP):
                make_epochs(card, protocol, load_image_set(dataset, protocol_slug), split)


def make_epochs(card: BaselineCard, protocol: Protocol, image_set: ImageSet, split: str) -> None:
    """The rows of all runs, after every epoch, in `epochs.parquet`; how large the network is in `network.json`."""
    recipe = protocol.baselines
    if (own := baseline_artefact(card, protocol, image_set, split)).is_current():
        return
    images = pd.concat([image_set.part(split, part).assign(part=part) for part in ("validation", "test")])
    options = image_set.card.options
    with shared(own) as temporary:
        frames, trainings = [], temporary / "trainings"
        for run in range(recipe.runs):
            set_seed(run)
            model = build(card, recipe.variant, len(options), recipe.side, recipe.pretrained)
            found = train(model, image_set, split, recipe, run, trainings / str(run))
            constants = {"model": card.slug, "dataset": image_set.card.slug, "split": split, "run": run}
            constants |= {"data_hash": image_set.data_hash, "stage": None, "order": None}
            frames += [image_rows(images, options, own, **constants, epoch=n) for n, own in enumerate(found, 1)]
        if processes().is_main_process:
            shutil.rmtree(trainings)
            write_rows(pd.concat(frames, ignore_index=True), temporary / EPOCHS)
            size = {"parameters": parameters_in(model), "side": recipe.side}
            atomic_write(temporary / NETWORK, json.dumps(size))
