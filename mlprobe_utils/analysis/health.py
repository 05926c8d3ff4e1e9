"""Health scores of a run with their noise: corrected, and beside those of a flat curve.

A module that changes nothing has the performance of its input at every point, and GF 0 and VP 1. On a test set of
finite size its score is lower all the same, and the lower the more points it has (audit, point 12).
"""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import owens_t

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.corrected_health import CorrectedHealth, corrected_health, noise_covariance
from mlprobe_utils.evaluation.health import STATE, health_score, health_scores
from mlprobe_utils.evaluation.outcomes import of_modules, outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import (
    CARDS,
    DataCard,
    ModelCard,
    load_data_card,
    load_model_card,
    load_protocol,
    slugs,
)
from mlprobe_utils.pipeline.images import ImageSet, load_image_set
from mlprobe_utils.pipeline.published import paper_profiles
from mlprobe_utils.pipeline.results import CORRECTED_HEALTH, Selection
from mlprobe_utils.pipeline.scoring import derived
from mlprobe_utils.pipeline.tested import resamples_of_tested

FLAT = {"2.5 %": "flat_low", "50 %": "flat_middle", "97.5 %": "flat_high"}
SCORES = [*CorrectedHealth._fields, *FLAT.values()]


def health_of_run(selection: Selection) -> pd.DataFrame:
    """`corrected_scores` of all selected models and data sets, kept beside their rows.

    Raises:
        InputError: a model and data set that was not run, a module whose health score has no value, or as there.
    """
    penalty = load_protocol(selection.protocol).health.penalty

    def make(one: Selection) -> pd.DataFrame:
        image_set = load_image_set(one.datasets[0], one.protocol)
        return corrected_scores(results.probe_rows(one), image_set, one.split_rule, penalty)

    scores = derived(selection, CORRECTED_HEALTH, ["probes"], __name__, make, penalty=penalty)
    if (missing := scores["raw"].isna()).any():
        row = scores[missing].iloc[0]
        raise InputError(
            f"{row['model']} on {row['dataset']}, {MODULES[row['module']]} ({row['stage']}, run {row['run']}): at a "
            f"point, none of {row['images']} test images is classified correctly, and a health score has no value "
            "there: add test images, or train the probes longer"
        )
    return scores


def corrected_scores(rows: pd.DataFrame, image_set: ImageSet, split_rule: str, penalty: float) -> pd.DataFrame:
    """Health scores without what noise does to them, of the main recipe's accuracy on the mean of the image tokens.

    Noise is counted over whole patients and duplicate groups. Side paths have no score.

    Args:
        rows: probe rows of one model and data set, of any stages, runs, recipes and poolings.
        image_set, split_rule: of the rows.
        penalty: lambda.

    Returns:
        model, dataset, stage, run, module, points and images (how many), raw (equation 3), score (corrected), low, high
        (its interval), flat_low, flat_middle, flat_high (quantiles of the raw score of a flat curve at the last point's
        accuracy, by noise alone). Scores in percent; nan where no image is classified correctly at a point.

    Raises:
        InputError: fewer than two independent test images; rows that are not whole.
        ValueError: test images of another image set or split.
    """
    rows = of_modules(rows)
    try:
        resamples, images = resamples_of_tested(image_set, split_rule)
    except InputError as error:
        place = " ".join(map(str, [*rows["model"].unique(), "on", image_set.card.slug]))
        raise InputError(f"health scores of {place}, all modules: {error}") from error
    counts = None if len(np.unique(resamples.clusters)) == len(images) else resamples.counts
    records = []
    for state, own in rows.groupby(STATE, sort=False):
        found = outcomes(own)
        if found.images != images:
            raise ValueError(f"{' '.join(state)}: the rows are not of the test images of split '{split_rule}'")
        for run, of_run in zip(own["run"].unique(), found.correct, strict=True):
            for module in MODULES:
                points = found.of_module(module)
                correct = of_run[[found.points.index(point) for point in points]]
                place = dict(zip([*STATE, "run", "module"], [*state, run, module], strict=True))
                scores = dict.fromkeys(SCORES, np.nan)
                if correct.any(axis=1).all():
                    flat = beside_flat(correct, penalty, counts)
                    scores = corrected_health(correct, penalty, counts)._asdict()
                    scores |= {name: flat[quantile] for quantile, name in FLAT.items()}
                records.append(place | {"points": len(points), "images": len(images)} | scores)
    return pd.DataFrame(records)


def flat_covariance(level: float, points: int, images: int, correlation: float) -> np.ndarray:
    """Covariance of the noise of a flat curve, float [points, points], where only its outline is known.

    That of `simulated_answers.simulate_correct` with neighbouring points correlated, in closed form: two normal
    variables lie both below a quantile with a probability that Owen's T function gives (Owen 1956).

    Args:
        level: true accuracy at every point, in shares.
        points, images: how many.
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
    """Raw scores in percent of `repeats` noisy flat curves.

    Args:
        level: true accuracy at every point, in shares.
        covariance: of the noise (taken as normal), [points, points].
        penalty: lambda.
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


def beside_flat(
    correct: np.ndarray, penalty: float, counts: np.ndarray | None = None, repeats: int = 2000
) -> dict[str, float | bool]:
    """Where a module's raw score lies among those that a flat curve with its noise gets; columns as of `against_flat`.

    Args: as of `corrected_health.corrected_health`. The flat curve lies at the accuracy of the last point.

    Raises ValueError as that.
    """
    covariance = noise_covariance(correct, counts)
    curve, least = correct.mean(axis=1), 0.5 / correct.shape[1]
    score = 100 * health_score(curve, penalty)
    return {"score": score} | _place(score, flat_scores(curve[-1], covariance, penalty, repeats, least=least))


def against_flat(
    scores: pd.DataFrame, penalty: float, correlations: Iterable[float] = (0.0, 0.9, 0.99), repeats: int = 2000
) -> pd.DataFrame:
    """Where each score lies among those that a flat curve gets by noise alone.

    Args:
        scores: points, images, level (percent: of the flat curve) and score (percent) of a module, and any columns.
        penalty: lambda.
        correlations: assumed of neighbouring points, as the answers are not known: each gives a row.

    Returns:
        The columns of `scores` and correlation, 2.5 %, 50 %, 97.5 % (quantiles of the flat curve's score), position
        (percent of its scores that are lower), outside (whether the score is lower or higher than both ends).

    Raises:
        ValueError: as `flat_covariance` and `flat_scores`.
    """
    records = []
    for row in scores.to_dict("records"):
        for correlation in correlations:
            covariance = flat_covariance(row["level"] / 100, row["points"], row["images"], correlation)
            flat = flat_scores(row["level"] / 100, covariance, penalty, repeats)
            records.append(row | {"correlation": correlation} | _place(row["score"], flat))
    return pd.DataFrame(records)


def _place(score: float, flat: np.ndarray) -> dict[str, float | bool]:
    low, middle, high = np.quantile(flat, (0.025, 0.5, 0.975))
    position = 100 * float(np.mean(flat < score))
    return {"2.5 %": low, "50 %": middle, "97.5 %": high, "position": position, "outside": not low <= score <= high}


def depth_trend(placed: pd.DataFrame) -> pd.DataFrame:
    """Whether deeper modules score lower, and whether they still do once a flat curve's noise is allowed for.

    Rank correlations over models of the number of points with score - level, and with score - median of the flat
    curve's scores (audit, point 12).

    Args:
        placed: from `against_flat`, with a column dataset.

    Returns:
        dataset, correlation (of neighbouring points, as assumed), models, Spearman and p of the first, Spearman beside
        flat and p (beside flat) of the second. p values are two-sided.
    """
    records = []
    for key, own in placed.groupby(["dataset", "correlation"], sort=False):
        plain, beside = (stats.spearmanr(own["points"], own["score"] - own[less]) for less in ("level", "50 %"))
        records.append((*key, len(own), plain.statistic, plain.pvalue, beside.statistic, beside.pvalue))
    columns = ["dataset", "correlation", "models", "Spearman", "p", "Spearman beside flat", "p (beside flat)"]
    return pd.DataFrame(records, columns=columns)


def paper_llms() -> pd.DataFrame:
    """The LLMs of Table 1 as `against_flat` takes them: points are the LLM's layers, images the test images.

    The paper prints no performance at the last point: `level` is P_final, the accuracy of the answer.
    """
    layers, sizes, printed = paper_layers(), paper_test_sizes(), paper_profiles()
    found = printed[["model", "dataset"]].assign(points=printed["model"].map(layers))
    return found.assign(images=printed["dataset"].map(sizes), level=printed["P_final"], score=printed["FHS_L"])


def paper_layers() -> dict[str, int]:
    """How many layers the LLM of each model of Table 1 has, by the name printed there, from data/architectures.

    Raises:
        InputError: a card of such a model names no architecture.
    """
    layers = {}
    for card in map(load_model_card, slugs(ModelCard)):
        if card.table1 and card.architecture is None:
            raise InputError(f"data/models/{card.slug}.yml: add `architecture`, a file in data/architectures")
        if card.table1:
            config = json.loads((CARDS / "architectures" / f"{card.architecture}.json").read_text(encoding="utf-8"))
            layers[card.table1] = config.get("text_config", config)["num_hidden_layers"]
    return layers


def paper_test_sizes() -> dict[str, int]:
    """How many test images each data set of Table 1 has, by name, from the data cards."""
    cards = [card for slug in slugs(DataCard) if not (card := load_data_card(slug)).synthetic]
    return {card.name: sum((card.test_counts or card.release_counts["test"]).values()) for card in cards}
