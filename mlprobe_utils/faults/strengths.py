"""How strong planted faults are: what the oracle loses on fresh phantoms, with intervals. Does not import torch."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mlprobe_utils.intervals import LEVEL, intervals
from mlprobe_utils.resampling import accuracy, resample
from mlprobe_utils.results import Selection, fault_hits

_READING = ["model", "dataset", "fault", "point", "pooling", "decides", "severity", "wanted", "most", "reached"]


def fault_strengths(selection: Selection, faults: Iterable[str]) -> pd.DataFrame:
    """What the oracle loses to each fault (slugs): one row a reading, accuracies and changes in percent and points.

    Returns:
        model, dataset, fault, point (`output`: the model's own answer), pooling, decides (whether the strength is this
        row's), severity, wanted and most (points that were wanted, and that severity 1 loses), reached, images, intact
        and damaged with the ends of their exact intervals (Clopper and Pearson 1934), change with the ends of its
        paired one.

    Raises:
        InputError: a fault that was not planted.
    """
    hits, tables = fault_hits(selection, faults), []
    for _, own in hits.groupby(["model", "dataset", "fault"], sort=False):
        readings = own.groupby(_READING, dropna=False, sort=False)
        table = pd.DataFrame([dict(zip(_READING, reading, strict=True)) for reading, _ in readings])
        before, after = (np.stack([of[name] for _, of in readings]) for name in ("intact", "damaged"))
        drawn = resample(np.arange(before.shape[1]))
        change = intervals(accuracy(after, drawn) - accuracy(before, drawn))[["value", "low", "high"]]
        table = table.assign(images=before.shape[1], **_exact("intact", before), **_exact("damaged", after))
        tables.append(table.assign(**change.rename(columns={"value": "change"})))
    return pd.concat(tables, ignore_index=True)


def _exact(name: str, hits: np.ndarray) -> dict[str, list[float]]:
    """Accuracy in percent of hits [readings, images], and the ends of its interval, by column."""
    bounds = [binomtest(int(own.sum()), len(own)).proportion_ci(LEVEL, method="exact") for own in hits]
    ends = {f"{name}_{end}": [100 * getattr(bound, end) for bound in bounds] for end in ("low", "high")}
    return {name: list(100 * hits.mean(axis=1))} | ends
