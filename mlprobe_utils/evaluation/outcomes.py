"""From rows to arrays: what is predicted for each image, at every point and with every seed, and at each site."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import MODULES, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, OPTION, options_of, predicted_option
from mlprobe_utils.evaluation.sites import OUTPUT, PROBED, REFERENCE
from mlprobe_utils.stats.resampling import Resamples, Statistic, metric

CURVE = [
    "model",
    "fault",
    "dataset",
    "data_hash",
    "split_rule",
    "split",
    "stage",
    "order",
    "probe",
    "pooling",
    "control",
]


@dataclass(frozen=True)
class Outcomes:
    """What was answered to the images of one data set.

    Attributes:
        predicted: place of the answer among `options`, int [seeds, points, images]; -1: it is none of them.
        truth: the same of the true option, int [images].
        probabilities: of the options, float [seeds, points, images, options].
        seeds: of the probes; of final outputs the runs, [None] before fine-tuning.
        points, images (paths in the release, sorted), options: names of the axes.
    """

    predicted: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray
    seeds: list
    points: list[str]
    images: list[str]
    options: list[str]

    @property
    def correct(self) -> np.ndarray:
        """Whether each image is answered rightly, bool [seeds, points, images]."""
        return self.predicted == self.truth

    def at(self, *points: str) -> "Outcomes":
        """Those of some points, in that order. Raises ValueError for a point that is not there."""
        places = [self.points.index(point) for point in points]
        axes = [self.seeds, [*points], self.images, self.options]
        return Outcomes(self.predicted[:, places], self.truth, self.probabilities[:, places], *axes)

    def of_module(self, module: str) -> list[str]:
        """The points of a module, by its letter, in the order the data flows."""
        return sorted((point for point in self.points if point[0] == module), key=flow_order)

    def score(self, name: str, positive: str | None, resamples: Resamples) -> Statistic:
        """`resampling.metric` of them; arguments and errors as there."""
        return metric(name, self.truth, self.predicted, self.probabilities, self.options, positive, resamples)


def of_modules(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that curves of modules are read off: the main recipe's, of test images, on the mean of image tokens."""
    chosen = (rows["split"] == "test") & (rows["probe"] == MAIN_PROBE) & (rows["pooling"] == "image_mean")
    return rows[chosen & rows["point"].str[0].isin(MODULES)]


def outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of one curve: probe rows of one model, data set, stage, recipe, pooling and split, all its seeds.

    Points are in the order of their names within the rows, images sorted.

    Raises:
        InputError: no rows, rows of several curves, a probability that is nan, an image that is missing or there twice
            at a point.
    """
    _check(rows)
    return _arranged(rows, None, "seed", rows["point"])


def output_outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of final outputs: prediction rows of one model, data set, stage and split, all its runs.

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


def _arranged(rows: pd.DataFrame, predicted: pd.Series | None, apart: str, point: pd.Series) -> Outcomes:
    """Rows in their places; `apart` is the column that makes the first axis, `said` None the most probable option."""
    options = options_of(rows)
    where = f"{rows['model'].iloc[0]} on {rows['dataset'].iloc[0]}"
    probabilities = rows[[OPTION + option for option in options]].to_numpy()
    if (bad := np.isnan(probabilities).any(axis=1)).any():
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
        seed, site, image = (own[n] for own, n in zip(names, at, strict=True))
        raise InputError(
            f"{where}, {apart} {seed}, {site}: image {image} is there {times[at]} times: each has to be there "
            "once, make the rows anew"
        )
    order = np.argsort(place)
    answers = probabilities.argmax(axis=1) if predicted is None else pd.Categorical(predicted, options).codes
    truth = pd.Categorical(rows["label"].iloc[order[: shape[-1]]], options).codes
    axes = [*names, options]
    return Outcomes(answers[order].reshape(shape), truth, probabilities[order].reshape(*shape, len(options)), *axes)


def site_outcomes(
    probed: pd.DataFrame, predicted: pd.DataFrame, reference: pd.DataFrame | None, images: Sequence[str]
) -> dict[str, np.ndarray]:
    """The outcomes at every site of one model, data set and stage; of all rows, those of test images count.

    Args:
        probed: probe rows of one recipe and several seeds; of each module the last point that is there.
        predicted: rows of the final output of the same state: of one run.
        reference: the rows of the data set's reference, one an image; None: there is none.
        images: the names of the test images, sorted, as `resamples_of_tested` gives them.

    Returns:
        site -> bool [seeds, images] of the probes, [images] of reference and final output; every one of SITES,
        but for a reference that there is not.

    Raises:
        InputError: a site without rows, a test image that a site lacks or has twice; as `outcomes`.
    """
    probed, predicted = (rows[rows["split"] == "test"] for rows in (probed, predicted))
    whose, correct = _whose(probed, predicted), {}
    if reference is not None:
        tested = reference[reference["split"] == "test"]
        correct[REFERENCE] = single_outcomes(tested, images, f"{whose}, {REFERENCE}")
    for site, (module, pooling) in PROBED.items():
        own = probed[(probed["pooling"] == pooling) & (probed["point"].str[0] == module)]
        if own.empty:
            raise InputError(f"{whose}, {site}: no probe rows of module {module}, {pooling}: probe it")
        found = outcomes(own[own["point"] == last_point(own)])
        _check_images(pd.Series(found.images), images, f"{whose}, {site}")
        correct[site] = found.correct[:, 0]
    correct[OUTPUT] = single_outcomes(predicted, images, f"{whose}, {OUTPUT}", parsed=True)
    return correct


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
    predicted = rows["parsed"] if parsed else predicted_option(rows)
    correct = (predicted == rows["label"]).fillna(False).to_numpy(bool)
    return pd.Series(correct, index=rows["image"]).loc[list(images)].to_numpy()


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
