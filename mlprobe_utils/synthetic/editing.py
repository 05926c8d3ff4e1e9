"""What models make of pairs of images while their states are edited: those of a book, and the laboratory's cases.
Phantoms are drawn as twins, which differ in the signs of their class; a real image is paired with the test image of
another class that looks most like it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.models.encoding import branches
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import DAMAGED_RUN
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import FEATURES, load_features
from mlprobe_utils.probing.sweeps import Sweep, Trained
from mlprobe_utils.synthetic.faults.calibration import as_stored, batched, load_damages
from mlprobe_utils.synthetic.faults.damage import damaged
from mlprobe_utils.synthetic.phantoms.making import read_recipe, twins

SIDE = 16  # of the thumbnails that real images are compared by


def sweep_of(work: Work, pairs: bool) -> Sweep:
    """Over pairs of images of a work's data set, or the first test images in a random order."""
    chosen = _tested if not pairs else _twins if work.image_set.card.synthetic else _nearest
    images, labels = chosen(work)
    size = max(work.protocol.extraction.batch_size // 2, 1) * 2
    batches = [work.encoder.questions(own) for own in batched(images, size)]
    return Sweep(work.loaded, batches, work.encoder, labels, work.options, work.protocol.interventions.every)


def make_interventions(work: Work) -> None:
    """`interventions.parquet`: of the fine-tuned state, with all edits, and where a fault is planted with the states of
    the intact one; of an intact model also of the pretrained state, with those of the fine-tuned one."""

    def fill(folder: Path) -> None:
        pairs, tested, frames = sweep_of(work, pairs=True), sweep_of(work, pairs=False), []
        with torch.inference_mode():
            with Work.state(work.healthy, DAMAGED_RUN):
                intact = tested.twins()
            with work.state(DAMAGED_RUN):
                found = [pairs.uses(_trained(work)), tested.blocks(intact if work.planted else None)]
                frames.append(pd.concat(found).assign(**work.constants(DAMAGED_RUN)))
            if not work.planted:
                with work.state(None):
                    frames.append(tested.blocks(intact).assign(**work.constants(None)))
        write_parquet(pd.concat(frames, ignore_index=True), folder / results.INTERVENTION_ROWS)

    if processes().is_main_process:
        work.interventions().make(fill)


def make_drawn(work: Work, undamaged: bool) -> None:
    """Of the laboratory's cases what places a fault: with `case` (null: intact) and `run`."""
    if processes().is_main_process:
        work.drawn_interventions(not undamaged).make(partial(_sweep_cases, work, undamaged))


@torch.inference_mode()
def _sweep_cases(work: Work, undamaged: bool, folder: Path) -> None:
    tested, frames = sweep_of(work, pairs=False), []
    for run in work.runs():
        with work.state(run):
            frames.append(tested.blocks().assign(case=None, run=run))
            cases = load_damages(work.folder / results.DRAWN) if run == DAMAGED_RUN and not undamaged else {}
            intact = tested.twins() if cases else None
            for (fault, points), damage in cases.items():
                with damaged(work.loaded, damage, branches(tested.answers)):
                    frames.append(tested.blocks(intact).assign(case=f"{fault}, {points:g} points", run=run))
    write_parquet(pd.concat(frames, ignore_index=True), folder / results.INTERVENTION_ROWS)


def _trained(work: Work) -> Trained:
    images, saved = work.images(), load_features(work.features(DAMAGED_RUN).folder / FEATURES)
    train = np.flatnonzero(images["split"] == "train")
    labels = images["option"].map(work.options.index).to_numpy()[train]
    return Trained({key: own[torch.from_numpy(train)] for key, own in saved.items()}, labels)


def _tested(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    images = work.images("test").sample(frac=1.0, random_state=0)[: work.protocol.interventions.images]
    return [work.image_set.pixels(place) for place in images.index], images["option"].map(work.options.index).to_numpy()


def _twins(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    """Of several classes, two after the other in turn."""
    card, images, labels = work.image_set.card, [], []
    recipe, options = read_recipe(card), {known.name: work.options.index(known.option) for known in card.classes}
    for number in range(work.protocol.interventions.pairs):
        drawn = twins(card, recipe, number)
        for step in range(2):
            name = [*options][(number + step) % len(options)]
            images.append(as_stored(card, work.protocol.images, drawn[name]))
            labels.append(options[name])
    return images, np.array(labels)


def _nearest(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    """Pairs of test images of one size and different classes, the most alike first. InputError where there is none."""
    places = work.images("test").index
    found = [work.image_set.pixels(place) for place in places]
    labels = work.images("test")["option"].map(work.options.index).to_numpy()
    grey = [Image.fromarray(own).convert("L").resize((SIDE, SIDE)) for own in found]
    small = np.stack([np.asarray(own, dtype=float).ravel() for own in grey])
    apart, shapes = cdist(small, small), np.array([own.shape[:2] for own in found])
    apart[(labels[:, None] == labels) | (shapes[:, None] != shapes).any(axis=-1)] = np.inf
    chosen: list[int] = []
    for one, other in _closest_first(apart):
        if len(chosen) < 2 * work.protocol.interventions.pairs and not {one, other} & {*chosen}:
            chosen += [one, other]
    if not chosen:
        wrong = "no two test images of different classes have one size"
        raise InputError(f"{work.image_set.card.slug}: {wrong}: set square_side in the protocol's images")
    return [found[place] for place in chosen], labels[chosen]


def _closest_first(apart: np.ndarray) -> Iterator[tuple[int, int]]:
    for place in np.argsort(apart, axis=None, kind="stable"):
        one, other = np.unravel_index(place, apart.shape)
        if not np.isfinite(apart[one, other]):
            return
        yield int(one), int(other)
