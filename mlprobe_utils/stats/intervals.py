"""Intervals at each point of a curve, and bands over all points at once, for each scope of a statement.

Standard errors are those of the bootstrap over clusters of images:

- a statistic has the interval of Wilson (1927), with as many independent images as explain its error (Korn and Graubard
  1998): percentiles of the bootstrap are too narrow near 100 %;
- a difference has that of Newcombe (1998, method 10), which joins the intervals of its two sides by their correlation;
  where nothing has changed, the error is taken as if one cluster had;
- a band takes the critical value of the largest deviation over all points (max-|t|);
- seeds add a component of variance, estimated without bias (Searle, Casella and McCulloch 1992, chapter 4), with
  Student's t and the degrees of freedom of Satterthwaite (1946);
- so do runs of a fine-tuning: their variance is pooled over the models of a data set (`resampling.retrained`), and both
  sides of a difference add theirs, as runs of two models are no pairs. A band over several points is Bonferroni's.

At 95 % they cover 93 to 97 % on test sets as the paper's (`benchmarks/simulations.py`); bands of a change of these
probes cover 97 to 99 % on 150 images or where few are wrong."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr
from scipy.stats import norm, t

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.stats.resampling import LEAST_FREEDOM, Statistic

LEVEL = 0.95
LEAST_SEEDS = 5
ROUNDING = 1e-9  # a smaller standard error counts as zero
KNOWN = 1e9  # degrees of freedom of a variance that is not estimated
PROBE, RECIPE = "fixed probe", "retrained probe"
WEIGHTS, TRAINING = "fixed model", "retrained model"
SCOPES = {
    PROBE: "the same fitted probes on new images",
    RECIPE: "probes retrained with new seeds, on new images",
    WEIGHTS: "the same trained models on new images",
    TRAINING: "models retrained with new seeds, on new images",
}
FIXED = (PROBE, WEIGHTS)  # nothing but the images is drawn anew


class Spread(NamedTuple):
    """Sampling error of a statistic or a difference, as shares, not percent."""

    value: np.ndarray  # float [points]; over seeds the mean
    error: np.ndarray  # its standard error
    freedom: np.ndarray  # degrees of freedom of the error
    clusters: float  # effective number, as of the statistic
    tails: Callable[[], np.ndarray]  # two-sided p of each resample's deviation [resamples, points]; nan: never varies


def intervals(of: Statistic, scope: str = PROBE, level: float = LEVEL) -> pd.DataFrame:
    """Interval and band of every point of a curve: value, error (standard), low, high, band_low, band_high; in percent
    (pp of a difference), of the mean over seeds. With probability `level` an interval holds its own truth, and the band
    the truth of all points. Raises InputError for an unknown scope, fewer than LEAST_SEEDS seeds for RECIPE, and one
    run for TRAINING; ValueError for a level that is no probability and a statistic that is nan."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    spread = spread_of(of, scope)
    alone, together = (_ends(of, scope, spread, left / 2) for left in (1 - level, _left_to_each(spread, level)))
    # Newcombe's ends can draw together where the critical value grows: a handful of images, nearly all of them changed
    low, high = np.minimum(alone[0], spread.value), np.maximum(alone[1], spread.value)
    band = {"band_low": np.minimum(low, together[0]), "band_high": np.maximum(high, together[1])}
    return 100 * pd.DataFrame({"value": spread.value, "error": spread.error, "low": low, "high": high} | band)


def scope_of(means: Iterable[Statistic]) -> str:
    """TRAINING where other runs of all of them are known to differ; else WEIGHTS, as one run says nothing of others."""
    return TRAINING if all(own.runs for own in means) else WEIGHTS


def spread_of(of: Statistic, scope: str) -> Spread:
    """Standard errors, their degrees of freedom and joint deviations under a scope; raises as `intervals`."""
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    values, resampled = np.atleast_2d(of.values) / 100, of.resampled / 100
    if np.isnan(values).any():
        raise ValueError("a statistic that is nan has no interval: check what it is computed from")
    resampled = resampled.reshape(len(resampled), *values.shape)
    resampled = resampled[~np.isnan(resampled).any(axis=(1, 2))]
    of_mean = resampled.mean(axis=1)
    unbiased = of.clusters / max(of.clusters - 1, 1)  # drawing with replacement loses one in `clusters`
    deviations = np.sqrt(unbiased) * (of_mean - of_mean.mean(axis=0))
    variance, freedom = deviations.var(axis=0, ddof=1), np.full(values.shape[1], max(of.clusters - 1.0, 1.0))
    error = _root(variance)
    tails = lambda: 2 * norm.sf(np.abs(deviations) / error)  # noqa: E731
    if scope == RECIPE:
        of_one = unbiased * resampled.var(axis=0, ddof=1).mean(axis=0)
        variance, freedom, tails = _with_seeds(values, deviations, variance, freedom, of_one)
    if scope == TRAINING:
        variance, freedom = _with_runs(of, variance, freedom)
        tails = lambda: np.full((1, values.shape[1]), np.nan)  # noqa: E731  as of points that say nothing of each other
    if of.sides:
        variance = np.where(variance > ROUNDING**2, variance, of.clusters**-2.0)  # as if one cluster had changed
    return Spread(values.mean(axis=0), np.nan_to_num(_root(variance)), freedom, of.clusters, tails)


def _root(variance: np.ndarray) -> np.ndarray:
    """The standard error; nan where there is none but rounding."""
    error = np.sqrt(variance)
    return np.where(error > ROUNDING, error, np.nan)


def _with_seeds(
    values: np.ndarray, deviations: np.ndarray, by_images: np.ndarray, freedom: np.ndarray, of_one: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Callable[[], np.ndarray]]:
    """Variance, degrees of freedom and tails of the mean over seeds and images that are both drawn anew. The bootstrap
    variance of the mean of all seeds, `by_images`, and that of the seeds' own values both count the interaction of
    images and seeds; a single seed's, `of_one`, shows how much that is. For the tails, seeds are drawn with the
    covariance of those seen, and their variance is estimated again; that of images is taken as known."""
    if (seeds := len(values)) < LEAST_SEEDS:
        needed = f"'{RECIPE}' needs probes with {LEAST_SEEDS} or more seeds, found {seeds}"
        raise InputError(f"{needed}: fit more, or choose '{PROBE}'")
    together = np.maximum(of_one - by_images, 0) / (seeds - 1)

    def total(by_seeds: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variance = by_images + np.maximum(by_seeds - together, 0)
        terms = by_images**2 / freedom + by_seeds**2 / (seeds - 1)
        joint = np.divide(variance**2, terms, out=np.broadcast_to(freedom, terms.shape).copy(), where=terms > 0)
        return variance, np.maximum(joint, np.minimum(freedom, seeds - 1))  # no sum knows less than its poorest part

    by_seeds = values.var(axis=0, ddof=1) / seeds
    variance, joint_freedom = total(by_seeds, freedom)

    def tails() -> np.ndarray:
        drawn = np.random.default_rng(seeds).standard_normal((len(deviations), seeds, seeds))
        drawn = drawn @ (values - values.mean(axis=0)) / np.sqrt(seeds - 1)
        own = np.divide(variance - by_images, by_seeds, out=np.zeros_like(by_seeds), where=by_seeds > 0)
        far = np.abs(deviations + np.sqrt(own) * drawn.mean(axis=1))
        again, again_freedom = total(drawn.var(axis=1, ddof=1) / seeds, np.full_like(by_images, KNOWN))
        found = np.nan_to_num(2 * stdtr(again_freedom, -far / _root(again)), nan=1.0)  # nothing left that varies
        return np.where(np.isnan(_root(variance)), np.nan, found)

    return variance, joint_freedom, tails


def _with_runs(of: Statistic, by_images: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance and degrees of freedom of means over runs whose images and runs are both drawn anew."""
    if not of.runs:
        needed = f"'{TRAINING}' needs two or more runs per model, and {LEAST_FREEDOM} more runs than models"
        raise InputError(f"{needed}: raise runs in the protocol's fine_tuning, or choose '{WEIGHTS}'")
    variance, terms, least = by_images, by_images**2 / freedom, freedom
    for between, share in of.runs.items():
        if between.variance:
            variance, least = variance + between.variance * share / 1e4, np.minimum(least, between.freedom)
            terms = terms + (between.seen * share / 1e4) ** 2 / between.freedom
    joint = np.divide(variance**2, terms, out=least.copy(), where=terms > 0)
    return variance, np.maximum(joint, least)


def _left_to_each(spread: Spread, level: float) -> np.ndarray:
    """Probability of missing at each point [points], if all together are to hold with `level`: the quantile of the
    smallest p of each resample; at most that of a point alone, at least Bonferroni's, as of a point that never
    varied."""
    alone, divided = 1 - level, (1 - level) / len(spread.value)
    if len(spread.value) == 1:
        return np.array([alone])
    tails = spread.tails()
    if not (varied := ~np.isnan(tails).all(axis=0)).any():
        return np.full(len(varied), divided)
    together = np.quantile(tails[:, varied].min(axis=1), alone)
    return np.where(varied, np.clip(together, divided, alone), divided)


def _ends(of: Statistic, scope: str, spread: Spread, tail: np.ndarray) -> tuple:
    """Both ends [points], for a probability `tail` to miss on either side."""
    critical, normal = t.isf(tail, spread.freedom), norm.isf(tail)
    if not of.sides:
        return _wilson(spread, critical)
    # a side that was not trained has no runs
    one, other = (spread_of(side, WEIGHTS if scope == TRAINING and not side.runs else scope) for side in of.sides)
    (low, high), (other_low, other_high) = _wilson(one, normal), _wilson(other, normal)
    product = one.error * other.error
    shared = (one.error**2 + other.error**2 - spread.error**2) / 2  # their covariance
    correlation = np.divide(shared, product, out=np.zeros_like(shared), where=product > 0).clip(-1, 1)

    def joined(side: np.ndarray, other_side: np.ndarray) -> np.ndarray:
        square = side**2 + other_side**2 - 2 * correlation * side * other_side
        return critical / normal * np.sqrt(np.maximum(square, 0))

    down, up = joined(one.value - low, other_high - other.value), joined(high - one.value, other.value - other_low)
    return np.maximum(spread.value - down, -1), np.minimum(spread.value + up, 1)


def _wilson(spread: Spread, critical: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends for as many independent images as explain the error; where it is 0, as many as clusters."""
    share = spread.value.clip(0, 1)
    images = np.full_like(share, spread.clusters)
    np.divide(share * (1 - share), spread.error**2, out=images, where=spread.error > 0)
    added = critical**2 / np.maximum(images, 1)
    centre = (share + added / 2) / (1 + added)
    half = np.sqrt(added * (share * (1 - share) + added / 4)) / (1 + added)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)
