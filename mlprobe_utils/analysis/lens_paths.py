"""What becomes of the options from layer to layer, through the logit lens: where the answer appears, and whether it is
lost again.

`logit_lens` makes the rows: probabilities of the options at every LLM layer, of validation and test images.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.comprehension import best_on_validation
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import OPTION, options_of
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.paired import NEITHER, Pair, compare

LOST, GAINED = "lost", "gained"


def true_option(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean probability of the true option on the test images, in percent: model, dataset, stage, run, point, value.

    Probabilities are normalised over the options, so that guessing gives the same to each.
    """
    tested, frames = rows[rows["split"] == "test"], []
    for _, own in tested.groupby("dataset", sort=False):
        options = options_of(own)
        probabilities = own[[OPTION + option for option in options]].to_numpy()
        of_truth = probabilities[np.arange(len(own)), pd.Categorical(own["label"], options).codes]
        frames.append(own.assign(value=100 * of_truth))
    return pd.concat(frames).groupby([*STATE, "run", "point"], dropna=False, sort=False)["value"].mean().reset_index()


def settled(rows: pd.DataFrame) -> pd.DataFrame:
    """How many test images rank first, at a layer and at all later ones, the option that the last layer ranks first.

    Returns:
        model, dataset, stage, run, point, value (percent); at the last layer it is 100.
    """
    frames = []
    for (*place, run), own in rows[rows["split"] == "test"].groupby([*STATE, "run"], dropna=False, sort=False):
        found = outcomes(own)
        points = found.of_module("L")
        predicted = found.at(*points).predicted[0]
        same = np.logical_and.accumulate((predicted == predicted[-1])[::-1])[::-1]
        curve = pd.DataFrame({"point": points, "value": 100 * same.mean(axis=1)})
        frames.append(curve.assign(**dict(zip(STATE, place, strict=True)), run=run))
    return pd.concat(frames, ignore_index=True)


def settling_layers(shares: pd.DataFrame) -> pd.DataFrame:
    """The layer by which half of the images have settled: dataset, model, stage, at, layers before the last.

    Args:
        shares: from `settled`; the mean over runs counts.
    """
    means = shares.groupby([*STATE, "point"], sort=False)["value"].mean().reset_index()
    rows = []
    for (model, dataset, stage), own in means.groupby(STATE, sort=False):
        curve = own.set_index("point")["value"].sort_index(key=lambda points: points.map(flow_order))
        at = int(np.argmax(curve.to_numpy() >= 50))
        rows.append((dataset, model, stage, curve.index[at], len(curve) - 1 - at))
    return pd.DataFrame(rows, columns=["dataset", "model", "stage", "at", "layers before the last"])


def lost_on_the_way(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Whether the last layer ranks the options worse than an earlier one: the best on the validation images.

    Runs are averaged, and intervals allow for other images only.

    Args:
        rows: from `results.lens_rows`, of all splits.
        image_sets, split_rule: by slug, of the rows.

    Returns:
        dataset, model, stage, at (the layer chosen), there, at the end (percent correct), correct there alone,
        correct at the end alone (percent of images), change and further columns of `paired.compare`, with verdict LOST,
        GAINED or NEITHER.
    """
    pairs = []
    for place, own, drawn, _ in groups(rows, STATE, image_sets, split_rule):
        chosen = best_on_validation(own)
        runs = [outcomes(of_run) for _, of_run in own[own["split"] == "test"].groupby("run", dropna=False)]
        last = runs[0].of_module("L")[-1]
        there, end = (np.concatenate([run.at(point).correct for run in runs]) for point in (chosen, last))
        shares = {"there": there, "at the end": end}
        shares |= {"correct there alone": there & ~end, "correct at the end alone": end & ~there}
        place |= {"at": chosen} | {name: 100 * share.mean() for name, share in shares.items()}
        pairs.append(Pair(place, there, end, drawn))
    by = ["dataset", "model", "stage", "at", "there", "at the end", "correct there alone", "correct at the end alone"]
    return compare(pairs, by, words=(LOST, GAINED, NEITHER))
