"""What follows from the rows of `probe` and `answer`: a metric's curve, health scores, a diagnosis."""

import numpy as np
import pandas as pd
import yaml

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.settings import SHIPPED, Health, paper
from mlprobe_utils.evaluation.diagnosis import against_usual, losses, usual, verdicts
from mlprobe_utils.evaluation.health import corrected_health, health_by_run
from mlprobe_utils.evaluation.metrics import METRICS, RESAMPLED, probe_scores, score
from mlprobe_utils.evaluation.outcomes import CURVE, of_modules, outcomes, output_outcomes, site_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import MAIN_PROBE, options_of
from mlprobe_utils.stats.intervals import LEAST_SEEDS, LEVEL, PROBE, RECIPE, intervals
from mlprobe_utils.stats.resampling import Resamples, resample

OWN = dict.fromkeys([*CURVE, "run", "seed"]) | {"model": "own model", "dataset": "own images", "stage": "own"}
OWN["probe"] = MAIN_PROBE


def accuracy(
    rows: pd.DataFrame,
    metric: str = "accuracy",
    *,
    split: str = "test",
    level: float = LEVEL,
    positive: str | None = None,
) -> pd.DataFrame:
    """A metric at every probe point with its interval; for answers, one row.

    >>> curve = mp.accuracy(rows)
    >>> [*curve]
    ['point', 'pooling', 'accuracy', 'low', 'high', 'images']

    Args:
        rows: from `probe` or `answer`.
        metric: accuracy, f1, precision, recall, auc, balanced_accuracy, sensitivity or specificity; mcc,
            average_precision and calibration_error have no interval (nan).
        split: `test` or `validation`.
        level: of each point's interval.
        positive: the label that counts as positive; None: the mean over labels.

    Returns:
        point, pooling, the metric (percent, mean over seeds), low and high (fixed probes on new images, by
        bootstrap over whole patients and copies), images (how many). InputError for an unknown metric or label, no rows
        of the split, images of one patient, a class without images."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if positive is not None and positive not in options_of(rows):
        raise unknown("label", positive, options_of(rows))
    frames = []
    for pooling, own in _of_split(rows, split).groupby("pooling", dropna=False, sort=False):
        found = output_outcomes(own) if "parsed" in own else outcomes(own)
        if metric in RESAMPLED:
            known = intervals(found.score(metric, positive, _resamples(own, found.images)), PROBE, level)
        else:
            scores = [
                [score(found.truth, *point, found.options, positive)[metric] for point in zip(*seed, strict=True)]
                for seed in zip(found.predicted, found.probabilities, strict=True)
            ]
            known = pd.DataFrame({"value": np.mean(scores, axis=0), "low": np.nan, "high": np.nan})
        known = known.rename(columns={"value": metric})[[metric, "low", "high"]]
        place = {"point": found.points, "pooling": None if pd.isna(pooling) else pooling}
        frames.append(pd.DataFrame(place).join(known).assign(images=len(found.images)))
    return pd.concat(frames, ignore_index=True)


def health(
    rows: pd.DataFrame, penalty: float | None = None, metric: str = "accuracy", *, positive: str | None = None
) -> pd.DataFrame:
    """The health score of each module (paper, equations 1 to 3) on the test images, from the mean of the image tokens.

    >>> mp.health(rows)["module"].tolist()
    ['V', 'C', 'L']

    Args:
        rows: from `probe`.
        penalty: lambda of equation 2; None: as in the protocol `paper`.
        metric, positive: as of `accuracy`; a metric where higher is better.

    Returns:
        module, points, end (the metric at the last point, percent), growth and volatility (equations 1 and 2), health
        (equation 3, percent), and for accuracy corrected, low and high: the score without the noise of few images and
        its 95 % interval (percent). Means over seeds. InputError for no rows of a module's image tokens; a metric
        where lower is better, or that is 0 at a point."""
    penalty = penalty or paper(Health, "health").penalty
    tested = of_modules(_of_split(rows, "test"))
    if tested.empty:
        raise InputError("health scores need probes of the image tokens (V.00/image_mean, …), the rows have none")
    scores = probe_scores(tested.assign(run=tested["seed"]), dict.fromkeys(tested["dataset"], positive))
    by_run = health_by_run(scores, penalty, metric)
    means = by_run.groupby("module", sort=False).mean(numeric_only=True).drop(columns="run")
    modules, found, records = [module for module in MODULES if module in means.index], outcomes(tested), []
    drawn = _resamples(tested, found.images)
    counts = None if len(set(drawn.clusters)) == len(found.images) else drawn.counts
    for module in modules if metric == "accuracy" else []:
        correct = found.at(*found.of_module(module)).correct
        records += [[module, *corrected_health(own, penalty, counts)[1:]] for own in correct]
    known = pd.DataFrame(records, columns=["module", "corrected", "low", "high"]).groupby("module").mean()
    return means.reindex(modules).astype({"points": int}).join(known).rename_axis("module").reset_index()


def diagnose(rows: pd.DataFrame, answers: pd.DataFrame, *, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """Where the model loses the label (paper, section 4.2), on the test images.

    >>> mp.diagnose(rows, answers)["statement"].tolist()[-1]
    'read-out gap, answer'

    Compares what can be decoded at the ends of vision tower, connector and LLM, with the image tokens pooled by mean or
    by position, and the answers. With probes of five or more seeds, intervals allow for other seeds, too. A mode is
    detected where a loss exceeds what undamaged miniatures lose in the shipped fault-injection benchmark. Those are
    small models on synthetic images: with your own, look at the intervals first. A read-out gap says that something
    decodable is missing from the answer, not where the model stopped using it.

    Args:
        rows: from `probe`, of the features of `extract`.
        answers: from `answer`, of the same model.
        reference: rows (image, label, split, p_<label>) of a classifier of the raw pixels, trained on the same images:
            a quality limitation is then also a loss against it, not only against the first vision block.

    Returns:
        One row per statement: statement, mode, before, after (measurement points), value (accuracy after - before),
        error, band_low and band_high (95 %, of all at once), usual (loss of undamaged models), deviation, threshold,
        detectable (the true loss detected in 80 % of cases), all in pp; p, p (Holm), verdict. InputError for a missing
        point or image."""
    probed, predicted = (_of_split(table, "test") for table in (rows, answers))
    images = sorted(probed["image"].unique())
    correct = site_outcomes(probed, predicted, reference, images)
    scope = RECIPE if probed["seed"].nunique() >= LEAST_SEEDS else PROBE
    lost = losses(correct, _resamples(probed, images), scope)
    cases = pd.read_csv(SHIPPED / "diagnosis" / "laboratory.csv")
    least = yaml.safe_load((SHIPPED / "trials" / "planted-faults.yml").read_text())["least_loss"]
    return verdicts(against_usual(lost, usual(cases), least))


def _of_split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of a split, with the columns that distinguish rows of several models."""
    own = rows[rows["split"] == split]
    if own.empty:
        raise unknown("split of the rows", split, {*rows["split"]})
    if own["label"].isna().any():
        raise InputError("the rows have no label: give image_list the labels of the images")
    return own.assign(**{column: value for column, value in OWN.items() if column not in own})


def _resamples(rows: pd.DataFrame, images: list[str]) -> Resamples:
    """Resamples of images, in this order, by whole clusters where rows have them."""
    own = rows.drop_duplicates("image").set_index("image").loc[images]
    return resample(own["cluster"].to_numpy() if "cluster" in own else np.arange(len(images)))
