"""Simulated rows: of a model on one data set, a chosen share of whose predictions is correct."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.stats import binom

from mlprobe_utils.evaluation.names import CLASSICAL, OUTPUT, PROBED_SITES, REFERENCE
from mlprobe_utils.evaluation.outcomes import Outcomes

SITES = (REFERENCE, *PROBED_SITES, OUTPUT)
SEEDS = 5
SURE = 1e-3  # a test fails by chance at most so often
FIRST = "V.00"
LAST = {"V": "V.10", "C": "C.01", "L": "L.11"}  # by number, not by name: V.9 would sort behind V.10
STATE = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0}


def no_more(count: int, of: int, share: float) -> bool:
    """Whether so many of so many are no surprise where each happens with a probability of `share` or less."""
    return bool(binom.sf(count - 1, of, share) > SURE)


def no_fewer(count: int, of: int, share: float) -> bool:
    """Whether so few of so many are no surprise where each happens with a probability of `share` or more."""
    return bool(binom.cdf(count, of, share) > SURE)


def image_set(images: int) -> SimpleNamespace:
    """As much of an image set as resamples need: every image alone."""
    table = pd.DataFrame({"image": names_of(images), "option": labels_of(images), "patient": names_of(images)})
    table["duplicate_group"], card = table["image"], SimpleNamespace(slug="d", positive="Yes")
    return SimpleNamespace(manifest=table, card=card, rows_of=lambda split_rule, split: table)


def names_of(images: int) -> list[str]:
    return [f"{number:04d}.png" for number in range(images)]


def labels_of(images: int) -> np.ndarray:
    return np.where(np.arange(images) % 2, "Yes", "No")


def rows_of(right: np.ndarray, shuffled: int = 0, **columns) -> pd.DataFrame:
    """One row an image; `right` says whether its more probable option is the label. In no order."""
    label = labels_of(len(right))
    yes = np.where((label == "Yes") == right, 0.8, 0.2)
    rows = pd.DataFrame({"image": names_of(len(right)), "label": label, "p_Yes": yes, "p_No": 1 - yes})
    constants = {"fault": None, "data_hash": "0" * 64, "split_rule": "paper", "split": "test", "order": "image_first"}
    constants |= {"probe": None, "point": None, "pooling": None, "control": None, "seed": None}
    return rows.assign(**(constants | STATE | columns)).sample(frac=1, random_state=shuffled)


def right_of(hard: np.ndarray, share: float, seed, shape: tuple = (), noise: float = 0.05) -> np.ndarray:
    """Which images are right, bool [*shape, images]: this share, the same hard ones wrong but for some luck."""
    return hard + np.random.default_rng(seed).normal(0, noise, (*shape, len(hard))) < share


def answers_of(right: np.ndarray, shuffled: int = 0, **columns) -> pd.DataFrame:
    """Prediction rows: as probe rows, with the more probable option as the parsed answer."""
    rows = rows_of(right, shuffled, **columns)
    return rows.assign(text="?", parsed=np.where(rows["p_Yes"] > 0.5, "Yes", "No"), thought_cut=False)


def made(shares: dict[str, float], images: int = 400, noise: float = 0.05, **state) -> dict[str, pd.DataFrame]:
    """probed, predicted and reference rows with these shares right, on much the same images; site -> share."""
    generator = np.random.default_rng(images)
    hard, probed = generator.random(images), []

    def right(site: str) -> np.ndarray:
        return hard + generator.normal(0, noise, images) < shares[site]

    for site, (module, pooling, end) in PROBED_SITES.items():
        for seed in range(SEEDS):
            place = {"probe": "main", "pooling": pooling, "seed": seed, **state}
            probed.append(rows_of(right(site), seed, point=LAST[module] if end else FIRST, **place))
            if module != "C" and end:  # an earlier point is at chance
                probed.append(rows_of(np.arange(images) % 4 < 2, seed, point=f"{module}.09", **place))
    answers = rows_of(right(OUTPUT), **state)
    correct = (answers["p_Yes"] > 0.5) == (answers["label"] == "Yes")
    answers["parsed"] = answers["label"].where(correct)  # a wrong answer is no option
    answers["text"], answers["thought_cut"] = "?", False
    reference = rows_of(right(REFERENCE), control=CLASSICAL, model=None, stage=None, order=None, run=None)
    return {"probed": pd.concat(probed, ignore_index=True), "predicted": answers, "reference": reference}


def answers(right: np.ndarray) -> Outcomes:
    """Of which images are predicted correctly, bool [runs, epochs, images]."""
    runs, epochs, images = right.shape
    truth = np.where(labels_of(images) == "Yes", 0, 1)
    predicted = np.where(right, truth, 1 - truth)
    probabilities = np.where(np.arange(2) == predicted[..., None], 0.8, 0.2)
    axes = [*range(runs)], [*range(1, epochs + 1)], names_of(images), ["Yes", "No"]
    return Outcomes(predicted, truth, probabilities, *axes)
