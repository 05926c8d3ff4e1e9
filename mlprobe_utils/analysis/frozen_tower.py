"""What freezing the vision tower changes: accuracy and F1, frozen less adapted (paper section 5, Table 2).

Both are fine-tuned on the same images with the same budget and answer the same test images, so that changes are paired.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline import variants
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, PROBE, ROUNDING, intervals, spread_of
from mlprobe_utils.stats.paired_tests import holm, sign_flip_p
from mlprobe_utils.stats.resampling import MOST_MISSING, Difference

METRICS = ("accuracy", "f1")  # those of the paper's table
POINTS, RELATIVE = "difference (points)", "relative change (%)"  # two readings of one average gap
RAISED, LOWERED, NEITHER = "frozen is better", "frozen is worse", "not distinguishable"


@dataclass(frozen=True)
class Compared:
    """The answers of one model on one data set, with the vision tower frozen and adapted; means over all runs.

    Attributes:
        change: metric -> frozen less adapted, of one point.
        p: metric -> of no change; of accuracy exact (`sign_flip_p`), of F1 of the t statistic that its interval is of.
    """

    model: str
    dataset: str
    change: dict[str, Difference]
    p: dict[str, float]


def read(selection: Selection, image_sets: Mapping[str, ImageSet]) -> list[Compared]:
    """What is compared of a selection, in the order data set, model.

    Raises:
        InputError: a model and data set that was not run; rows of other images than the test images; a class that
            hardly any resample has (`resampling.metric`).
    """
    found = []
    for model, dataset, _ in selection.folders():
        one = replace(selection, models=(model,), datasets=(dataset,))
        rows = (variants.tower_rows(one, tower) for tower in ("frozen", "lora"))
        found.append(compared(*rows, image_sets[dataset], selection.split))
    return found


def compared(frozen: pd.DataFrame, adapted: pd.DataFrame, image_set: ImageSet, split: str) -> Compared:
    """Both answers of one model, from its prediction rows on one data set; of all rows, those of test images count.

    Raises as `read`.
    """
    drawn, images = resamples_of_tested(image_set, split)
    model, dataset = frozen["model"].iloc[0], frozen["dataset"].iloc[0]
    sides = []
    for name, rows in (("frozen", frozen), ("adapted", adapted)):
        answered = output_outcomes(rows[rows["part"] == "test"])
        sides.append(of_tested(answered, images, f"{model} on {dataset}, vision tower {name}"))
    positive, change, p = image_set.card.positive, {}, {}
    for metric in METRICS:
        after, before = (side.score(metric, positive, drawn) for side in sides)
        change[metric] = after - before
        spread = spread_of(change[metric], PROBE)
        p[metric] = float(2 * t.sf(np.abs(spread.value) / spread.error, spread.freedom)[0])
    p["accuracy"] = float(sign_flip_p(sides[1].right, sides[0].right, drawn.clusters)[0])
    return Compared(model, dataset, change, p)


def changes(readings: Iterable[Compared]) -> pd.DataFrame:
    """One row a data set, model and metric.

    Returns:
        dataset, model, metric, adapted, frozen (percent, means over runs), change, low, high (points; for new images,
        with these adapters), p, p (Holm) over all rows, verdict: RAISED or LOWERED where p (Holm) is below 5 %.
    """
    records = []
    for reading in readings:
        for metric, change in reading.change.items():
            sides = {"adapted": change.before.values.mean(), "frozen": change.after.values.mean()}
            found = intervals(change, PROBE).iloc[0]
            place = {"dataset": reading.dataset, "model": reading.model, "metric": metric}
            ends = {"change": found["value"], "low": found["low"], "high": found["high"]}
            records.append(place | sides | ends | {"p": reading.p[metric]})
    table = pd.DataFrame(records)
    table["p (Holm)"] = holm(table["p"])
    told = table["p (Holm)"] < 1 - LEVEL
    ways = [told & (table["change"] > 0), told & (table["change"] < 0)]
    return table.assign(verdict=np.select(ways, [RAISED, LOWERED], NEITHER))


def gaps(readings: Iterable[Compared]) -> pd.DataFrame:
    """The average gap of each model over data sets and METRICS: model, gap (its reading), numbers, value, low, high.

    `numbers` is how many it is the mean of. Metrics of one data set come from the same answers and are drawn together;
    data sets are independent, and their intervals joined (Zou and Donner 2008). A relative change of nothing is nan.
    """
    by_model: dict[str, list[Compared]] = {}
    for reading in readings:
        by_model.setdefault(reading.model, []).append(reading)
    rows = []
    for model, own in by_model.items():
        for gap in (RELATIVE, POINTS):
            values, halves = zip(*(_gap(reading, gap) for reading in own), strict=True)
            value, half = np.mean(values), np.sqrt(np.sum(np.square(halves))) / len(own)
            rows.append((model, gap, len(METRICS) * len(own), value, value - half, value + half))
    return pd.DataFrame(rows, columns=["model", "gap", "numbers", "value", "low", "high"])


def _gap(reading: Compared, gap: str) -> tuple[float, float]:
    """Mean over metrics on one data set, and half the width of its interval."""
    values, drawn, clusters = [], [], min(change.clusters for change in reading.change.values())
    for change in reading.change.values():
        after, before = (_means(side.values, side.resampled) for side in (change.after, change.before))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = after - before if gap == POINTS else 100 * (after / before - 1)
        values.append(found[0])
        drawn.append(found[1:])
    value, resampled = np.mean(values), np.mean(drawn, axis=0)
    finite = np.isfinite(resampled)
    if not np.isfinite(value) or 1 - finite.mean() > MOST_MISSING:
        return np.nan, np.nan
    error = resampled[finite].std(ddof=1) * np.sqrt(clusters / max(clusters - 1, 1))
    error = error if error > ROUNDING else 100 / clusters  # as if one cluster had changed
    return float(value), float(t.isf((1 - LEVEL) / 2, max(clusters - 1, 1)) * error)


def _means(values: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """Means over runs: of the images as they are, then of every resample, float [1 + resamples]."""
    return np.append(values.mean(), resampled.reshape(len(resampled), -1).mean(axis=1))
