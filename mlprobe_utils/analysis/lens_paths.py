"""What becomes of the options from layer to layer, through the logit lens: where the answer appears, and whether it is
lost again.

`logit_lens` makes the rows: probabilities of the options at every LLM layer, of validation and test images.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.comprehension import best_on_validation
from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import OPTION, options_of
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL
from mlprobe_utils.stats.paired_tests import holm, paired_tests

CURVE = ["model", "dataset", "stage"]
LOST, GAINED, NEITHER = "lost", "gained", "not distinguishable"


def true_option(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean probability of the true option on the test images, in percent: model, dataset, stage, run, point, value.

    Options are compared with each other alone, so that guessing gives the same to each.
    """
    tested, frames = rows[rows["part"] == "test"], []
    for _, own in tested.groupby("dataset", sort=False):
        options = options_of(own)
        chances = own[[OPTION + option for option in options]].to_numpy()
        of_truth = chances[np.arange(len(own)), pd.Categorical(own["label"], options).codes]
        frames.append(own.assign(value=100 * of_truth))
    keys = [*CURVE, "run", "point"]
    return pd.concat(frames).groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()


def settled(rows: pd.DataFrame) -> pd.DataFrame:
    """How many test images rank first, at a layer and at all later ones, the option that the last layer ranks first.

    Returns:
        model, dataset, stage, run, point, value (percent); at the last layer it is 100.
    """
    frames = []
    for (*place, run), said, points in _ranked_first(rows):
        same = np.logical_and.accumulate((said == said[-1])[::-1])[::-1]
        own = {"point": points, "value": 100 * same.mean(axis=1)}
        frames.append(pd.DataFrame(own).assign(**dict(zip(CURVE, place, strict=True)), run=run))
    return pd.concat(frames, ignore_index=True)


def settling_layers(told: pd.DataFrame) -> pd.DataFrame:
    """The layer by which half of the images have settled: dataset, model, stage, at, layers before the last.

    Args:
        told: from `settled`; the mean over runs counts.
    """
    means = told.groupby([*CURVE, "point"], sort=False)["value"].mean().reset_index()
    rows = []
    for (model, dataset, stage), own in means.groupby(CURVE, sort=False):
        curve = own.set_index("point")["value"].sort_index(key=lambda points: points.map(flow_order))
        at = int(np.argmax(curve.to_numpy() >= 50))
        rows.append((dataset, model, stage, curve.index[at], len(curve) - 1 - at))
    return pd.DataFrame(rows, columns=["dataset", "model", "stage", "at", "layers before the last"])


def lost_on_the_way(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split: str) -> pd.DataFrame:
    """Whether the last layer ranks the options worse than an earlier one: the best on the validation images.

    Layers are compared on the test images, in pairs; runs are averaged, and intervals allow for other images only.

    Args:
        rows: from `results.lens_rows`, of all parts.
        image_sets, split: by slug, of the rows.

    Returns:
        dataset, model, stage, at (the layer chosen), there, at the end (percent right), right there alone, right at the
        end alone (percent of images), change, low, high (points), p, p (Holm) over all rows, verdict: LOST or GAINED
        where p (Holm) is below 5 %, else NEITHER.
    """
    records = []
    drawn = {dataset: resamples_of_tested(image_sets[dataset], split)[0] for dataset in rows["dataset"].unique()}
    for (dataset, model, stage), own in rows.groupby(["dataset", "model", "stage"], sort=False):
        chosen = best_on_validation(own)
        tested = own[own["part"] == "test"]
        runs = [outcomes(of_run) for _, of_run in tested.groupby("run", dropna=False)]
        last = runs[0].of_module("L")[-1]
        there, end = (np.concatenate([run.at(point).right for run in runs]) for point in (chosen, last))
        test = paired_tests(there, end, drawn[dataset]).iloc[0]
        records.append(
            {"dataset": dataset, "model": model, "stage": stage, "at": chosen}
            | {"there": 100 * there.mean(), "at the end": 100 * end.mean()}
            | {"right there alone": 100 * (there & ~end).mean(), "right at the end alone": 100 * (end & ~there).mean()}
            | {"change": test["value"], "low": test["low"], "high": test["high"], "p": test["p"]}
        )
    table = pd.DataFrame(records)
    table["p (Holm)"] = holm(table["p"])
    told = table["p (Holm)"] < 1 - LEVEL
    ways = [told & (table["change"] < 0), told & (table["change"] > 0)]
    return table.assign(verdict=np.select(ways, [LOST, GAINED], NEITHER))


def _ranked_first(rows: pd.DataFrame):
    """Of each model, data set, stage and run: the place of the option ranked first, int [points, images], in order."""
    tested = rows[rows["part"] == "test"]
    for place, own in tested.groupby([*CURVE, "run"], dropna=False, sort=False):
        found = outcomes(own)
        points = found.of_module("L")
        yield place, found.at(*points).said[0], points
