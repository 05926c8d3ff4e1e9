"""From rows to the stations of a diagnosis: whether each test image is right where a module ends, and in the answer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import predicted_option
from mlprobe_utils.evaluation.stations import OUTPUT, PROBED, REFERENCE


def station_outcomes(
    probed: pd.DataFrame, predicted: pd.DataFrame, reference: pd.DataFrame | None, images: Sequence[str]
) -> dict[str, np.ndarray]:
    """The outcomes at every station of one model, data set and stage; of all rows, those of test images count.

    Args:
        probed: probe rows of one recipe and several seeds; of each module the last point that is there.
        predicted: rows of the final output of the same state: of one run.
        reference: the rows of the data set's reference, one an image; None: there is none.
        images: the names of the test images, sorted, as `resamples_of_tested` gives them.

    Returns:
        station -> bool [seeds, images] of the probes, [images] of reference and final output; every one of STATIONS,
        but for a reference that there is not.

    Raises:
        InputError: a station without rows, a test image that a station lacks or has twice; as `outcomes`.
    """
    probed, predicted = (rows[rows["part"] == "test"] for rows in (probed, predicted))
    whose, right = _whose(probed, predicted), {}
    if reference is not None:
        tested = reference[reference["part"] == "test"]
        right[REFERENCE] = single_outcomes(tested, images, f"{whose}, {REFERENCE}")
    for station, (module, pooling) in PROBED.items():
        own = probed[(probed["pooling"] == pooling) & (probed["point"].str[0] == module)]
        if own.empty:
            raise InputError(f"{whose}, {station}: no probe rows of module {module}, {pooling}: probe it")
        found = outcomes(own[own["point"] == last_point(own)])
        _check_images(pd.Series(found.images), images, f"{whose}, {station}")
        right[station] = found.right[:, 0]
    right[OUTPUT] = single_outcomes(predicted, images, f"{whose}, {OUTPUT}", parsed=True)
    return right


def single_outcomes(rows: pd.DataFrame, images: Sequence[str], what: str, parsed: bool = False) -> np.ndarray:
    """Whether the option said is the label, of rows that have one an image: bool [images], in the order of `images`.

    Args:
        what: whose outcomes these are, for the error.
        parsed: whether the answer counts that was generated, of which an unparsed one is wrong; else it is the most
            probable option.

    Raises:
        InputError: an image is missing, there twice, or none of `images`.
    """
    _check_images(rows["image"], images, what)
    said = rows["parsed"] if parsed else predicted_option(rows)
    right = (said == rows["label"]).fillna(False).to_numpy(bool)
    return pd.Series(right, index=rows["image"]).loc[list(images)].to_numpy()


def last_point(rows: pd.DataFrame) -> str:
    """The last of the probe points of some rows, as the data flows."""
    return max(rows["point"].unique(), key=flow_order)


def _check_images(found: pd.Series, images: Sequence[str], what: str) -> None:
    counted = found.value_counts()
    if foreign := sorted(set(counted.index) - set(images)):
        raise InputError(f"{what}: image {foreign[0]} is no test image of this split: take rows of the split")
    counted = counted.reindex(list(images), fill_value=0)
    if (counted != 1).any():
        image = counted.index[counted != 1][0]
        mend = "choose one run" if counted[image] else "make the missing rows"
        raise InputError(f"{what}: test image {image} is there {counted[image]} times, expected once: {mend}")


def _whose(*tables: pd.DataFrame) -> str:
    """The model and data set that rows are of, for errors."""
    first = next((rows.iloc[0] for rows in tables if len(rows)), None)
    return "a diagnosis" if first is None else f"{first['model']} on {first['dataset']}"
