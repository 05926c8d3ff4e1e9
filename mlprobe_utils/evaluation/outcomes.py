"""From rows to arrays: what is answered to each image, at every point and with every seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import MODULES, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, OPTION, options_of
from mlprobe_utils.evaluation.stations import OUTPUT
from mlprobe_utils.stats.resampling import Resamples, Statistic, metric

CURVE = ["model", "fault", "dataset", "data_hash", "split", "part", "stage", "order", "probe", "pooling", "control"]


@dataclass(frozen=True)
class Outcomes:
    """What was answered to the images of one data set.

    Attributes:
        said: place of the answer among `options`, int [seeds, points, images]; -1: it is none of them.
        truth: the same of the true option, int [images].
        probabilities: of the options, float [seeds, points, images, options].
        seeds: of the probes; of final outputs the runs, [None] before fine-tuning.
        points, images (paths in the release, sorted), options: names of the axes.
    """

    said: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray
    seeds: list
    points: list[str]
    images: list[str]
    options: list[str]

    @property
    def right(self) -> np.ndarray:
        """Whether each image is answered rightly, bool [seeds, points, images]."""
        return self.said == self.truth

    def at(self, *points: str) -> "Outcomes":
        """Those of some points, in that order. Raises ValueError for a point that is not there."""
        places = [self.points.index(point) for point in points]
        axes = [self.seeds, [*points], self.images, self.options]
        return Outcomes(self.said[:, places], self.truth, self.probabilities[:, places], *axes)

    def of_module(self, module: str) -> list[str]:
        """The points of a module, by its letter, in the order the data flows."""
        return sorted((point for point in self.points if point[0] == module), key=flow_order)

    def score(self, name: str, positive: str | None, resamples: Resamples) -> Statistic:
        """`resampling.metric` of them; arguments and errors as there."""
        return metric(name, self.truth, self.said, self.probabilities, self.options, positive, resamples)


def of_modules(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that curves of modules are read off: the main recipe's, of test images, on the mean of image tokens."""
    chosen = (rows["part"] == "test") & (rows["probe"] == MAIN_PROBE) & (rows["pooling"] == "image_mean")
    return rows[chosen & rows["point"].str[0].isin(MODULES)]


def outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of one curve: the probe rows of one model, data set, stage, recipe, pooling and part, all its seeds.

    Points are in the order of their names within the rows, images sorted.

    Raises:
        InputError: no rows, rows of several curves, a probability that is nan, an image that is missing or there twice
            at a point.
    """
    _check(rows)
    return _arranged(rows, None, "seed", rows["point"])


def output_outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of final outputs: the prediction rows of one model, data set, stage and part, all its runs.

    The one point is OUTPUT; an unparsed answer is none of the options. Raises InputError as `outcomes`.
    """
    _check(rows)
    return _arranged(rows, rows["parsed"], "run", pd.Series(OUTPUT, rows.index))


def _check(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise InputError("no rows to take outcomes from: choose a model, data set, stage and pooling that were run")
    for column in CURVE:
        if rows[column].nunique(dropna=False) > 1:
            raise InputError(f"outcomes are of one curve, these rows are of several: choose one of {column}")


def _arranged(rows: pd.DataFrame, said: pd.Series | None, apart: str, point: pd.Series) -> Outcomes:
    """Rows in their places; `apart` is the column that makes the first axis, `said` None the most probable option."""
    options = options_of(rows)
    where = f"{rows['model'].iloc[0]} on {rows['dataset'].iloc[0]}"
    chances = rows[[OPTION + option for option in options]].to_numpy()
    if (bad := np.isnan(chances).any(axis=1)).any():
        raise InputError(
            f"{where}, {point[bad].iloc[0]}: {bad.sum()} images have no probability (nan): the numbers there are not "
            "finite, make the features or predictions anew"
        )
    coded = {apart: pd.factorize(rows[apart], use_na_sentinel=False), "point": pd.factorize(point)}
    coded["image"] = pd.factorize(rows["image"], sort=True)
    codes = [own for own, _ in coded.values()]
    names = [[None if pd.isna(name) else name for name in own] for _, own in coded.values()]
    shape = tuple(map(len, names))
    place = np.ravel_multi_index(codes, shape)
    times = np.bincount(place, minlength=np.prod(shape)).reshape(shape)
    if (times != 1).any():
        at = tuple(axis[0] for axis in np.nonzero(times != 1))
        seed, station, image = (own[n] for own, n in zip(names, at, strict=True))
        raise InputError(
            f"{where}, {apart} {seed}, {station}: image {image} is there {times[at]} times: each has to be there "
            "once, make the rows anew"
        )
    order = np.argsort(place)
    answers = chances.argmax(axis=1) if said is None else pd.Categorical(said, options).codes
    truth = pd.Categorical(rows["label"].iloc[order[: shape[-1]]], options).codes
    axes = [*names, options]
    return Outcomes(answers[order].reshape(shape), truth, chances[order].reshape(*shape, len(options)), *axes)
