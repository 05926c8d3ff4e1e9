"""How much the order of models by a health score depends on what the score leaves open (paper section 3.3).

Equations 1 to 3 hold a constant, lambda, that the paper sets without a reason, and take a metric and a set of points.
Ranks that change with them are the convention's, not the models'.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health import health_scores

PENALTIES = (0.05, 0.1, 0.2, 0.5, 1.0)
Curves = Mapping[str, Mapping[str, np.ndarray]]  # metric -> model -> float [1 + resamples, points], the plain one first

# Which points of a curve count; a curve of one point keeps it.
POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every second point, the last among them": lambda curves: curves[:, ::-1][:, ::2][:, ::-1],
    "without the last point": lambda curves: curves[:, :-1] if curves.shape[1] > 1 else curves,
    "without the first point": lambda curves: curves[:, 1:] if curves.shape[1] > 1 else curves,
}


def resampled_curves(correct: np.ndarray, counts: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """A module's curve on all images and on each resample, float [1 + resamples, points], in shares.

    Args:
        correct: bool [points, images], whether the probe of each point is right.
        counts: how often each image is drawn in each resample, [resamples, images], the same for all models.
        classes: of each image, [images]: then each class weighs the same (the mean of their recalls), else each image.

    Raises:
        ValueError: matrices that do not fit, or a resample without an image of a class.
    """
    correct, counts = np.asarray(correct), np.asarray(counts)
    if correct.dtype != bool or correct.ndim != 2 or counts.ndim != 2 or counts.shape[1] != correct.shape[1]:
        raise ValueError(
            "correct needs to be bool [points, images] and counts [resamples, images] of the same images, "
            f"found {correct.dtype} {correct.shape} and {counts.shape}"
        )
    weights = np.vstack([np.ones((1, counts.shape[1])), counts])
    groups = np.zeros(correct.shape[1], dtype=int) if classes is None else np.asarray(classes)
    if len(groups) != correct.shape[1]:
        raise ValueError(f"classes has {len(groups)} images, and correct {correct.shape[1]}")
    recalls = []
    for group in np.unique(groups):
        own = groups == group
        images = weights[:, own].sum(axis=1, keepdims=True)
        if not images.all():
            raise ValueError(f"counts has a resample without an image of class {group}: draw within classes")
        recalls.append(weights[:, own] @ correct[:, own].T / images)
    return np.mean(recalls, axis=0)


def rank_stability(
    curves: Curves, penalty: float, penalties: Sequence[float] = PENALTIES, coverage: float = 0.95
) -> pd.DataFrame:
    """Kendall's tau between the ranks of models by the raw health score under one convention and another.

    1 is the same order, 0 what unrelated orders have on average, -1 the reverse. The interval is the percentile
    interval over resampled images, both conventions on the same images each time; it takes noise in twice, so that it
    is wide rather than narrow. The row of redrawn images is a yardstick: the same convention on the sample and on each
    resample, with its median for tau; what a change of convention does beyond it is the convention's doing.

    Args:
        curves: of one module: metric -> model -> curves from `resampled_curves`; the first metric is the reference's,
            every model has all metrics.
        penalty: lambda of the reference, which takes all points.
        penalties: what lambda is changed to, `penalty` apart.
        coverage: of the intervals.

    Returns:
        changed (lambda, metric, points or images), to, models, tau, low, high; nan where a convention ranks no model
        above another.

    Raises:
        ValueError: fewer than two models, metrics of other models, resamples that differ in number, or a performance
            that is not positive.
    """
    _check(curves)
    reference_metric = next(iter(curves))
    reference = _scores(curves[reference_metric], penalty)
    changes = [("lambda", f"{value:g}", reference_metric, value, None) for value in penalties if value != penalty]
    changes += [("metric", metric, metric, penalty, None) for metric in curves if metric != reference_metric]
    changes += [("points", name, reference_metric, penalty, choose) for name, choose in POINTS.items()]
    tail = (1 - coverage) / 2
    records = []
    for changed, to, metric, value, choose in changes:
        other = _scores(curves[metric], value, choose)
        taus = _taus(reference, other)
        records.append((changed, to, taus[0], *np.quantile(taus[1:], [tail, 1 - tail])))
    redrawn = _taus(reference[:1], reference[1:])
    records.append(("images", "redrawn", *np.quantile(redrawn, [0.5, tail, 1 - tail])))
    table = pd.DataFrame(records, columns=["changed", "to", "tau", "low", "high"])
    table.insert(2, "models", reference.shape[1])
    return table


def _scores(curves: Mapping[str, np.ndarray], penalty: float, choose: Callable | None = None) -> np.ndarray:
    """Health scores [1 + resamples, models]."""
    chosen = (choose(own) if choose else own for own in curves.values())
    return np.stack([health_scores(own, penalty) for own in chosen], axis=1)


def _taus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of scores [..., models], row by row: scipy's, which takes one pair of rows at a time."""
    first, second = np.triu_indices(one.shape[-1], 1)
    signs = [np.sign(scores[..., first] - scores[..., second]) for scores in (one, other)]
    concordant = (signs[0] * signs[1]).sum(axis=-1)
    ranked = np.sqrt(np.prod([np.abs(own).sum(axis=-1) * np.ones(len(other)) for own in signs], axis=0))
    return np.divide(concordant, ranked, out=np.full(len(other), np.nan), where=ranked > 0)


def _check(curves: Curves) -> None:
    first = next(iter(curves.values()), {})
    if len(first) < 2:
        raise ValueError(f"curves has {len(first)} models: ranks need two or more")
    resamples = len(next(iter(first.values())))
    for metric, of_models in curves.items():
        if [*of_models] != [*first]:
            raise ValueError(f"curves of {metric} are of the models {[*of_models]}, not {[*first]}")
        for model, own in of_models.items():
            if own.ndim != 2 or len(own) != resamples or len(own) < 2:
                raise ValueError(f"curves of {metric}, {model} need to be [1 + resamples, points], as all others'")
            if not (own > 0).all():
                raise ValueError(f"curves of {metric}, {model} fall to {own.min()}: a health score needs more than 0")
