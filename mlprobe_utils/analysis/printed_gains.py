"""What the printed gains of medical adaptation (paper section 5, figure 4) can have been computed from.

The paper prints the mean gain of five adapted models over their bases, and no accuracy of a base. As an accuracy is a
whole number of right answers, all bases can be tried: those that give every printed gain of a base's models are left.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.pipeline.published import paper_profiles

IMAGES = {"BUSI": 150, "COVID19-CT": 203, "Chest-Xray": 624}  # of the paper's test sets
LEAST = 0.4  # accuracy of a base that is tried
MEANINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of shares [..., data sets]
    "mean difference": lambda own, base: (own - base).mean(axis=-1),
    "mean of relative changes": lambda own, base: (own / base - 1).mean(axis=-1),
    "relative change of the mean": lambda own, base: own.mean(axis=-1) / base.mean(axis=-1) - 1,
}


def printed_gains() -> pd.DataFrame:
    """The five gains as printed: model (as Table 1 spells it), base, gain (percent)."""
    return pd.read_csv(PUBLISHED / "gains.csv")


def printed_answers() -> pd.DataFrame:
    """P_final of Table 1 as unrounded shares, a row a model, a column a data set of IMAGES.

    All are whole numbers of images.
    """
    printed = paper_profiles().pivot_table("P_final", "model", "dataset", sort=False)[[*IMAGES]]
    images = pd.Series(IMAGES)
    return (printed / 100 * images).round() / images


def bases_that_fit(answers: np.ndarray, gains: np.ndarray, meaning: str) -> np.ndarray:
    """The bases from which all gains come out as they are printed: right answers, int [bases, data sets].

    Args:
        answers: shares of right answers of the adapted models, float [models, data sets of IMAGES].
        gains: as printed, percent with two decimals [models].
        meaning: of MEANINGS.
    """
    tried = np.meshgrid(*(np.arange(int(LEAST * images), images + 1) for images in IMAGES.values()), indexing="ij")
    counts = np.stack([axis.ravel() for axis in tried], axis=-1)
    for own, gain in zip(answers, gains, strict=True):
        made = 100 * MEANINGS[meaning](own, counts / [*IMAGES.values()])
        counts = counts[np.abs(made - gain) <= 0.005 + 1e-9]
    return counts


def search() -> pd.DataFrame:
    """Every base and meaning of a gain: base, models, a gain is the …, bases that fit (their number)."""
    answers, rows = printed_answers(), []
    for base, own in printed_gains().groupby("base", sort=False):
        for meaning in MEANINGS:
            found = bases_that_fit(answers.loc[own["model"]].to_numpy(), own["gain"].to_numpy(), meaning)
            rows.append((base, len(own), meaning, len(found)))
    return pd.DataFrame(rows, columns=["base", "models", "a gain is the", "bases that fit"])
