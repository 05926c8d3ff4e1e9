"""Comprehension and utilization along the LLM (paper section 5, figure 5): image tokens, and the last token.

Comprehension is what a probe reads in the mean of the image tokens, utilization what it reads in the last token. Both
are asked about the same test images with probes of the same seeds, so that their differences are paired.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes
from mlprobe_utils.evaluation.points import POOLINGS, flow_order
from mlprobe_utils.evaluation.rows import STAGES, predicted_option
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, RECIPE, intervals
from mlprobe_utils.stats.paired_tests import holm, paired_tests
from mlprobe_utils.stats.resampling import Resamples, accuracy

ABOVE, BELOW, NEITHER = "utilization above", "utilization below", "not distinguishable"
NEVER = "never"
CURVE = ["model", "dataset", "stage"]


@dataclass(frozen=True)
class Reading:
    """Both curves of one model on one data set in one stage, at the same LLM points; `chosen` on validation images."""

    model: str
    dataset: str
    stage: str
    comprehension: Outcomes
    utilization: Outcomes
    chosen: dict[str, str]  # of POOLINGS -> the point that is best on the validation images
    resamples: Resamples

    @property
    def place(self) -> dict[str, str]:
        return {"model": self.model, "dataset": self.dataset, "stage": self.stage}


def read(selection: Selection, image_sets: Mapping[str, ImageSet]) -> list[Reading]:
    """The readings of a selection, in the order data set, model, stage.

    Raises:
        InputError: what `results.seed_rows`, `outcomes` and `resamples_of_tested` raise; rows of other test images
            than the image set's.
    """
    found = []
    drawn = {dataset: resamples_of_tested(image_sets[dataset], selection.split) for dataset in selection.datasets}
    for model, dataset, _ in selection.folders():
        one = replace(selection, models=(model,), datasets=(dataset,))
        seeds, fitted = (
            rows[rows["point"].str[0] == "L"] for rows in (results.seed_rows(one), results.probe_rows(one))
        )
        resamples, images = drawn[dataset]
        for stage in STAGES:
            curves, chosen = {}, {}
            for name, pooling in POOLINGS.items():
                own, validated = (
                    rows[(rows["stage"] == stage) & (rows["pooling"] == pooling)] for rows in (seeds, fitted)
                )
                curves[name] = outcomes(own)
                chosen[name] = best_on_validation(validated)
                if curves[name].images != images:
                    raise InputError(
                        f"{model} on {dataset}, {stage}: its rows are not of the test images, make them anew"
                    )
            found.append(Reading(model, dataset, stage, *curves.values(), chosen, resamples))
    return found


def best_on_validation(rows: pd.DataFrame) -> str:
    """The point with the highest accuracy on the validation images, mean over runs; of several the earliest.

    Args:
        rows: of one curve, of validation images among others.

    Raises:
        InputError: no rows of validation images.
    """
    own = rows[rows["part"] == "validation"]
    if own.empty:
        raise InputError("no rows of validation images to choose a point with: probe the validation images too")
    right = (predicted_option(own) == own["label"]).groupby(own["point"]).mean()
    return min(right.index[right == right.max()], key=flow_order)


def differences(readings: Iterable[Reading]) -> pd.DataFrame:
    """Utilization less comprehension at every LLM layer, in points, with simultaneous bands of RECIPE.

    Returns:
        model, dataset, stage, point, comprehension, utilization (percent, means over seeds), value, band_low,
        band_high (points), verdict: ABOVE or BELOW where the band lies on one side of 0, else NEITHER.
    """
    frames = []
    for reading in readings:
        sides = [accuracy(own.right, reading.resamples) for own in (reading.utilization, reading.comprehension)]
        found = intervals(sides[0] - sides[1], RECIPE)[["value", "band_low", "band_high"]]
        verdict = np.select([found["band_low"] > 0, found["band_high"] < 0], [ABOVE, BELOW], NEITHER)
        means = {"utilization": sides[0].values.mean(axis=0), "comprehension": sides[1].values.mean(axis=0)}
        frames.append(found.assign(**reading.place, point=reading.comprehension.points, verdict=verdict, **means))
    table = pd.concat(frames, ignore_index=True)
    return table[[*CURVE, "point", "comprehension", "utilization", "value", "band_low", "band_high", "verdict"]]


def course(told: pd.DataFrame) -> pd.DataFrame:
    """How utilization stands to comprehension in the first layer, in the last, and anywhere; counted over models.

    Args:
        told: from `differences`.

    Returns:
        dataset, stage, where (first layer, last layer, any layer), models, and a column a verdict. Of any layer,
        a model counts for each verdict that it has somewhere but NEITHER, which counts where it has no other.
    """
    ordered = told.sort_values("point", key=lambda points: points.map(flow_order), kind="stable")
    of_curve = ordered.groupby([*CURVE], sort=False)["verdict"]
    rows = []
    for where, has in (
        ("first layer", of_curve.agg(lambda own: {own.iloc[0]})),
        ("last layer", of_curve.agg(lambda own: {own.iloc[-1]})),
        ("any layer", of_curve.agg(lambda own: {*own} - {NEITHER} or {NEITHER})),
    ):
        for (dataset, stage), own in has.groupby(["dataset", "stage"], sort=False):
            counts = {verdict: sum(verdict in found for found in own) for verdict in (BELOW, ABOVE, NEITHER)}
            rows.append({"dataset": dataset, "stage": stage, "where": where, "models": len(own)} | counts)
    return pd.DataFrame(rows).sort_values(["dataset", "stage"], kind="stable", ignore_index=True)


def crossings(readings: Iterable[Reading]) -> pd.DataFrame:
    """The layer at which utilization catches up: the first at which it is no lower than comprehension.

    Returns:
        model, dataset, stage, at, earliest, latest: LLM points, or NEVER. The last two are the ends of a 95 %
        percentile interval over resamples of images, with the probes as they are: where a curve crosses again and again
        it is wide.
    """
    rows = []
    for reading in readings:
        sides = [accuracy(own.right, reading.resamples) for own in (reading.utilization, reading.comprehension)]
        change = sides[0] - sides[1]
        drawn = np.vstack([change.values.mean(axis=0), change.resampled.mean(axis=1)])
        points = np.array([*reading.comprehension.points, NEVER])
        reached = np.c_[drawn >= 0, np.ones(len(drawn), dtype=bool)].argmax(axis=1)
        tails = np.quantile(reached[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        rows.append(reading.place | dict(zip(("at", "earliest", "latest"), points[[reached[0], *tails]], strict=True)))
    return pd.DataFrame(rows)


def ceilings(readings: Iterable[Reading]) -> pd.DataFrame:
    """Whether utilization exceeds comprehension, each at the layer that is its best on the validation images.

    Returns:
        model, dataset, stage, comprehension at, utilization at (LLM points), comprehension, utilization (percent),
        difference, low, high (points, of RECIPE), p, p (Holm) over all rows, verdict: ABOVE or BELOW where p (Holm) is
        below 5 %, else NEITHER.
    """
    frames = []
    for reading in readings:
        sides = {name: getattr(reading, name).at(reading.chosen[name]).right for name in POOLINGS}
        found = paired_tests(sides["comprehension"], sides["utilization"], reading.resamples, RECIPE)
        found = found.rename(columns={"value": "difference"})[["difference", "low", "high", "p"]]
        at = {f"{name} at": reading.chosen[name] for name in POOLINGS}
        frames.append(found.assign(**reading.place, **at, **{name: 100 * own.mean() for name, own in sides.items()}))
    table = pd.concat(frames, ignore_index=True)
    table["p (Holm)"] = holm(table["p"])
    told = table["p (Holm)"] < 1 - LEVEL
    table["verdict"] = np.select(
        [told & (table["difference"] > 0), told & (table["difference"] < 0)], [ABOVE, BELOW], NEITHER
    )
    columns = [*(f"{name} at" for name in POOLINGS), *POOLINGS, "difference", "low", "high", "p", "p (Holm)", "verdict"]
    return table[[*CURVE, *columns]]
