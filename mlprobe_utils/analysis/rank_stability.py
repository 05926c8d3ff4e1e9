"""How far the order of models by health score depends on what the score leaves open (paper section 3.3).

Equations 1 to 3 hold a constant, lambda, that the paper sets without a reason, and take a metric and a set of points.
Ranks that change with them are the convention's, not the models'.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health import health_scores
from mlprobe_utils.evaluation.outcomes import of_modules, outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested

PENALTIES = (0.05, 0.1, 0.2, 0.5, 1.0)
RESAMPLES, RUN = 200, 0  # of an order of models: of the images, for intervals; and the run
RANKS = ["dataset", "module", "changed", "to", "models", "tau", "low", "high"]
Curves = Mapping[str, Mapping[str, np.ndarray]]  # metric -> model -> float [1 + resamples, points], the plain one first

# Which points of a curve count; a curve of one point keeps it.
POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every second point, the last among them": lambda curves: curves[:, ::-1][:, ::2][:, ::-1],
    "without the last point": lambda curves: curves[:, :-1] if curves.shape[1] > 1 else curves,
    "without the first point": lambda curves: curves[:, 1:] if curves.shape[1] > 1 else curves,
}


def rank_table(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str, penalty: float) -> pd.DataFrame:
    """`rank_stability` of every data set and module, after fine-tuning, of the first run.

    The metrics are accuracy (the reference) and balanced accuracy; resamples that lack a class are not used.

    Args:
        rows: probe rows of several models.
        image_sets: by slug, of the rows' data sets.
        split_rule: of the rows.
        penalty: lambda of the reference.

    Returns:
        RANKS, tau with the ends of its 95 % interval; no rows where there is but one model.

    Raises:
        InputError: rows that are not whole.
        ValueError: a curve without a health score, in a resample too.
    """
    rows = of_modules(rows)
    rows = rows[(rows["stage"] == "finetuned") & (rows["run"] == RUN)]
    tables = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False) if rows["model"].nunique() > 1 else ():
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        labels = of_dataset.drop_duplicates("image").set_index("image").loc[images, "label"].to_numpy()
        whole = [(drawn.counts[:, labels == label] > 0).any(axis=1) for label in set(labels)]
        counts = drawn.counts[np.all(whole, axis=0)][:RESAMPLES]
        found = {model: outcomes(own) for model, own in of_dataset.groupby("model", sort=False)}
        for module in MODULES:
            correct = {model: own.at(*own.of_module(module)).correct[0] for model, own in found.items()}
            curves = {
                name: {model: resampled_curves(own, counts, classes) for model, own in correct.items()}
                for name, classes in (("accuracy", None), ("balanced accuracy", labels))
            }
            tables.append(rank_stability(curves, penalty).assign(dataset=dataset, module=module))
    return pd.concat(tables, ignore_index=True)[RANKS] if tables else pd.DataFrame(columns=RANKS)


def resampled_curves(correct: np.ndarray, counts: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """A module's curve on all images and on each resample, float [1 + resamples, points], in shares.

    Args:
        correct: bool [points, images], whether the probe of each point is correct.
        counts: how often each image is drawn in each resample, [resamples, images], the same for all models.
        classes: of each image, [images]: then each class weighs the same (the mean of their recalls), else each image.
    """
    weights = np.vstack([np.ones((1, counts.shape[1])), counts])
    groups = np.zeros(correct.shape[1], dtype=int) if classes is None else np.asarray(classes)
    members = [groups == group for group in np.unique(groups)]
    recalls = [weights[:, own] @ correct[:, own].T / weights[:, own].sum(axis=1, keepdims=True) for own in members]
    return np.mean(recalls, axis=0)


def rank_stability(
    curves: Curves, penalty: float, penalties: Sequence[float] = PENALTIES, coverage: float = 0.95
) -> pd.DataFrame:
    """Kendall's tau between the ranks of models by the raw health score under one convention and another.

    1 is the same order, 0 what unrelated orders have on average, -1 the reverse. The interval is the percentile
    interval over resampled images, both conventions on the same images each time. The row of redrawn images is a
    yardstick: the same convention on the sample and on each resample, with its median for tau; what a change of
    convention does beyond it is the convention's doing.

    Args:
        curves: of one module: metric -> model -> curves from `resampled_curves`; the first metric is the reference's.
        penalty: lambda of the reference, which takes all points.
        penalties: what lambda is changed to, `penalty` apart.
        coverage: of the intervals.

    Returns:
        changed (lambda, metric, points or images), to, models, tau, low, high; nan where a convention ranks no model
        above another.

    Raises:
        ValueError: a performance that is not positive: it has no health score.
    """
    for metric, of_models in curves.items():
        for model, own in of_models.items():
            if not (own > 0).all():
                raise ValueError(f"curves of {metric}, {model} fall to {own.min()}: a health score needs more than 0")
    reference_metric = next(iter(curves))
    reference = _scores(curves[reference_metric], penalty)
    changes = [("lambda", f"{value:g}", reference_metric, value, None) for value in penalties if value != penalty]
    changes += [("metric", metric, metric, penalty, None) for metric in curves if metric != reference_metric]
    changes += [("points", name, reference_metric, penalty, choose) for name, choose in POINTS.items()]
    tail = (1 - coverage) / 2
    records = []
    for changed, to, metric, value, choose in changes:
        taus = _taus(reference, _scores(curves[metric], value, choose))
        records.append((changed, to, taus[0], *np.quantile(taus[1:], [tail, 1 - tail])))
    redrawn = _taus(reference[:1], reference[1:])
    records.append(("images", "redrawn", *np.quantile(redrawn, [0.5, tail, 1 - tail])))
    table = pd.DataFrame(records, columns=["changed", "to", "tau", "low", "high"])
    table.insert(2, "models", reference.shape[1])
    return table


def _scores(curves: Mapping[str, np.ndarray], penalty: float, choose: Callable | None = None) -> np.ndarray:
    """Health scores [1 + resamples, models]."""
    return np.stack([health_scores(choose(own) if choose else own, penalty) for own in curves.values()], axis=1)


def _taus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of scores [..., models], row by row: scipy's, which takes one pair of rows at a time."""
    first, second = np.triu_indices(one.shape[-1], 1)
    signs = [np.sign(scores[..., first] - scores[..., second]) for scores in (one, other)]
    concordant = (signs[0] * signs[1]).sum(axis=-1)
    ranked = np.sqrt(np.prod([np.abs(own).sum(axis=-1) * np.ones(len(other)) for own in signs], axis=0))
    return np.divide(concordant, ranked, out=np.full(len(other), np.nan), where=ranked > 0)


def by_choice(ranks: pd.DataFrame) -> pd.DataFrame:
    """Over all data sets and modules of `rank_table`, by convention: changed, to, models, tau (mean), lowest tau."""
    by = ranks.groupby(["changed", "to"], sort=False)
    found = by.agg(models=("models", "first"), tau=("tau", "mean"), lowest=("tau", "min"))
    return found.rename(columns={"tau": "tau (mean)", "lowest": "lowest tau"}).reset_index()


def in_short(ranks: pd.DataFrame) -> dict[str, str]:
    """What moves the order of `rank_table` most, and what redrawn images do to it, in a few words: choice, images."""
    known = ranks.dropna(subset="tau")
    words = dict.fromkeys(("choice", "images"), "there are too few models for an order")
    for name, own in (("choice", known[known["changed"] != "images"]), ("images", known[known["changed"] == "images"])):
        if len(own):
            least = own.loc[own["tau"].astype(float).idxmin()]
            place = f"{MODULES[least['module']]}, {least['dataset']}"
            what = f"{least['changed']}: {least['to']}, " if name == "choice" else ""
            words[name] = f"tau {least['tau']:.2f} ({what}{place})"
    return words
