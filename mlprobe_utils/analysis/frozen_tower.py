"""What freezing the vision tower changes: accuracy and F1, frozen less adapted (paper section 5, Table 2).

Both are fine-tuned on the same images with the same budget and evaluated on the same test images: changes are paired.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.outcomes import Outcomes, output_outcomes
from mlprobe_utils.pipeline import variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import LEVEL, ROUNDING
from mlprobe_utils.stats.paired import NEITHER, Pair, compare
from mlprobe_utils.stats.resampling import MOST_MISSING, Statistic

TOWERS = {"adapted": "lora", "frozen": "frozen"}
METRICS = ("accuracy", "f1")  # those of the paper's table
POINTS, RELATIVE = "difference (points)", "relative change (%)"  # two meanings of one average gap
RAISED, LOWERED = "frozen is better", "frozen is worse"


def outcomes_of(one: Selection) -> dict[tuple[str], Outcomes]:
    """(tower of TOWERS,) -> outcomes of the final output after fine-tuning, of one model and data set."""
    rows = {tower: variants.tower_rows(one, setting) for tower, setting in TOWERS.items()}
    return {(tower,): output_outcomes(own[own["split"] == "test"]) for tower, own in rows.items()}


def changes(found: Iterable[Evaluated]) -> pd.DataFrame:
    """One row a data set, model and metric, for new images, with these adapters.

    Returns:
        dataset, model, metric, adapted, frozen (percent, means over runs), change and further columns of
        `paired.compare`, with verdict RAISED, LOWERED or NEITHER; p is exact for accuracy only.
    """
    by = ["dataset", "model", "metric", *TOWERS]
    return compare(_pairs(found), by, words=(LOWERED, RAISED, NEITHER))


def _pairs(found: Iterable[Evaluated]) -> Iterator[Pair]:
    for own in found:
        for metric in METRICS:
            scores = _scores(own, metric)
            place = own.place(metric=metric, **{tower: one.values.mean() for tower, one in scores.items()})
            correct = {tower: own.outcomes[tower,].correct for tower in TOWERS}
            yield Pair(place, *(correct if metric == "accuracy" else scores).values(), own.resamples)


def _scores(own: Evaluated, metric: str) -> dict[str, Statistic]:
    return {tower: own.outcomes[tower,].score(metric, own.positive, own.resamples) for tower in TOWERS}


def gaps(found: Iterable[Evaluated]) -> pd.DataFrame:
    """The average gap of each model over data sets and METRICS: model, gap (its meaning), numbers, value, low, high.

    `numbers` is how many it is the mean of. Metrics of one data set come from the same answers and are drawn together;
    data sets are independent, and their intervals joined (Zou and Donner 2008). A relative change of nothing is nan.
    """
    by_model: dict[str, list[Evaluated]] = {}
    for one in found:
        by_model.setdefault(one.model, []).append(one)
    rows = []
    for model, own in by_model.items():
        for gap in (RELATIVE, POINTS):
            values, halves = zip(*(_gap(one, gap) for one in own), strict=True)
            value, half = np.mean(values), np.sqrt(np.sum(np.square(halves))) / len(own)
            rows.append((model, gap, len(METRICS) * len(own), value, value - half, value + half))
    return pd.DataFrame(rows, columns=["model", "gap", "numbers", "value", "low", "high"])


def _gap(own: Evaluated, gap: str) -> tuple[float, float]:
    """Mean over metrics on one data set, and half the width of its interval."""
    found, clusters = [], np.inf
    for metric in METRICS:
        scores = _scores(own, metric)
        before, after = (_means(scores[tower]) for tower in ("adapted", "frozen"))
        clusters = min(clusters, *(one.clusters for one in scores.values()))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(after - before if gap == POINTS else 100 * (after / before - 1))
    value, *resampled = np.mean(found, axis=0)
    finite = np.isfinite(resampled)
    if not np.isfinite(value) or 1 - finite.mean() > MOST_MISSING:
        return np.nan, np.nan
    error = np.array(resampled)[finite].std(ddof=1) * np.sqrt(clusters / max(clusters - 1, 1))
    error = error if error > ROUNDING else 100 / clusters  # as if one cluster had changed
    return float(value), float(t.isf((1 - LEVEL) / 2, max(clusters - 1, 1)) * error)


def _means(of: Statistic) -> np.ndarray:
    """Means over runs: of the images as they are, then of every resample, float [1 + resamples]."""
    return np.append(of.values.mean(), of.resampled.reshape(len(of.resampled), -1).mean(axis=1))
