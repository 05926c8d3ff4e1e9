"""Probes with other settings against the main ones, and probes of one LLM layer applied to another."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import MODULES, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline.cards import Protocol
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.paired import WORDS, Pair, compare

PLACE = ["dataset", "model", "stage"]
CURVE = [*PLACE, "pooling"]
BEFORE, FIRST, LAST = "previous layer", "first layer, applied at the last", "last layer, applied at the first"


def setting_changes(
    rows: Mapping[str, pd.DataFrame], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """Accuracy with other settings - accuracy with the main ones, mean over a module's points, for new images: dataset,
    model, stage, settings, module (its letter), change and further columns of `paired.compare`. `rows`: name -> probe
    rows of one run and one pooling, MAIN_PROBE among them. Raises ValueError for probes fitted at different points."""
    tested = {name: own[own["split"] == "test"] for name, own in rows.items()}
    others = {name: dict(iter(own.groupby(PLACE))) for name, own in tested.items() if name != MAIN_PROBE}
    pairs = []
    for place, own, drawn, _ in groups(tested[MAIN_PROBE], PLACE, image_sets, split_rule):
        main = outcomes(own)
        for name, by_place in others.items():
            other = outcomes(by_place[*place.values(),])
            if other.points != main.points or other.images != main.images:
                raise ValueError(f"'{name}' was not fitted at the points, or on the images, of '{MAIN_PROBE}'")
            for module in MODULES:
                points = main.of_module(module)  # take the place of seeds: what is compared is their mean
                sides = (np.moveaxis(side.at(*points).correct, 0, 1) for side in (main, other))
                pairs.append(Pair(place | {"settings": name, "module": module}, *sides, drawn))
    return compare(pairs, [*PLACE, "settings", "module"], words=WORDS)


def training_steps(protocol: Protocol, labels: Sequence[str]) -> pd.DataFrame:
    """How long each probe trains on images of these labels: settings, images (its share of each class), steps."""
    classes, records = pd.Series(labels).value_counts(), []
    for name, probe in protocol.probes.items():
        images = int((classes * probe.training_fraction).round().clip(lower=1).sum())
        records.append((name, images, probe.epochs * ceil(images / probe.batch_size)))
    return pd.DataFrame(records, columns=["settings", "images", "steps"])


def transferred(rows: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Whether each image is correct, bool [fitted at, applied at, images], and the LLM points as the data flows: of
    `results.transfer_rows` of one CURVE."""
    points = sorted(rows["probe"].unique(), key=flow_order)
    return np.stack([outcomes(rows[rows["probe"] == p]).at(*points).correct[0] for p in points]), points


def transfer_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every pair of layers: CURVE, fitted at, applied at, accuracy (percent)."""
    frames = []
    for place, own in rows.groupby(CURVE, sort=False):
        correct, points = transferred(own)
        pairs = pd.MultiIndex.from_product([points, points], names=["fitted at", "applied at"])
        table = pd.DataFrame({"accuracy": 100 * correct.mean(axis=2).ravel()}, pairs).reset_index()
        frames.append(table.assign(**dict(zip(CURVE, place, strict=True))))
    return pd.concat(frames, ignore_index=True)


def transfer_losses(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Accuracy with the probe of another layer - with the layer's own, for new images; none of a single layer: dataset,
    model, stage, pooling, probe of (BEFORE, the mean over all layers that have one before them, FIRST, LAST),
    change and further columns of `paired.compare`."""
    pairs = []
    for place, own, drawn, _ in groups(rows, CURVE, image_sets, split_rule):
        correct, points = transferred(own)
        layers = np.arange(len(points))
        places = {BEFORE: (layers[:-1], layers[1:]), FIRST: ([0], [-1]), LAST: ([-1], [0])}
        for name, (fitted, at) in places.items() if len(points) > 1 else ():
            sides = correct[at, at][:, None], correct[fitted, at][:, None]  # layers take the place of seeds
            pairs.append(Pair(place | {"probe of": name}, *sides, drawn))
    return compare(pairs, [*CURVE, "probe of"], words=WORDS)
