"""Rows of one model on one data set, of which chosen shares are right at chosen sites, and an image set's part."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.names import CLASSICAL, OUTPUT, PROBED_SITES, REFERENCE

SEEDS = 5
LAST = {"V": "V.10", "C": "C.01", "L": "L.11"}  # by number, not by name: V.9 would sort behind V.10
STATE = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0}


def image_set(images: int) -> SimpleNamespace:
    """As much of an image set as resamples need: every image alone."""
    names = names_of(images)
    manifest = pd.DataFrame({"image": names, "option": labels_of(images), "patient": names, "duplicate_group": names})
    return SimpleNamespace(
        manifest=manifest, card=SimpleNamespace(slug="d", positive="Yes"), rows_of=lambda split_rule, split: manifest
    )


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


def made(shares: dict[str, float], images: int = 400, noise: float = 0.05, **state) -> dict[str, pd.DataFrame]:
    """probed, predicted and reference rows with these shares right, on much the same images; site -> share."""
    generator = np.random.default_rng(images)
    hard = generator.random(images)

    def right(site: str) -> np.ndarray:
        return hard + generator.normal(0, noise, images) < shares[site]

    probed = []
    for site, (module, pooling) in PROBED_SITES.items():
        for seed in range(SEEDS):
            place = {"probe": "main", "pooling": pooling, "seed": seed, **state}
            probed.append(rows_of(right(site), seed, point=LAST[module], **place))
            if module != "C":  # an earlier point tells nothing
                probed.append(rows_of(np.arange(images) % 4 < 2, seed, point=f"{module}.09", **place))
    answers = rows_of(right(OUTPUT), **state)
    option = np.where(answers["p_Yes"] > 0.5, "Yes", "No")
    answers["parsed"] = pd.Series(option, answers.index).where(
        option == answers["label"]
    )  # a wrong answer is no option
    answers["thought_cut"] = False
    reference = rows_of(right(REFERENCE), control=CLASSICAL, model=None, stage=None, order=None, run=None)
    return {"probed": pd.concat(probed, ignore_index=True), "predicted": answers, "reference": reference}
