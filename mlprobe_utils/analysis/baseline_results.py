"""Reading back what was trained: the traditional classifiers of a run, after every epoch."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes
from mlprobe_utils.pipeline.baseline_files import EPOCHS, NETWORK, baseline_folder
from mlprobe_utils.pipeline.results import Selection, made

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Trained:
    """One baseline on one data set, after every epoch.

    Attributes:
        slug: of the baseline.
        validation, test: what it answered; in each, seeds are the runs, points the epochs from the first on.
        parameters: how many numbers were trained.
        side: of the images that it read, in pixels.
    """

    slug: str
    validation: Outcomes
    test: Outcomes
    parameters: int
    side: int


def trained(selection: Selection, slugs: Iterable[str]) -> dict[str, list[Trained]]:
    """data set -> the baselines of these slugs that were trained on it, in their order.

    Raises:
        InputError: one was not trained; rows that are incomplete, as `outcomes`.
    """
    slugs = list(slugs)
    return {dataset: [_read(selection, dataset, slug) for slug in slugs] for dataset in selection.datasets}


def epoch_outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of one baseline on one part of a data set: seeds are its runs, points the epochs.

    Raises InputError as `outcomes` does.
    """
    found = outcomes(rows.assign(seed=rows["run"], point=rows["epoch"]).sort_values("epoch", kind="stable"))
    return replace(found, points=[*map(int, found.points)])


def right_after(outcomes: Outcomes, epochs: np.ndarray) -> np.ndarray:
    """Whether each image is answered rightly by each run after an epoch of its own, bool [runs, 1, images].

    Args:
        epochs: places of the epochs, int [runs]: 0 is the first.
    """
    return outcomes.right[np.arange(len(epochs)), epochs][:, None]


def _read(selection: Selection, dataset: str, slug: str) -> Trained:
    folder = baseline_folder(selection.protocol, dataset, selection.split, slug)
    made(selection, slug, dataset, folder, "baselines")
    rows = pd.read_parquet(folder / EPOCHS)
    parts = [epoch_outcomes(rows[rows["part"] == part]) for part in (VALIDATION, TEST)]
    return Trained(slug, *parts, **json.loads((folder / NETWORK).read_text()))
