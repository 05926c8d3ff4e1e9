"""From rows to arrays: whether each image is answered rightly, at every point and with every seed. No torch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.errors import InputError
from mlprobe_utils.metrics import predicted_option
from mlprobe_utils.rows import OPTION, options_of

CURVE = ["model", "fault", "dataset", "data_hash", "split", "part", "stage", "order", "probe", "pooling", "control"]


@dataclass(frozen=True)
class Outcomes:
    """`right` says it, bool [seeds, points, images]; `points` and `images` (paths in the release) name its axes."""

    right: np.ndarray
    points: list[str]
    images: list[str]


def outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of one curve: the probe rows of one model, data set, stage, recipe, pooling and part, all its runs.

    Points are in the order of their names within the rows, images sorted.

    Raises:
        InputError: no rows, rows of several curves, a probability that is nan, an image that is missing or there twice
            at a point.
    """
    if rows.empty:
        raise InputError("no rows to take outcomes from: choose a model, data set, stage and pooling that were run")
    for column in CURVE:
        if rows[column].nunique(dropna=False) > 1:
            raise InputError(f"outcomes are of one curve, these rows are of several: choose one of {column}")
    probabilities = rows[[OPTION + option for option in options_of(rows)]]
    if (bad := probabilities.isna().any(axis=1)).any():
        raise InputError(
            f"{rows['model'].iloc[0]} on {rows['dataset'].iloc[0]}: the probe at {rows.loc[bad, 'point'].iloc[0]} gave "
            f"{bad.sum()} images no probability (nan): the features there are not finite, extract them anew"
        )
    right = rows.assign(right=predicted_option(rows) == rows["label"])
    counted = right.groupby(["run", "point", "image"], sort=False).size().unstack("image", fill_value=0)
    if (counted != 1).any(axis=None):
        run, point = counted.index[(counted != 1).any(axis=1)][0]
        image = counted.columns[counted.loc[run, point] != 1][0]
        raise InputError(f"run {run}, point {point}: image {image} is there {counted.loc[(run, point), image]} times")
    wide = right.set_index(["run", "point", "image"])["right"]
    runs, points, images = (list(rows[name].unique()) for name in ("run", "point", "image"))
    complete = pd.MultiIndex.from_product([runs, points, sorted(images)])
    if len(wide) != len(complete):
        raise InputError(f"{len(runs)} runs of {len(points)} points are not all there: probe the missing ones")
    values = wide.reindex(complete).to_numpy(bool)
    return Outcomes(values.reshape(len(runs), len(points), len(images)), points, sorted(images))
