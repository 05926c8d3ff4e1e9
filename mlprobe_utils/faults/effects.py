"""What a fault does to a model's curves: each probe point intact against damaged, on the same images. No torch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.faults.card import ANSWER, Fault
from mlprobe_utils.faults.tables import PLACES
from mlprobe_utils.intervals import intervals
from mlprobe_utils.points import flow_order, on_side_path
from mlprobe_utils.resampling import accuracy, resample
from mlprobe_utils.results import (
    DAMAGED_RUN,
    Selection,
    fault_prediction_rows,
    fault_probe_rows,
    prediction_rows,
    probe_rows,
)
from mlprobe_utils.rows import predicted_option

KEYS = ["point", "pooling"]
WHERE = ("before", "at", "after")


def effects(selection: Selection, faults: Sequence[Fault], part: str = "test") -> pd.DataFrame:
    """One row a fault, probe point and pooling, and one for the generated answer (point `output`, no pooling).

    Columns: fault (slug), place (the damaged point, or `output`), point, pooling, images, where (before, at or after
    the place), intact and damaged (accuracy, percent), change (points) with the ends `low` and `high` of its 95 %
    interval (`intervals`, of these probes on new images: in a phantom set every image is a patient of its own). The
    intact curve is that of the same run. In the order the data flows.

    Args:
        selection: one model and one data set.
        part: `test` or `validation`.

    Raises:
        InputError: the model was not run, intact or damaged.
    """
    slugs = [fault.slug for fault in faults]
    intact = _right(probe_rows(selection), prediction_rows(selection), part)
    damaged = _right(fault_probe_rows(selection, slugs), fault_prediction_rows(selection, slugs), part)
    records, before, after = [], [], []
    for fault in faults:
        own = damaged[damaged["fault"] == fault.slug]
        points = sorted({point for point in own["point"] if point != ANSWER}, key=flow_order)
        place = fault.place(points) or ANSWER
        pairs = intact.merge(own, on=[*KEYS, "image"], suffixes=("_intact", "_damaged"))
        pairs = pairs.sort_values("image", kind="stable")
        for (point, pooling), pair in pairs.groupby(KEYS, dropna=False, sort=False):
            before.append(pair["right_intact"].to_numpy(bool))
            after.append(pair["right_damaged"].to_numpy(bool))
            record = {"fault": fault.slug, "place": place, "point": point, "pooling": pooling, "images": len(pair)}
            record["where"] = WHERE[1 + (_flow(point) > _flow(place)) - (_flow(point) < _flow(place))]
            records.append(record)
    drawn = resample(np.arange(len(before[0])))
    intact_accuracy, damaged_accuracy = (accuracy(np.stack(right), drawn) for right in (before, after))
    ends = intervals(damaged_accuracy - intact_accuracy)
    table = pd.DataFrame(records).assign(intact=intact_accuracy.values, damaged=damaged_accuracy.values)
    table = table.assign(change=ends["value"], low=ends["low"], high=ends["high"])
    order = {slug: number for number, slug in enumerate(slugs)}
    return table.sort_values(
        ["fault", "point"], key=lambda c: c.map(order) if c.name == "fault" else c.map(_flow), kind="stable"
    ).reset_index(drop=True)


def _flow(point: str) -> tuple[int, int]:
    return (99, 0) if point == ANSWER else flow_order(point)


def _right(probes: pd.DataFrame, answers: pd.DataFrame, part: str) -> pd.DataFrame:
    """fault, point, pooling, image, right: of the fine-tuned run that faults are planted in."""
    frames = []
    for rows, predicted in ((probes, predicted_option(probes)), (answers, answers["parsed"])):
        own = rows.assign(right=predicted == rows["label"], point=rows["point"].fillna(ANSWER))
        own = own[(own["part"] == part) & (own["stage"] == "finetuned") & (own["run"] == DAMAGED_RUN)]
        frames.append(own[["fault", *KEYS, "image", "right"]])
    return pd.concat(frames, ignore_index=True)


def main_path(table: pd.DataFrame, pooling: str = "image_mean") -> pd.DataFrame:
    """The rows of one pooling and of the answer, without side paths, as the information flows."""
    of_pooling = table["pooling"].isin([pooling]) | table["pooling"].isna()
    return table[of_pooling & ~table["point"].map(on_side_path)]


def around(table: pd.DataFrame) -> pd.DataFrame:
    """Of each fault the last point before the damaged place, the place itself, and the first after it.

    Args:
        table: from `effects`.

    Returns:
        Its rows of image tokens (or the answer); then of the last token, where that has a state at the place.
    """
    parts = []
    for _, own in table.groupby("fault", sort=False):
        for pooling in ("image_mean", "last_token"):
            before, at, after = _by_where(main_path(own, pooling))
            if len(at):
                parts += [before.tail(1), at, after.head(1)]
    return pd.concat(parts, ignore_index=True).drop_duplicates(["fault", *KEYS])


def _by_where(path: pd.DataFrame) -> list[pd.DataFrame]:
    return [path[path["where"] == where] for where in WHERE]


def first_drop(table: pd.DataFrame, pooling: str = "image_mean") -> pd.DataFrame:
    """Where a curve falls first: fault, damaged at, first drop (both points), module.

    The first point, on the way from the vision tower to the answer, whose interval lies below 0, or `nowhere`.

    Args:
        table: from `effects`.
    """
    records = []
    for fault, own in table.groupby("fault", sort=False):
        path = main_path(own, pooling)
        fallen = path[path["high"] < 0]
        point = fallen["point"].iloc[0] if len(fallen) else ""
        module = PLACES.get(point if point == ANSWER else point[:1], "none")
        records.append((fault, path["place"].iloc[0], point or "nowhere", module))
    return pd.DataFrame(records, columns=["fault", "damaged at", "first drop", "module"])
