"""Feature health scores (paper section 3.3), and their correction for sampling noise.

The noise of a sample of images adds to the total variation of a curve and lowers its minimum: the plain score of a
healthy module falls with its depth and rises with the number of images. `corrected_health` estimates the covariance of
the noise between points, draws true curves from their posterior, and adds noise to each once more. The mean effect on
the score is the bias (Efron and Tibshirani 1993, chapter 10), and its spread gives the interval, of these probes on
other images of the same kind. A volatility below the noise cannot be distinguished from it: the score is then too high,
and only the interval allows for that (data/simulations, shape "restless")."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.metrics import LESS_IS_BETTER
from mlprobe_utils.evaluation.points import MODULES

STAGE_NAMES = {"pretrained": "before fine-tuning", "finetuned": "after fine-tuning"}
STATE = ["model", "dataset", "stage"]
HEALTH = [f"FHS_{module}" for module in MODULES]
SCORES = (*HEALTH, "P_final")  # of a profile, in forward order

# The prior of a true curve, in shares of correct predictions: a level; a smooth change or none; and either nothing
# else, or one sudden change (of a single point, or a step), or a rough change of all points. Sizes are standard
# deviations, all equally probable.
LEVEL = 0.5  # uninformative
SMOOTH_SIZES = (0.03, 0.12)
SMOOTH_LENGTHS = (0.5, 0.2)  # length scales, as a share of the module; besides, a straight line
SMOOTH_POWERS = (1.0, 0.5)  # of the position: curves that bend evenly, and such that bend early
NO_SMOOTH = 0.5  # probability
SUDDEN_SIZES = (0.05, 0.15)
ROUGH_SIZES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
ROUGH_CORRELATIONS = (-0.97, 0.0, 0.7)  # of neighbouring points, to the power of their distance; the first alternates
KINDS = {"smooth": 0.9, "sudden": 0.05, "rough": 0.05}  # prior probability
EXCLUDED = 0.01  # kinds with a smaller Bayes factor against the likeliest do not widen the interval
CURVES = 200  # drawn from the posterior of each kind


def health_score(performance: Sequence[float] | np.ndarray, penalty: float) -> float | np.ndarray:
    """FHS (equation 3) of a module, in the units of `performance`: at its points in order [..., points], each above 0
    (ValueError). Of a module with one point it is the plain performance (GF 0, VP 1; audit, point 3)."""
    values = np.asarray(performance, dtype=float)
    if not values.size:
        raise ValueError("a health score needs the performance at one or more points")
    if not (values > 0).all():
        raise ValueError(f"a health score needs positive performances, found {values.min()}")
    growth, volatility = health_factors(values, penalty)
    scores = values[..., -1] * (1 + growth) * volatility
    return scores if scores.ndim else float(scores)


def health_factors(performances: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """GF = ln(P_end / sqrt(P_start P_min)) and VP = exp(-lambda sum |P_(i+1) - P_i| / P_end), equations 1 and 2."""
    start, end = performances[..., 0], performances[..., -1]
    growth = np.log(end / np.sqrt(start * performances.min(axis=-1)))
    variation = np.abs(np.diff(performances)).sum(axis=-1)
    return growth, np.exp(-penalty * variation / end)


def health_by_run(
    probe_scores: pd.DataFrame, penalty: float, metric: str = "accuracy", pooling: str = "image_mean"
) -> pd.DataFrame:
    """Health score of every module's curve: STATE, run, module, points, end (percent), growth, volatility, health
    (percent). InputError for a metric of which less is better, or that is not positive at a point."""
    if metric in LESS_IS_BETTER:
        raise InputError(f"metric '{metric}' has no health score: choose one where higher is better, such as accuracy")
    curves = probe_scores.assign(module=probe_scores["point"].str[0]).sort_values("point")
    curves = curves[(curves["pooling"] == pooling) & curves["module"].isin(MODULES)]
    keys, records = [*STATE, "run", "module"], []
    for key, curve in curves.groupby(keys):
        values = curve[metric].to_numpy(float)
        if not (values > 0).all():
            found = f"metric '{metric}' of {' '.join(map(str, key))} falls to {values.min()}"
            raise InputError(f"{found}, and a health score needs values above 0: choose another, such as accuracy")
        factors = health_factors(values, penalty)
        records.append([*key, len(values), values[-1], *factors, health_score(values, penalty)])
    return pd.DataFrame(records, columns=[*keys, "points", "end", "growth", "volatility", "health"])


class CorrectedHealth(NamedTuple):
    """In percent: the paper's score of the noisy curve, the corrected one, and the ends of its interval."""

    raw: float
    score: float
    low: float
    high: float


def corrected_health(
    correct: np.ndarray, penalty: float, counts: np.ndarray | None = None, coverage: float = 0.95, seed: int = 0
) -> CorrectedHealth:
    """The health score of a module's true curve of accuracy: equations 1 to 3 with the noise's bias subtracted.
    `correct` is bool [points, images]; `counts`, where images depend on each other, how often each is drawn in each
    resample, [resamples, images]. ValueError for fewer than two images, or none correct at a point."""
    covariance = noise_covariance(correct, counts)
    curve, least = correct.mean(axis=1), 0.5 / correct.shape[1]
    raw = health_score(curve, penalty)
    generator = np.random.default_rng(seed)
    kinds, probability = curve_posterior(curve, covariance, CURVES, generator)
    noise = (root_of(covariance) @ generator.standard_normal((len(curve), CURVES))).T
    noisy = np.stack([kinds + noise, kinds - noise])  # both ways: what is linear in the noise cancels exactly
    with_noise, without = (health_score(np.clip(values, least, 1), penalty) for values in (noisy, kinds))
    errors = np.moveaxis(with_noise - without, 1, 0).reshape(len(KINDS), -1)
    evidence = probability / [*KINDS.values()]
    allowed = errors[evidence >= EXCLUDED * evidence.max()]
    lowest, highest = np.quantile(allowed, [(1 - coverage) / 2, 1 - (1 - coverage) / 2], axis=1)
    ends = raw - highest.max(), raw - lowest.min()
    return CorrectedHealth(*(100 * float(value) for value in (raw, raw - probability @ errors.mean(axis=1), *ends)))


def noise_covariance(correct: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Covariance of the noise of a curve of accuracy (shares), float [points, points]; arguments as above. Correlations
    are shrunk towards the mean of all pairs that are as far apart, by the share that Schäfer and Strimmer (2005)
    derive, and negative eigenvalues become 0."""
    if (images := correct.shape[1]) < 2:
        raise ValueError(f"correct has {images} images: the noise of a curve needs two or more")
    drawn = None if counts is None else correct.astype(float) @ counts.T / counts.sum(axis=1)
    sample = np.atleast_2d(np.cov(correct) / images if counts is None else np.cov(drawn))
    deviations = np.sqrt(np.diag(sample))
    if not len(place := np.flatnonzero(deviations > 0)):
        return sample
    varying, scale = np.ix_(place, place), np.outer(deviations[place], deviations[place])
    correlations, distance = sample[varying] / scale, np.abs(np.subtract.outer(place, place))
    apart = distance > 0
    totals, pairs = np.bincount(distance.ravel(), correlations.ravel()), np.bincount(distance.ravel())
    means = (totals / np.maximum(pairs, 1))[distance]
    of_chance = ((1 - correlations**2) ** 2 / (images - 1))[apart].sum()
    found = ((correlations - means) ** 2)[apart].sum()
    share = min(1.0, of_chance / found) if found > 0 else 1.0
    root = root_of(share * means + (1 - share) * correlations)
    mixed = root @ root.T
    unit = np.sqrt(np.diag(mixed))
    shrunk = np.zeros_like(sample)
    shrunk[varying] = scale * (mixed / np.outer(unit, unit))
    return shrunk


def curve_posterior(
    curve: np.ndarray, covariance: np.ndarray, draws: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """True curves behind a noisy one [points]: of each of KINDS [kinds, draws, points], and its probability [kinds].
    `covariance` is the noise's. A Gaussian process for every size and kind of change in the prior (Rasmussen and
    Williams 2006, chapter 2), weighted by its marginal likelihood, drawn by Matheron's rule."""
    kernels, roots, log_smooth, changes = _prior(len(curve))
    centred = curve - curve.mean()
    total = kernels + covariance + 1e-9 * np.eye(len(curve))  # the last: to be invertible where there is no noise
    evidence, factors, whitened = _log_evidence(centred, total)
    smooth, rough = evidence[:, :1], evidence[:, 1:]
    # each sudden change is a rank-one update
    scaled = np.linalg.solve(factors[:, 0], np.broadcast_to(changes, (len(factors), *changes.shape)))
    size = 1 + (scaled**2).sum(axis=1)
    sudden = smooth + (np.einsum("kp,kpc->kc", whitened[:, 0], scaled) ** 2 / size - np.log(size)) / 2
    log_weights = [log_smooth + own for own in (smooth, sudden, rough)]
    most = max(own.max() for own in log_weights)
    weights = [np.exp(own - most) / own.shape[1] for own in log_weights]
    probability = np.array([own.sum() for own in weights]) * [*KINDS.values()]

    noise_root = root_of(covariance)
    drawn = np.empty((len(KINDS), draws, len(curve)))
    for kind, weight in enumerate(weights):
        cumulated = np.cumsum(weight / weight.sum()) if weight.sum() else np.linspace(0, 1, weight.size)
        places = np.searchsorted(cumulated / cumulated[-1], (np.arange(draws) + generator.random()) / draws)
        for place in np.unique(places):
            base, change = np.unravel_index(place, weight.shape)
            at = places == place
            column = change + 1 if kind == 2 else 0
            own_total, root = total[base, column], roots[base, column]
            if kind == 1:
                step = changes[:, [change]]
                own_total, root = own_total + step @ step.T, np.hstack([root, step])
            noise = noise_root @ generator.standard_normal((len(curve), at.sum()))
            difference = centred[:, None] - noise - root @ generator.standard_normal((root.shape[1], at.sum()))
            drawn[kind, at] = (curve[:, None] - noise - covariance @ np.linalg.solve(own_total, difference)).T
    return drawn, probability / probability.sum()


@functools.cache
def _prior(points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Covariances of a true curve, [smooth changes, 1 + rough changes, points, points], none first; their roots; the
    log probability of each smooth change, [smooth changes, 1]; sudden changes of a standard deviation, [points, …]."""
    index = np.arange(points)
    steps = np.abs(np.subtract.outer(index, index))
    nothing = np.zeros((points, points))
    smooth = []
    for size, power in itertools.product(SMOOTH_SIZES, SMOOTH_POWERS):
        position = (index / max(points - 1, 1)) ** power
        centred = position - position.mean()
        line = np.outer(centred, centred) / max(centred @ centred / points, 1e-9)  # of variance 1 over the module
        apart = np.subtract.outer(position, position)
        smooth += [size**2 * line, *(size**2 * (line + np.exp(-((apart / own) ** 2) / 2)) for own in SMOOTH_LENGTHS)]
    rough = [size**2 * near**steps for size in ROUGH_SIZES for near in ROUGH_CORRELATIONS]
    probability = np.array([NO_SMOOTH, *[(1 - NO_SMOOTH) / len(smooth)] * len(smooth)])
    kernels = np.array([[one + other + LEVEL**2 for other in (nothing, *rough)] for one in (nothing, *smooth)])
    places = np.hstack([np.eye(points), np.tri(points)[:, 1:]])
    sudden = np.hstack([size * places for size in SUDDEN_SIZES])
    return kernels, root_of(kernels), np.log(probability)[:, None], sudden


def _log_evidence(centred: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a curve [points] under covariances [..., points, points]: log density but for 2 pi, factors, whitened curves.
    Bordered with the curve, a covariance has a Cholesky factor whose last row is the whitened curve."""
    points = len(centred)
    bordered = np.empty((*total.shape[:-2], points + 1, points + 1))
    bordered[..., :-1, :-1] = total
    bordered[..., -1, :-1] = bordered[..., :-1, -1] = centred
    bordered[..., -1, -1] = 1e12  # anything that leaves it positive
    factors = np.linalg.cholesky(bordered)
    whitened, diagonal = factors[..., -1, :-1], np.diagonal(factors, axis1=-2, axis2=-1)[..., :-1]
    log_density = -(whitened**2).sum(axis=-1) / 2 - np.log(diagonal).sum(axis=-1)
    return log_density, factors[..., :-1, :-1], whitened


def root_of(covariance: np.ndarray) -> np.ndarray:
    """The symmetric R with R R = covariance, [..., points, points]; negative eigenvalues count as 0. There is one, so
    that draws do not depend on which eigenvectors a machine finds."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :] @ np.swapaxes(vectors, -1, -2)
