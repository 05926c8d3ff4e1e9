"""From rows to arrays: what is predicted for each image, at every point and with every seed, and at each site."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.metrics import RESAMPLED, areas_under_curve, rates
from mlprobe_utils.evaluation.names import OUTPUT, PROBED_SITES, REFERENCE
from mlprobe_utils.evaluation.points import MODULES, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, OPTION, options_of, predicted_option
from mlprobe_utils.stats.resampling import MOST_MISSING, Resamples, Statistic, accuracy, equal_clusters

CURVE = ["model", "fault", "dataset", "data_hash", "split_rule", "split", "stage", "order"]
CURVE += ["probe", "pooling", "control"]
OF_BOTH_SIDES = ("auc", "specificity")  # metrics that take the images of all other options, too


@dataclass(frozen=True)
class Outcomes:
    """What was predicted for the images of one data set."""

    predicted: np.ndarray  # place among `options`, int [seeds, points, images]; -1: none of them
    truth: np.ndarray  # of the true option, int [images]
    probabilities: np.ndarray  # float [seeds, points, images, options]
    seeds: list  # of the probes; of final outputs the runs, [None] before fine-tuning
    points: list[str]
    images: list[str]  # paths in the release, sorted
    options: list[str]

    @property
    def correct(self) -> np.ndarray:
        """bool [seeds, points, images]."""
        return self.predicted == self.truth

    def at(self, *points: str) -> "Outcomes":
        """Those of some points, in that order. Raises ValueError for a point that is not there."""
        places = [self.points.index(point) for point in points]
        predicted, probabilities = self.predicted[:, places], self.probabilities[:, places]
        return replace(self, predicted=predicted, probabilities=probabilities, points=[*points])

    def of_module(self, module: str) -> list[str]:
        """A module's points, by its letter, in the order the data flows."""
        return sorted((point for point in self.points if point[0] == module), key=flow_order)

    def score(self, name: str, positive: str | None, resamples: Resamples) -> Statistic:
        """One of RESAMPLED at every point in every resample, as `metrics.score` of the images drawn. Raises InputError
        for an unknown metric and a class that more than MOST_MISSING of the resamples lack, as few patients or
        duplicate groups have it."""
        if name not in RESAMPLED:
            raise unknown("metric", name, RESAMPLED)
        if name == "accuracy":
            return accuracy(self.correct, resamples)
        every, clusters, missing = range(len(self.options)), {}, np.zeros(len(resamples.counts), dtype=bool)
        chosen = [*every] if positive is None or name == "balanced_accuracy" else [self.options.index(positive)]
        for option in every if name in OF_BOTH_SIDES else chosen:
            true = self.truth == option
            clusters[option] = equal_clusters(resamples.clusters[true])
            lacking = resamples.weights @ true == 0
            if lacking.mean() > MOST_MISSING:
                found = f"{name}: class '{self.options[option]}' is missing from {lacking.mean():.0%} of the resamples"
                having = f"only {len(np.unique(resamples.clusters[true]))} patients or duplicate groups have it"
                raise InputError(f"{found}, as {having}: add images of others, or use accuracy")
            missing |= lacking
        weights = np.concatenate([np.ones((1, len(self.truth)), dtype=np.float32), resamples.weights])
        if name == "auc":
            probabilities = self.probabilities.reshape(-1, *self.probabilities.shape[-2:])
            found = areas_under_curve(weights, self.truth, probabilities, chosen)
        else:
            found = rates(weights, self.truth, self.predicted.reshape(-1, len(self.truth)), chosen)[name]
        scores = 100 * found.mean(axis=-1).reshape(-1, *self.predicted.shape[:-1])
        scores[1:][missing] = np.nan
        known = len(chosen) ** 2 / sum(1 / clusters[option] for option in chosen)
        if name in OF_BOTH_SIDES:
            known = min(clusters.values())  # no surer than either side
        return Statistic(scores[0], scores[1:], known, resamples)


def of_modules(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the modules' curves: main probe settings, test images, mean of the image tokens."""
    chosen = (rows["split"] == "test") & (rows["probe"] == MAIN_PROBE) & (rows["pooling"] == "image_mean")
    return rows[chosen & rows["point"].str[0].isin(MODULES)]


def outcomes(rows: pd.DataFrame) -> Outcomes:
    """The outcomes of probe rows of one curve (CURVE), all its seeds; points in the order of the rows. InputError for
    no rows, several curves, a probability that is nan, an image that a point lacks or has twice."""
    return _arranged(rows, None, "seed", rows["point"])


def output_outcomes(rows: pd.DataFrame) -> Outcomes:
    """As `outcomes`, of prediction rows, all their runs; the one point is OUTPUT, an unparsed answer no option."""
    return _arranged(rows, rows["parsed"], "run", pd.Series(OUTPUT, rows.index))


def _arranged(rows: pd.DataFrame, predicted: pd.Series | None, first_axis: str, point: pd.Series) -> Outcomes:
    """`predicted` None: the most probable option."""
    if rows.empty:
        raise InputError("no rows: choose a model, data set, stage and pooling that were run")
    if several := [column for column in CURVE if rows[column].nunique(dropna=False) > 1]:
        raise InputError(f"these rows belong to several curves: choose one value of {several[0]}")
    options = options_of(rows)
    where = f"{rows['model'].iloc[0]} on {rows['dataset'].iloc[0]}"
    probabilities = rows[[OPTION + option for option in options]].to_numpy()
    if (bad := np.isnan(probabilities).any(axis=1)).any():
        found = f"{where}, {point[bad].iloc[0]}: {bad.sum()} images have no probability (nan)"
        raise InputError(f"{found}: the values are not finite, recompute the features or predictions")
    coded = [pd.factorize(rows[first_axis], use_na_sentinel=False), pd.factorize(point)]
    codes, names = zip(*coded, pd.factorize(rows["image"], sort=True), strict=True)
    names = [[None if pd.isna(name) else name for name in own] for own in names]
    shape = tuple(map(len, names))
    place = np.ravel_multi_index(codes, shape)
    times = np.bincount(place, minlength=np.prod(shape)).reshape(shape)
    if (times != 1).any():
        at = tuple(axis[0] for axis in np.nonzero(times != 1))
        seed, site, image = (own[n] for own, n in zip(names, at, strict=True))
        found = f"{where}, {first_axis} {seed}, {site}: image {image} occurs {times[at]} times"
        raise InputError(f"{found}: each must occur once, recompute the rows")
    order = np.argsort(place)
    answers = probabilities.argmax(axis=1) if predicted is None else pd.Categorical(predicted, options).codes
    truth = pd.Categorical(rows["label"].iloc[order[: shape[-1]]], options).codes
    sorted_probabilities = probabilities[order].reshape(*shape, len(options))
    return Outcomes(answers[order].reshape(shape), truth, sorted_probabilities, *names, options)


def site_outcomes(
    probed: pd.DataFrame, predicted: pd.DataFrame, reference: pd.DataFrame | None, images: Sequence[str]
) -> dict[str, np.ndarray]:
    """site -> whether each of `images` (the test images, sorted) is correct, bool [seeds, images] of probes, else
    [images]. InputError for a site without rows, a test image that a site lacks or has twice; as `outcomes`. `probed`
    are probe rows of one model, data set, stage and probe, of which the first and last point of each module count,
    `predicted` the final output of the same state, one run, and `reference` the rows of the data set's, if it has one.
    """
    probed, predicted = (rows[rows["split"] == "test"] for rows in (probed, predicted))
    first, correct = (probed if len(probed) else predicted).iloc[0], {}
    whose = f"{first['model']} on {first['dataset']}"
    if reference is not None:
        correct[REFERENCE] = single_outcomes(reference[reference["split"] == "test"], images, f"{whose}, {REFERENCE}")
    for site, (module, pooling, place) in PROBED_SITES.items():
        own = probed[(probed["pooling"] == pooling) & (probed["point"].str[0] == module)]
        if own.empty:
            raise InputError(f"{whose}, {site}: no probe rows of module {module}, {pooling}: probe it first")
        found = outcomes(own[own["point"] == point_at(own, place)])
        _check_images(pd.Series(found.images), images, f"{whose}, {site}")
        correct[site] = found.correct[:, 0]
    correct[OUTPUT] = single_outcomes(predicted, images, f"{whose}, {OUTPUT}", parsed=True)
    return correct


def single_outcomes(rows: pd.DataFrame, images: Sequence[str], what: str, parsed: bool = False) -> np.ndarray:
    """Whether each of `images` is correct in rows of one prediction an image, bool [images]: by the most probable
    option, or where `parsed` by the generated answer (unparsed is wrong). InputError, which begins with `what`, where
    an image is missing, there twice, or none of `images`."""
    _check_images(rows["image"], images, what)
    rows = rows.set_index("image").loc[list(images)]
    predicted = rows["parsed"] if parsed else predicted_option(rows)
    return (predicted == rows["label"]).fillna(False).to_numpy(bool)


def point_at(rows: pd.DataFrame, place: int) -> str:
    """The first (0) or last (-1) point of the rows, as the data flows."""
    return sorted(rows["point"].unique(), key=flow_order)[place]


def _check_images(found: pd.Series, images: Sequence[str], what: str) -> None:
    counted = found.value_counts()
    if foreign := sorted(set(counted.index) - set(images)):
        raise InputError(f"{what}: image {foreign[0]} is not a test image of this split: use rows of the split")
    counted = counted.reindex(list(images), fill_value=0)
    if (counted != 1).any():
        image = counted.index[counted != 1][0]
        mend = "choose one run" if counted[image] else "compute the missing rows"
        raise InputError(f"{what}: test image {image} occurs {counted[image]} times, expected once: {mend}")
