"""Health scores of a run with their noise: corrected, beside those of a flat curve, and the ranks of models by them. A
module that changes nothing has the performance of its input at every point, and GF 0 and VP 1. On a test set of finite
size its score is lower all the same, and the lower the more points it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import STATE, corrected_health, health_score, noise_covariance, root_of
from mlprobe_utils.evaluation.outcomes import of_modules, outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.images import ImageSet, load_image_set
from mlprobe_utils.pipeline.results import CORRECTED_HEALTH, Selection
from mlprobe_utils.pipeline.scoring import derived
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL

QUANTILES, FLAT_CURVES = (0.025, 0.5, 0.975), 2000  # of the scores of so many flat curves
SCORES = ["raw", "score", "low", "high", "flat_low", "flat_middle", "flat_high"]
PENALTIES = (0.05, 0.1, 0.2, 0.5, 1.0)
RESAMPLES, RUN = 200, 0  # of an order of models: of the images, for intervals; and the run
RANKS = ["dataset", "module", "changed", "to", "models", "tau", "low", "high"]
Curves = Mapping[str, Mapping[str, np.ndarray]]  # metric -> model -> float [1 + resamples, points], the plain one first
POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # which count; a curve of one point keeps it
    "every second point, the last among them": lambda curves: curves[:, ::-1][:, ::2][:, ::-1],
    "without the last point": lambda curves: curves[:, :-1] if curves.shape[1] > 1 else curves,
    "without the first point": lambda curves: curves[:, 1:] if curves.shape[1] > 1 else curves,
}


def profile(health: pd.DataFrame, output_scores: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One row a model, data set and stage: FHS_V, FHS_C, FHS_L and P_final, each the mean over runs."""
    wide = health.pivot_table(index=STATE, columns="module", values="health", aggfunc="mean")
    final = output_scores.groupby(STATE)[metric].mean().rename("P_final")
    table = wide[list(MODULES)].add_prefix("FHS_").join(final).reset_index()
    return table.sort_values(["dataset", "model", "stage"], ascending=[True, True, False])  # pretrained comes first


def health_of_run(selection: Selection) -> pd.DataFrame:
    """`corrected_scores` of all selected models and data sets, kept beside their rows. Raises InputError for what was
    not run, and a module whose health score has no value."""
    penalty = load_protocol(selection.protocol).health.penalty

    def make(one: Selection) -> pd.DataFrame:
        of_set = load_image_set(one.datasets[0], one.protocol), one.split_rule
        return corrected_scores(results.probe_rows(one), *of_set, penalty)

    scores = derived(selection, CORRECTED_HEALTH, ["probes"], __name__, make, penalty=penalty)
    if (missing := scores["raw"].isna()).any():
        row = scores[missing].iloc[0]
        where = f"{row['model']} on {row['dataset']}, {MODULES[row['module']]} ({row['stage']}, run {row['run']})"
        wrong = f"at a point, none of {row['images']} test images is classified correctly, where no score has a value"
        raise InputError(f"{where}: {wrong}: add test images, or train the probes longer")
    return scores


def corrected_scores(rows: pd.DataFrame, image_set: ImageSet, split_rule: str, penalty: float) -> pd.DataFrame:
    """Health scores of modules without what noise does to them, of those of one model's probe rows on one data set that
    are `of_modules`; whole patients and duplicate groups are drawn. `penalty` is lambda. Returns STATE, run, module,
    points and images (how many), raw (equation 3), score (corrected), low, high (its interval), flat_low, flat_middle,
    flat_high (as `flat_range`); in percent, nan where a point has no correct image. Raises InputError for fewer than
    two independent test images, incomplete rows, and rows of other images."""
    resamples, images = resamples_of_tested(image_set, split_rule)
    counts = None if len(np.unique(resamples.clusters)) == len(images) else resamples.counts
    records = []
    for state, own in of_modules(rows).groupby(STATE, sort=False):
        found = of_tested(outcomes(own), images, " ".join(state))
        for run, of_run in zip(own["run"].unique(), found.correct, strict=True):
            for module in MODULES:
                correct = of_run[[found.points.index(point) for point in found.of_module(module)]]
                scores = [np.nan] * len(SCORES)
                if correct.any(axis=1).all():
                    scores = [*corrected_health(correct, penalty, counts), *flat_range(correct, penalty, counts)]
                records.append((*state, run, module, len(correct), len(images), *scores))
    return pd.DataFrame(records, columns=[*STATE, "run", "module", "points", "images", *SCORES])


def flat_range(correct: np.ndarray, penalty: float, counts: np.ndarray | None = None) -> np.ndarray:
    """QUANTILES of the raw scores (percent) that a flat curve gets with a module's noise, at the accuracy of its last
    point; arguments as of `corrected_health`."""
    noise, least = noise_covariance(correct, counts), 0.5 / correct.shape[1]
    return np.quantile(flat_scores(correct[-1].mean(), noise, penalty, least), QUANTILES)


def flat_scores(level: float, covariance: np.ndarray, penalty: float, least: float = 0.0) -> np.ndarray:
    """Raw scores (percent) of FLAT_CURVES flat curves at `level` (0 to 1) with normal noise that lowers none below
    `least`. ValueError where a curve falls to 0."""
    normal = np.random.default_rng(0).standard_normal((FLAT_CURVES, len(covariance)))
    curves = level + normal @ root_of(covariance).T
    return 100 * health_score(np.clip(curves, least, 1), penalty)


def rank_table(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str, penalty: float) -> pd.DataFrame:
    """`rank_stability` of every data set and module, after fine-tuning, of the first run; none of a single model. The
    metrics are accuracy (the reference) and balanced accuracy, where no class is without test images; resamples that
    lack a class are not used."""
    rows = of_modules(rows)
    rows = rows[(rows["stage"] == "finetuned") & (rows["run"] == RUN)]
    tables = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False) if rows["model"].nunique() > 1 else ():
        found = {model: outcomes(own) for model, own in of_dataset.groupby("model", sort=False)}
        drawn, one = resamples_of_tested(image_sets[dataset], split_rule)[0], next(iter(found.values()))
        whole = (drawn.counts @ np.eye(len(one.options), dtype=int)[one.truth] > 0).all(axis=1)
        metrics = ("accuracy", "balanced_accuracy") if whole.any() else ("accuracy",)
        drawn = replace(drawn, counts=drawn.counts[whole | ~whole.any()][:RESAMPLES])
        for module in MODULES:
            curves = {metric.replace("_", " "): {} for metric in metrics}
            for metric, (model, own) in product(metrics, found.items()):
                scores = own.at(*own.of_module(module)).score(metric, None, drawn)
                curves[metric.replace("_", " ")][model] = np.vstack([scores.values, scores.resampled[:, 0]])
            tables.append(rank_stability(curves, penalty).assign(dataset=dataset, module=module))
    return pd.concat(tables, ignore_index=True)[RANKS] if tables else pd.DataFrame(columns=RANKS)


def rank_stability(curves: Curves, penalty: float, penalties: Sequence[float] = PENALTIES) -> pd.DataFrame:
    """Kendall's tau between the ranks of models by the raw health score of a module with one lambda, metric and set of
    points and another, with percentiles over resampled images; the reference has `penalty`, the first metric of
    `curves` and all points. A yardstick is the row of redrawn images: the reference on the sample and on each resample,
    with its median for tau.

    Returns changed (lambda, metric, points or images), to, models, tau, low, high; nan where no model ranks above
    another. Raises ValueError for a performance that is not positive."""

    def scores(metric: str, penalty: float, choose: Callable = lambda own: own) -> np.ndarray:
        return np.stack([health_score(choose(own), penalty) for own in curves[metric].values()], axis=1)

    first, *others = curves
    reference, ends = scores(first, penalty), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    changes = {("lambda", f"{value:g}"): scores(first, value) for value in penalties if value != penalty}
    changes |= {("metric", metric): scores(metric, penalty) for metric in others}
    changes |= {("points", name): scores(first, penalty, choose) for name, choose in POINTS.items()}
    changes["images", "redrawn"] = np.broadcast_to(reference[:1], reference.shape)
    taus = {change: kendalltau(reference, own, axis=1).statistic for change, own in changes.items()}
    found = {change: (own[0], *np.quantile(own[1:], ends)) for change, own in taus.items()}
    found["images", "redrawn"] = np.quantile(taus["images", "redrawn"][1:], [0.5, *ends])
    records = [(*change, len(reference[0]), *own) for change, own in found.items()]
    return pd.DataFrame(records, columns=RANKS[2:])
