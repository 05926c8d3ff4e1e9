"""What a probe of one LLM layer reads at another, against that layer's own probe: paired, with intervals."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.paired_tests import holm, paired_tests

CURVE = ["dataset", "model", "stage", "pooling"]
BEFORE, FIRST, LAST = "the layer before", "the first layer, at the last", "the last layer, at the first"


def read_at(rows: pd.DataFrame) -> tuple[np.ndarray, list[str], list[str]]:
    """Whether each image is right, of one model, data set, stage and pooling: bool [fitted at, read at, images].

    Args:
        rows: from `results.transfer_rows`.

    Returns:
        The outcomes; the LLM points, in the order the data flows; the images, sorted.

    Raises:
        InputError: as `outcomes`.
    """
    points = sorted(rows["probe"].unique(), key=flow_order)
    found = [outcomes(rows[rows["probe"] == point]) for point in points]
    return np.stack([own.at(*points).right[0] for own in found]), points, found[0].images


def transfer_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every pair of layers: CURVE, fitted at, read at, accuracy (percent)."""
    frames = []
    for place, own in rows.groupby(CURVE, sort=False):
        right, points, _ = read_at(own)
        pairs = pd.MultiIndex.from_product([points, points], names=["fitted at", "read at"])
        table = pd.DataFrame({"accuracy": 100 * right.mean(axis=2).ravel()}, pairs).reset_index()
        frames.append(table.assign(**dict(zip(CURVE, place, strict=True))))
    return pd.concat(frames, ignore_index=True)


def transfer_losses(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split: str) -> pd.DataFrame:
    """Accuracy with the probe of another layer less that with the layer's own, on the same images.

    Of neighbours it is the mean over all layers that have one before them. Intervals are of these probes on new images.

    Args:
        rows: from `results.transfer_rows`.
        image_sets, split: by slug, of the rows.

    Returns:
        dataset, model, stage, pooling, probe of (BEFORE, FIRST, LAST), change, low, high (points), p, p (Holm) over all
        rows. An LLM with one layer has no rows.

    Raises:
        InputError: as `outcomes`.
    """
    records = []
    drawn = {dataset: resamples_of_tested(image_sets[dataset], split)[0] for dataset in rows["dataset"].unique()}
    for place, own in rows.groupby(CURVE, sort=False):
        right, points, _ = read_at(own)
        layers = np.arange(len(points))
        pairs = {BEFORE: (layers[:-1], layers[1:]), FIRST: ([0], [-1]), LAST: ([-1], [0])}
        for name, (fitted, read) in pairs.items() if len(points) > 1 else ():
            # layers take the place of seeds: what is asked is their mean
            sides = right[read, read][:, None], right[fitted, read][:, None]
            test = paired_tests(*sides, drawn[place[0]]).iloc[0]
            found = {"change": test["value"], "low": test["low"], "high": test["high"], "p": test["p"]}
            records.append(dict(zip(CURVE, place, strict=True)) | {"probe of": name} | found)
    table = pd.DataFrame(records, columns=[*CURVE, "probe of", "change", "low", "high", "p"])
    return table.assign(**{"p (Holm)": holm(table["p"])})
