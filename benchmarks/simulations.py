"""Simulations that prove a method: intervals, health scores, and losses between fixed points, where the truth is known.

Answers to single images are drawn, so that everything is computed from them exactly as from a run's.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import ndtri
from scipy.stats import norm

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.evaluation.health import corrected_health, health_score
from mlprobe_utils.stats.intervals import LEVEL, PROBE, RECIPE, TRAINING, WEIGHTS, intervals
from mlprobe_utils.stats.resampling import Resamples, accuracy, resample, retrained

# health scores

RESAMPLES = 200  # of the images, for the percentile interval
RAW_TIMES = 10  # so many test sets more of which only the raw score is computed, which is cheap

# Accuracy at place t of a module, from 0 at its first point to 1 at its last; i counts points back from the last.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "flat": lambda t, i: 0.85 + 0 * t,
    "rising": lambda t, i: 0.70 + 0.15 * t,
    "falling": lambda t, i: 0.85 - 0.15 * t,
    "volatile": lambda t, i: 0.80 + 0.05 * (-1.0) ** i,  # by 10 points at every step
    "jagged": lambda t, i: 0.80 + 0.07 * np.sin(i**2 + 1),  # by 5 points around its mean, without a rule to the eye
    "saturating": lambda t, i: 0.85 - 0.25 * np.exp(-6 * t),
    "one dip": lambda t, i: np.where(i == math.ceil(i.max() / 2), 0.65, 0.85),
    "restless": lambda t, i: 0.835 + 0.015 * (-1.0) ** i,  # by 3 points at every step: less than noise on 150 images
}


def simulate_correct(
    curve: np.ndarray, images: int, correlation: float, generator: np.random.Generator, shared: bool = False
) -> np.ndarray:
    """Which images are correct at each point, bool [points, images], where `curve` is the true accuracy [points].

    A Gaussian copula (Emrich and Piedmonte 1991): an image is correct where a standard normal variable lies below the
    quantile of the accuracy. `correlation` (from 0 on, below 1) is that of neighbouring points, falling geometrically
    with their distance; or if `shared` of any two points, as all find the same images difficult."""
    normal = generator.standard_normal((len(curve), images))
    if shared:
        normal = np.sqrt(1 - correlation) * normal + np.sqrt(correlation) * generator.standard_normal(images)
    else:
        for after in range(1, len(curve)):
            normal[after] = correlation * normal[after - 1] + np.sqrt(1 - correlation**2) * normal[after]
    return normal < ndtri(curve)[:, None]


def true_curve(shape: str, points: int) -> np.ndarray:
    """True accuracy at each of `points` points, in shares: a formula of SHAPES. Raises InputError for another shape."""
    if shape not in SHAPES:
        raise unknown("shape", shape, SHAPES)
    return SHAPES[shape](np.linspace(0, 1, points), np.arange(points)[::-1])


class Setting(NamedTuple):
    """A combination to simulate test sets of."""

    place: dict[str, str | int | float]  # shape, points, images, correlation, true score (percent)
    draw: Callable[[], np.ndarray]  # a test set, as of `simulate_correct`
    generator: np.random.Generator
    penalty: float


def settings(
    shapes: Iterable[str],
    points: Iterable[int],
    images: Iterable[int],
    correlations: Iterable[float],
    penalty: float,
    seed: int = 0,
) -> Iterator[Setting]:
    """Every combination, with random numbers of its own, whichever others there are.

    Args:
        shapes: names of SHAPES.
        points: depths of a module.
        images: sizes of a test set.
        correlations: of `simulate_correct`, between neighbouring points.
        penalty: lambda.
        seed: of all random numbers.
    """
    for shape, depth, size, correlation in itertools.product(shapes, points, images, correlations):
        curve = true_curve(shape, depth)
        generator = np.random.default_rng([seed, [*SHAPES].index(shape), depth, size, round(100 * correlation)])
        place = {"shape": shape, "points": depth, "images": size, "correlation": correlation}
        place["true score"] = 100 * health_score(curve, penalty)
        draw = functools.partial(simulate_correct, curve, size, correlation, generator)
        yield Setting(place, draw, generator, penalty)


def noise_bias(combinations: Iterable[Setting], repeats: int) -> pd.DataFrame:
    """Simulates test sets and sets the raw score of each beside that of the true curve.

    Its interval is the usual one, from the 2.5th to the 97.5th percentile over resampled images.

    Args:
        combinations: from `settings`.
        repeats: test sets simulated of each.

    Returns:
        A row a combination, points in percent: shape, points, images, correlation, true score, raw bias, error (its
        standard error), raw coverage (percent of intervals that hold the true score).
    """
    records = []
    for setting in combinations:
        truth, size = setting.place["true score"], setting.place["images"]
        counts = setting.generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
        scores, ends = [], []
        for _ in range(repeats):
            correct = setting.draw().T.astype(float)
            scores.append(100 * health_score(correct.mean(axis=0), setting.penalty))
            ends.append(100 * np.quantile(health_score(counts @ correct / size, setting.penalty), [0.025, 0.975]))
        found = {"raw bias": np.mean(scores) - truth, "error": stats.sem(scores)}
        records.append(setting.place | found | {"raw coverage": _covered(*np.transpose(ends), truth)})
    return pd.DataFrame(records)


def bias_and_coverage(combinations: Iterable[Setting], repeats: int) -> pd.DataFrame:
    """Simulates test sets and sets the corrected score of each beside that of the true curve.

    Its bias is that of the raw one, known better by more test sets, and the mean difference of the two.

    Args:
        combinations: from `settings`.
        repeats: test sets simulated of each, and RAW_TIMES as many for the raw score.

    Returns:
        A row a combination, points in percent: shape, points, images, correlation, true score, raw bias, bias, error
        (its standard error, as the repeats are few), spread (standard deviation of the corrected score), coverage
        (percent of intervals that hold the true score), width (of its interval, mean).
    """
    records = []
    for setting in combinations:
        truth = setting.place["true score"]
        raw, score, low, high = np.array([corrected_health(setting.draw(), setting.penalty) for _ in range(repeats)]).T
        further = [100 * health_score(setting.draw().mean(axis=1), setting.penalty) for _ in range(RAW_TIMES * repeats)]
        raw_bias = np.mean(further) - truth
        records.append(
            setting.place
            | {"raw bias": raw_bias, "bias": raw_bias + (score - raw).mean()}
            | {"error": math.hypot(stats.sem(score - raw), stats.sem(further)), "spread": score.std(ddof=1)}
            | {"coverage": _covered(low, high, truth), "width": (high - low).mean()}
        )
    return pd.DataFrame(records)


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return 100 * float(np.mean((low <= truth) & (truth <= high)))


# losses where nothing is lost

FIXED, BEST = "one fixed point", "the best of all points, picked on the test images"


def false_alarms(
    points: int,
    images: Iterable[int],
    repeats: int,
    share: float = 0.85,
    correlation: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a 95 % interval of the change from a point to the end lies below 0, although nothing changes.

    Args:
        points: of the curve, the end not counted.
        images: sizes of a test set.
        repeats: curves simulated of each size.
        share: true accuracy of every point.
        correlation: between any two points, as all of them find the same images difficult.
        seed: of all random numbers.

    Returns:
        A row a size and way to choose the point: images, points, accuracy (percent, true), from (FIXED or BEST),
        false alarms (%), standard error (points).

    Raises:
        ValueError: a correlation outside 0 to 1.
    """
    records = []
    for size in images:
        generator = np.random.default_rng([seed, points, size])
        curves = np.stack(
            [simulate_correct(np.full(points + 1, share), size, correlation, generator, True) for _ in range(repeats)]
        )
        ends, best = curves[:, -1], curves[:, :-1].sum(axis=2).argmax(axis=1)
        drawn = resample(np.arange(size))
        for name, chosen in ((FIXED, curves[:, 0]), (BEST, curves[np.arange(repeats), best])):
            alarms = intervals(accuracy(ends, drawn) - accuracy(chosen, drawn), PROBE)["high"] < 0
            rate = alarms.mean()
            error = np.sqrt(rate * (1 - rate) / repeats)
            known = {"images": size, "points": points, "accuracy": 100 * share, "from": name}
            records.append(known | {"false alarms (%)": 100 * rate, "standard error": 100 * error})
    return pd.DataFrame(records)


# intervals

TEST_SETS = {"busi": (150, 1.0), "covid19-ct": (203, 2.1), "chest-xray": (624, 1.5)}  # images, and in a cluster (mean)
CURVES = {  # first and last accuracy of the two stages
    "in the middle": ((0.70, 0.85), (0.72, 0.93)),
    "near the ceiling": ((0.90, 0.97), (0.92, 0.99)),
}
ALONG, BETWEEN = 0.9, 0.8  # correlation of neighbouring points, and of the stages
PARTS = {"cluster": 0.3, "image": 0.4, "seed": 0.01, "image under a seed": 0.29}  # of the variance


@dataclass(frozen=True)
class Simulated:
    """Outcomes and their truth.

    Attributes:
        correct: whether each image is correct, bool [seeds, stages, points, images].
        fitted: probability to be correct of each fitted probe, float [seeds, stages, points].
        expected: the same over all seeds, float [stages, points].
    """

    correct: np.ndarray
    fitted: np.ndarray
    expected: np.ndarray


def simulate(expected: np.ndarray, clusters: np.ndarray, seeds: int, rng: np.random.Generator) -> Simulated:
    """Draws outcomes of images in clusters (int [images], from 0) with the accuracies `expected` [stages, points]."""
    stages, points = expected.shape
    along = ALONG ** np.abs(np.subtract.outer(np.arange(points), np.arange(points)))
    between = np.where(np.eye(stages, dtype=bool), 1, BETWEEN)
    factor = np.linalg.cholesky(np.kron(between, along)).T

    def drawn(part: str, *shape: int) -> np.ndarray:
        return np.sqrt(PARTS[part]) * (rng.standard_normal((*shape, stages * points)) @ factor)

    mean, images = norm.ppf(expected).ravel(), len(clusters)
    level = mean + drawn("seed", seeds)
    of_image = drawn("cluster", clusters.max() + 1)[clusters] + drawn("image", images)
    correct = level[:, None] + of_image + drawn("image under a seed", seeds, images) > 0
    fitted = norm.cdf(level / np.sqrt(1 - PARTS["seed"]))
    correct = np.moveaxis(correct, -1, 1).reshape(seeds, stages, points, images)
    return Simulated(correct, fitted.reshape(seeds, stages, points), expected)


def simulated_clusters(images: int, mean_size: float, rng: np.random.Generator) -> np.ndarray:
    """The cluster of each image, int [images]; sizes are geometric, as of patients who come once or again."""
    return np.repeat(np.arange(images), rng.geometric(1 / mean_size, images))[:images]


def coverage(
    test_sets: Mapping[str, tuple[int, float]] = TEST_SETS,
    curves: Iterable[str] = tuple(CURVES),
    points: int = 24,
    seeds: int = 5,
    repetitions: int = 200,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the 95 % intervals and bands hold the truth, by simulation.

    Args:
        test_sets: name -> images, and images that a cluster has in the mean.
        curves: of CURVES.
        points: of each curve.
        seeds: probes fitted at each point; RECIPE takes all of them, PROBE the first.
        repetitions: simulated data sets for each test set and curve.
        seed: of the simulation.

    Returns:
        dataset, images, curve, question, what (accuracy, or change between the stages), interval, covered, error,
        width. `interval` is one of `pointwise` and `band` from `intervals`, or for comparison the plain `percentile`
        interval of the bootstrap at a point. `covered`: percent of intervals that hold the truth (of bands that hold
        all of it); `error`: its standard error; `width`: the mean, in points.
    """
    rows = []
    for name, (images, size) in test_sets.items():
        for curve in curves:
            expected = np.array([np.linspace(*ends, points) for ends in CURVES[curve]])
            rng = np.random.default_rng([seed, images, list(CURVES).index(curve)])
            place = {"dataset": name, "images": images, "curve": curve}
            for _ in range(repetitions):
                clusters = simulated_clusters(images, size, rng)
                drawn = resample(clusters, resamples, int(rng.integers(2**31)))
                rows += [place | row for row in _held(simulate(expected, clusters, seeds, rng), drawn)]
    groups = pd.DataFrame(rows).groupby([*place, "scope", "what", "interval"], sort=False)
    table = groups.agg(covered=("covered", "mean"), error=("covered", "sem"), width=("width", "mean"))
    return table.assign(covered=100 * table["covered"], error=100 * table["error"]).reset_index()


def _held(made: Simulated, drawn: Resamples) -> Iterator[dict]:
    """question, what, interval, covered (share of points), width (points) of every construction on one data set."""
    for scope, correct, truth in ((PROBE, made.correct[:1], made.fitted[0]), (RECIPE, made.correct, made.expected)):
        before, after = (accuracy(correct[:, stage], drawn) for stage in range(2))
        for what, of, share in (("accuracy", before, truth[0]), ("change", after - before, truth[1] - truth[0])):
            table = intervals(of, scope)
            ends = {"pointwise": table[["low", "high"]], "band": table[["band_low", "band_high"]]}
            if scope == PROBE:
                ends["percentile"] = np.quantile(of.resampled[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
            for name, pair in ends.items():
                low, high = np.asarray(pair).T
                holds = (low <= 100 * share) & (100 * share <= high)
                covered = float(holds.all()) if name == "band" else holds.mean()
                yield dict(scope=scope, what=what, interval=name, covered=covered, width=np.mean(high - low))


# runs of a fine-tuning

SPREADS, MODELS, RUNS = (0.0, 1.4, 4.6), (4, 16), (2, 3, 5)  # between runs (points, standard deviation)


def run_coverage(
    repetitions: int,
    images: Iterable[int] = (150, 624),
    share: float = 0.85,
    correlation: float = 0.5,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How often 95 % intervals of a mean over few runs, and of the difference of two such, hold what other runs on
    other images have in the mean.

    Args:
        repetitions: test sets simulated of each combination of `images`, MODELS, RUNS and SPREADS.
        images: sizes of a test set.
        share: true accuracy of every model, mean over all its runs; that of a run is normal about it.
        correlation: between any two runs, as all find the same images difficult.
        resamples: of the images.
        seed: of all random numbers.

    Returns:
        images, models (whose variance between runs is pooled), runs (of each), spread (points), scope, what (accuracy
        or difference), covered (percent of the intervals), error (its standard error), width (points, mean).
    """
    rows = []
    for size, models, runs, spread in itertools.product(images, MODELS, RUNS, SPREADS):
        generator = np.random.default_rng([seed, size, models, runs, round(10 * spread)])
        place = {"images": size, "models": models, "runs": runs, "spread": spread}
        for _ in range(repetitions):
            own = share + spread / 100 * generator.standard_normal(models * runs)
            correct = simulate_correct(own.clip(0, 1), size, correlation, generator, shared=True)
            drawn = resample(np.arange(size), resamples, int(generator.integers(2**31)))
            halves = np.split(correct.reshape(runs, models, size), 2, axis=1)  # points are models, …
            first, second = retrained({n: accuracy(own, drawn) for n, own in enumerate(halves)}).values()
            both = {"accuracy": (first, 100 * share), "difference": (first - second, 0.0)}  # … two by two
            for (what, (of, truth)), scope in itertools.product(both.items(), (WEIGHTS, TRAINING)):
                table = intervals(of, scope)
                covered = table["low"].le(truth) & table["high"].ge(truth)
                width = (table["high"] - table["low"]).mean()
                rows.append(place | dict(scope=scope, what=what, covered=covered.mean(), width=width))
    groups = pd.DataFrame(rows).groupby([*place, "scope", "what"], sort=False)
    table = groups.agg(covered=("covered", "mean"), error=("covered", "sem"), width=("width", "mean"))
    return table.assign(covered=100 * table["covered"], error=100 * table["error"]).reset_index()


# the best of many epochs


def best_by_chance(
    epochs: Iterable[int], images: Iterable[int], correlations: Iterable[float], share: float, repeats: int
) -> pd.DataFrame:
    """What choosing the best epoch on test images adds where all have a true accuracy of `share`, by `repeats`
    simulations: epochs, images, correlation (of two epochs' correct answers), added (the best epoch's accuracy less the
    true one, pp), error."""
    records = []
    for number, size, correlation in itertools.product(epochs, images, correlations):
        generator, curve = np.random.default_rng([0, number, size, int(1000 * correlation)]), np.full(number, share)
        drawn = (simulate_correct(curve, size, correlation, generator, shared=True) for _ in range(repeats))
        added = 100 * np.array([correct.mean(axis=1).max() - share for correct in drawn])
        records.append((number, size, correlation, added.mean(), added.std(ddof=1) / np.sqrt(repeats)))
    return pd.DataFrame(records, columns=["epochs", "images", "correlation", "added", "error"])
