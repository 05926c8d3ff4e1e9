"""Comprehension and utilization along the LLM (paper section 5, figure 5): image tokens, and the last token.

Comprehension is what a probe finds in the mean of the image tokens, utilization what it finds in the last token. Both
are evaluated on the same test images with probes of the same seeds, so that their differences are paired.
"""

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes
from mlprobe_utils.evaluation.points import POOLINGS, flow_order
from mlprobe_utils.evaluation.rows import STAGES, predicted_option
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import LEVEL, RECIPE, intervals
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, verdicts
from mlprobe_utils.stats.resampling import Statistic, accuracy

ABOVE, BELOW = "utilization above", "utilization below"
WORDS = BELOW, ABOVE, NEITHER
CURVE, BEST = "every layer", "the best layer on validation images"
NEVER = "never"


def outcomes_of(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, of POOLINGS, CURVE or BEST) -> outcomes at LLM points, of one model and data set."""
    seeds, fitted = (rows[rows["point"].str[0] == "L"] for rows in (results.seed_rows(one), results.probe_rows(one)))
    found = {}
    for stage, (name, pooling) in product(STAGES, POOLINGS.items()):
        own, validated = (rows[(rows["stage"] == stage) & (rows["pooling"] == pooling)] for rows in (seeds, fitted))
        found[stage, name, CURVE] = outcomes(own)
        found[stage, name, BEST] = found[stage, name, CURVE].at(best_on_validation(validated))
    return found


def best_on_validation(rows: pd.DataFrame) -> str:
    """The point of a curve with the highest accuracy on validation images, mean over runs; of several the earliest.

    Raises InputError if there are no rows of validation images.
    """
    own = rows[rows["split"] == "validation"]
    if own.empty:
        raise InputError("no rows of validation images to choose a point with: probe the validation images too")
    correct = (predicted_option(own) == own["label"]).groupby(own["point"]).mean()
    return min(correct.index[correct == correct.max()], key=flow_order)


def _curves(found: Iterable[Evaluated]) -> Iterator[tuple[dict[str, str], list[str], Statistic, Statistic]]:
    """Of every model, data set and stage: which it is, its points, comprehension and utilization."""
    for own, stage in product(found, STAGES):
        both = [own.outcomes[stage, name, CURVE] for name in POOLINGS]
        yield own.place(stage=stage), both[0].points, *(accuracy(one.correct, own.resamples) for one in both)


def differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Utilization less comprehension at every LLM layer, with simultaneous bands of RECIPE.

    Returns:
        model, dataset, stage, point, comprehension, utilization (percent, means over seeds), value, band_low,
        band_high (percentage points), verdict by the band: ABOVE, BELOW or NEITHER.
    """
    frames = []
    for place, points, before, after in _curves(found):
        own = intervals(after - before, RECIPE)[["value", "band_low", "band_high"]]
        means = {"comprehension": before.values.mean(axis=0), "utilization": after.values.mean(axis=0)}
        verdict = verdicts(own["band_low"], own["band_high"], WORDS)
        frames.append(own.assign(**place, point=points, verdict=verdict, **means))
    table = pd.concat(frames, ignore_index=True)
    return table[[*STATE, "point", "comprehension", "utilization", "value", "band_low", "band_high", "verdict"]]


def course(compared: pd.DataFrame) -> pd.DataFrame:
    """How utilization stands to comprehension in the first layer, in the last, and anywhere; counted over models.

    Args:
        compared: from `differences`.

    Returns:
        dataset, stage, where (first layer, last layer, any layer), models, and a column a verdict. Of any layer,
        a model counts for each verdict that it has somewhere but NEITHER, which counts where it has no other.
    """
    ordered = compared.sort_values("point", key=lambda points: points.map(flow_order), kind="stable")
    of_curve = ordered.groupby(STATE, sort=False)["verdict"]
    rows = []
    for where, has in (
        ("first layer", of_curve.agg(lambda own: {own.iloc[0]})),
        ("last layer", of_curve.agg(lambda own: {own.iloc[-1]})),
        ("any layer", of_curve.agg(lambda own: {*own} - {NEITHER} or {NEITHER})),
    ):
        for (dataset, stage), own in has.groupby(["dataset", "stage"], sort=False):
            counts = {verdict: sum(verdict in found for found in own) for verdict in WORDS}
            rows.append({"dataset": dataset, "stage": stage, "where": where, "models": len(own)} | counts)
    return pd.DataFrame(rows).sort_values(["dataset", "stage"], kind="stable", ignore_index=True)


def crossings(found: Iterable[Evaluated]) -> pd.DataFrame:
    """The layer at which utilization catches up: the first at which it is no lower than comprehension.

    Returns:
        model, dataset, stage, at, earliest, latest: LLM points, or NEVER. The last two are the ends of a 95 %
        percentile interval over resamples of images, with the probes as they are.
    """
    rows = []
    for place, points, before, after in _curves(found):
        change = after - before
        drawn = np.vstack([change.values.mean(axis=0), change.resampled.mean(axis=1)])
        reached = np.c_[drawn >= 0, np.ones(len(drawn), dtype=bool)].argmax(axis=1)
        tails = np.quantile(reached[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        at = np.array([*points, NEVER])[[reached[0], *tails]]
        rows.append(place | dict(zip(("at", "earliest", "latest"), at, strict=True)))
    return pd.DataFrame(rows)


def ceilings(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Whether utilization exceeds comprehension, each at the layer that is its best on the validation images.

    Returns:
        model, dataset, stage, comprehension at, utilization at (LLM points), comprehension, utilization (percent),
        difference and further columns of `paired.compare` under RECIPE, with verdict ABOVE, BELOW or NEITHER.
    """
    pairs = []
    for own, stage in product(found, STAGES):
        best = {name: own.outcomes[stage, name, BEST] for name in POOLINGS}
        place = own.place(stage=stage) | {f"{name} at": one.points[0] for name, one in best.items()}
        place |= {name: 100 * one.correct.mean() for name, one in best.items()}
        pairs.append(Pair(place, *(one.correct for one in best.values()), own.resamples, RECIPE))
    return compare(pairs, [*STATE, *(f"{name} at" for name in POOLINGS), *POOLINGS], "difference", WORDS)
