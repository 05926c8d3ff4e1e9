"""The health scores that a flat curve gets by noise alone: what a printed score is to be set against (audit, point 12).

A module that changes nothing has the performance of its input at every point, and GF 0 and VP 1. On a test set of
finite size its score is lower all the same, and the lower the more points it has.
"""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import owens_t

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.corrected_health import noise_covariance
from mlprobe_utils.evaluation.health import health_score, health_scores
from mlprobe_utils.pipeline.cards import CARDS, DataCard, ModelCard, load_data_card, load_model_card, slugs
from mlprobe_utils.pipeline.published import paper_profiles

QUANTILES = (0.025, 0.5, 0.975)


def flat_covariance(level: float, points: int, images: int, correlation: float) -> np.ndarray:
    """Covariance of the noise of a flat curve, float [points, points], where only its outline is known.

    That of `health_simulation.simulate_correct` with neighbouring points correlated, in closed form: two normal
    variables lie both below a quantile with a probability that Owen's T function gives (Owen 1956).

    Args:
        level: true accuracy at every point, in shares.
        points: how many.
        images: of the test set.
        correlation: of the normal variables of neighbouring points.

    Raises:
        ValueError: an argument that is out of range; the message names it.
    """
    for name, value, holds, needed in (
        ("level", level, 0 < level < 1, "above 0 and below 1"),
        ("points", points, points >= 1, "1 or more"),
        ("images", images, images >= 1, "1 or more"),
        ("correlation", correlation, 0 <= correlation < 1, "from 0 on and below 1"),
    ):
        if not holds:
            raise ValueError(f"{name} is {value}: it needs to be {needed}")
    distance = np.arange(points)
    near = correlation**distance
    both = level - 2 * owens_t(stats.norm.ppf(level), np.sqrt((1 - near) / (1 + near)))
    covariance = (both - level**2) / images
    return covariance[np.abs(np.subtract.outer(distance, distance))]


def flat_scores(
    level: float, covariance: np.ndarray, penalty: float, repeats: int = 2000, seed: int = 0, least: float = 0.0
) -> np.ndarray:
    """Raw scores of noisy flat curves in percent, float [repeats].

    Args:
        level: true accuracy at every point, in shares.
        covariance: of the noise (taken as normal), [points, points]: from `flat_covariance`, or of a run's answers
            from `corrected_health.noise_covariance`.
        penalty: lambda.
        repeats: how many.
        seed: of the noise.
        least: what noise lowers a point to at most, in shares.

    Raises:
        ValueError: at `least` 0, so low a level that noise takes curves to 0, where no score has a value.
    """
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(seed).standard_normal((repeats, len(covariance)))
    curves = np.maximum(level + normal @ (vectors * np.sqrt(np.maximum(values, 0))).T, least)
    if curves.min() <= 0:
        raise ValueError(f"level is {level}: noise takes curves down to 0, where no score has a value")
    return 100 * health_scores(np.minimum(curves, 1), penalty)


def against_flat(
    scores: pd.DataFrame, penalty: float, correlations: Iterable[float] = (0.0, 0.9, 0.99), repeats: int = 2000
) -> pd.DataFrame:
    """Where each score lies among those that a flat curve gets by noise alone.

    Args:
        scores: points, images, level (percent) and score (percent) of a module, and any columns that say which; the
            true level of the flat curve is taken to be `level`.
        penalty: lambda.
        correlations: of neighbouring points, where the images' answers are not known, as of `flat_covariance`: each
            gives a row.
        repeats: flat curves simulated.

    Returns:
        The columns of `scores` and correlation, 2.5 %, 50 %, 97.5 % (quantiles of the flat curve's score), position
        (percent of its scores that are lower), outside (whether the score is lower or higher than both ends).

    Raises:
        ValueError: as `flat_covariance` and `flat_scores`.
    """
    records = []
    for row in scores.to_dict("records"):
        for correlation in correlations:
            level = row["level"] / 100
            covariance = flat_covariance(level, row["points"], row["images"], correlation)
            flat = flat_scores(level, covariance, penalty, repeats)
            records.append(row | {"correlation": correlation} | _place(row["score"], flat))
    return pd.DataFrame(records)


def depth_trend(placed: pd.DataFrame) -> pd.DataFrame:
    """Whether deeper modules score lower, and whether they still do once a flat curve's noise is allowed for.

    Audit, point 12. Rank correlations over models of the number of points with score - level, and with score - median
    of the flat curve's scores.

    Args:
        placed: from `against_flat`, with a column dataset.

    Returns:
        dataset, correlation (of neighbouring points, as assumed), models, Spearman and p of the first, Spearman beside
        flat and p (beside flat) of the second. p values are two-sided.
    """
    records = []
    for key, own in placed.groupby(["dataset", "correlation"], sort=False):
        plain = stats.spearmanr(own["points"], own["score"] - own["level"])
        beside = stats.spearmanr(own["points"], own["score"] - own["50 %"])
        records.append((*key, len(own), plain.statistic, plain.pvalue, beside.statistic, beside.pvalue))
    columns = ["dataset", "correlation", "models", "Spearman", "p", "Spearman beside flat", "p (beside flat)"]
    return pd.DataFrame(records, columns=columns)


def beside_flat(
    correct: np.ndarray, penalty: float, counts: np.ndarray | None = None, repeats: int = 2000
) -> dict[str, float | bool]:
    """Where the raw score of a module lies among those that a flat curve with its noise gets, as `against_flat`.

    Args:
        correct: bool [points, images], whether the probe of each point is right. The flat curve lies at the accuracy
            of the last, and has the noise that these answers show.
        penalty: lambda.
        counts: as of `corrected_health.corrected_health`.
        repeats: flat curves simulated.

    Returns:
        score (raw, percent), 2.5 %, 50 %, 97.5 %, position and outside.

    Raises:
        ValueError: as `corrected_health.corrected_health`.
    """
    covariance = noise_covariance(correct, counts)
    curve, least = correct.mean(axis=1), 0.5 / correct.shape[1]
    score = 100 * health_score(curve, penalty)
    return {"score": score} | _place(score, flat_scores(curve[-1], covariance, penalty, repeats, least=least))


def paper_llms() -> pd.DataFrame:
    """The LLMs of Table 1 as `against_flat` takes them: model, dataset, points, images, level and score.

    Points are the LLM's layers, images the data set's test images. The paper prints no performance at the last point:
    `level` is P_final, the accuracy of the answer.
    """
    layers, sizes = paper_layers(), paper_test_sizes()
    printed = paper_profiles()
    return pd.DataFrame(
        {
            "model": printed["model"],
            "dataset": printed["dataset"],
            "points": printed["model"].map(layers),
            "images": printed["dataset"].map(sizes),
            "level": printed["P_final"],
            "score": printed["FHS_L"],
        }
    )


def paper_layers() -> dict[str, int]:
    """How many layers the LLM of each model of Table 1 has, by the name printed there, from data/architectures.

    Raises:
        InputError: a card of such a model names no architecture.
    """
    cards = [card for slug in slugs(ModelCard) if (card := load_model_card(slug)).table1]
    return {card.table1: _layers(card) for card in cards}


def paper_test_sizes() -> dict[str, int]:
    """How many test images each data set of Table 1 has, by name, from the data cards."""
    cards = [card for slug in slugs(DataCard) if not (card := load_data_card(slug)).synthetic]
    return {card.name: sum((card.test_counts or card.release_counts["test"]).values()) for card in cards}


def _place(score: float, flat: np.ndarray) -> dict[str, float | bool]:
    low, middle, high = np.quantile(flat, QUANTILES)
    position = 100 * float(np.mean(flat < score))
    return {"2.5 %": low, "50 %": middle, "97.5 %": high, "position": position, "outside": not low <= score <= high}


def _layers(card: ModelCard) -> int:
    if card.architecture is None:
        raise InputError(f"data/models/{card.slug}.yml: add `architecture`, a file in data/architectures")
    path = CARDS / "architectures" / f"{card.architecture}.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    return config.get("text_config", config)["num_hidden_layers"]
