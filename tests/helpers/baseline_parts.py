"""Baselines of which chosen shares are right after each epoch, on the test images of `site_rows`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from site_rows import labels_of, names_of, rows_of

from mlprobe_utils.analysis.baselines import Trained
from mlprobe_utils.evaluation.outcomes import Outcomes

OPTIONS = ["Yes", "No"]


def answers(right: np.ndarray) -> Outcomes:
    """Of right, bool [runs, epochs, images]."""
    runs, epochs, images = right.shape
    truth = np.where(labels_of(images) == "Yes", 0, 1)
    said = np.where(right, truth, 1 - truth)
    chances = np.where(np.arange(2) == said[..., None], 0.8, 0.2)
    return Outcomes(said, truth, chances, [*range(runs)], [*range(1, epochs + 1)], names_of(images), OPTIONS)


def right_shares(shares: Sequence[float], images: int, generator: np.random.Generator, noise: float) -> np.ndarray:
    """Epochs of these true shares, bool [1, epochs, images]: what is hard is so for all, but for the noise."""
    hard = np.linspace(0, 1, images, endpoint=False) + 0.5 / images
    jitter = generator.normal(0, noise, (len(shares), images))
    return ((generator.permutation(hard) + jitter) % 1 < np.array(shares)[:, None])[None]


def training(
    slug: str,
    shares: Sequence[float],
    images: int = 400,
    validation: Sequence[float] | None = None,
    seed: int = 0,
    noise: float = 0.05,
) -> Trained:
    """A baseline whose epochs are right for these shares of the test images, and of as many validation images."""
    generator = np.random.default_rng([seed, images])
    chosen_by = answers(right_shares(shares if validation is None else validation, images, generator, 0.0))
    return Trained(slug, chosen_by, answers(right_shares(shares, images, generator, noise)), 1_234_567, 64)


def final_outputs(model: str, share: float, images: int = 400, runs: int = 2) -> pd.DataFrame:
    """Rows of the answers of an MLLM after fine-tuning."""
    frames = []
    for run in range(runs):
        generator = np.random.default_rng([7, run, images, sum(map(ord, model))])
        rows = rows_of(right_shares([share], images, generator, 0.0)[0, 0], model=model, run=run)
        frames.append(rows.assign(parsed=np.where(rows["p_Yes"] > 0.5, "Yes", "No")))
    return pd.concat(frames, ignore_index=True)
