"""Metrics of probes, final output and controls (paper, section 3.3)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import OPTION, options_of, predicted_option

PAPER_METRICS = ("accuracy", "f1", "precision", "recall", "auc")
RESAMPLED = (*PAPER_METRICS, "balanced_accuracy", "sensitivity", "specificity")  # those with intervals
METRICS = (*RESAMPLED, "mcc", "average_precision", "calibration_error")
LESS_IS_BETTER = ("calibration_error",)
CALIBRATION_BINS = 10
COLLAPSED = 90  # percent of the images with one answer: a run that gives it to more tells nothing apart
KEYS = ["model", "dataset", "stage", "run", "probe", "pooling", "point"]
ENDS = (*(f"{module} end" for module in MODULES), names.OUTPUT)


def probe_scores(rows: pd.DataFrame, positives: dict[str, str | None]) -> pd.DataFrame:
    """Metrics in percent, one row per combination of KEYS; `positives`: data set -> option, None for macro averages."""
    return scores_by(rows[rows["split"] == "test"], positives, KEYS)


def output_scores(rows: pd.DataFrame, positives: dict[str, str | None]) -> pd.DataFrame:
    """Metrics in percent of the final output, one row per model, data set, stage and run, with the share of images that
    are `unparsed`, and whose `thought_cut` is why. Unparsed answers are incorrect: they count against the recall of
    their class and towards no option's precision."""
    rows, keys = rows[rows["split"] == "test"], ["model", "dataset", "stage", "run"]
    scores = scores_by(rows, positives, keys)
    flags = {"unparsed": rows["parsed"].isna(), "thought_cut": rows["thought_cut"]}
    counted = rows[keys].assign(**{name: 100 * own.astype(float) for name, own in flags.items()})
    return scores.merge(counted.groupby(keys, dropna=False).mean().reset_index(), on=keys)


def collapsed(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs after fine-tuning of prediction rows, or of a classifier's, that do not tell the test images apart: model,
    dataset, run, why (more than COLLAPSED percent have one answer, or a class that is present is never one)."""
    tested = rows[(rows["split"] == "test") & rows["run"].notna() & (rows["stage"] == "finetuned")]
    answers = tested["parsed"].fillna("no option") if "parsed" in tested else predicted_option(tested)
    found = []
    for place, own in tested.assign(answer=answers).groupby(["model", "dataset", "run"], sort=False):
        shares = 100 * own["answer"].value_counts(normalize=True)
        why = [f"'{answer}' to {share:.0f} % of the images" for answer, share in shares.items() if share > COLLAPSED]
        why += [f"never '{option}'" for option in sorted({*own["label"]} - {*own["answer"]})]
        found += [(*place, "; ".join(why))] if why else []
    return pd.DataFrame(found, columns=["model", "dataset", "run", "why"])


def collapsed_in_words(rows: pd.DataFrame, names: Mapping[str, str]) -> str:
    """`collapsed` for a sentence; "none" is said, too."""
    runs = collapsed(rows).replace(names).itertuples()
    return "; ".join(f"{own.model} on {own.dataset}, run {own.run:.0f} ({own.why})" for own in runs) or "none"


def control_scores(rows: pd.DataFrame, positives: dict[str, str | None]) -> pd.DataFrame:
    """Metrics in percent, one row per combination of KEYS and control; memorisation's on train images."""
    return scores_by(rows, positives, [*KEYS, "control"])


def scores_by(rows: pd.DataFrame, positives: dict[str, str | None], keys: list[str]) -> pd.DataFrame:
    """Metrics in percent, one row per combination of `keys`, nulls too: of the option that a generated text names, or
    the most probable one where there is no text."""
    records = []
    for dataset, own in rows.groupby("dataset", sort=False):
        options, predicted = options_of(own), predicted_option(own)
        if "text" in own:
            predicted = own["parsed"].where(own["text"].notna(), predicted)
        columns = [OPTION + option for option in options]
        truth, predicted = (pd.Categorical(named, options).codes for named in (own["label"], predicted))
        own = own.assign(truth=truth, predicted=predicted)
        for key, group in own.groupby(keys, dropna=False, sort=False):
            arrays = (group[wanted].to_numpy() for wanted in ("truth", "predicted", columns))
            scores = score(*arrays, options, positives[dataset])
            records.append(dict(zip(keys, key, strict=True)) | {"images": len(group)} | scores)
    return pd.DataFrame(records)


def best_without_model(controls: pd.DataFrame, metric: str) -> pd.Series:
    """The best of `control_scores` that needs no model, percent, by data set."""
    values = controls[controls["control"].isin(names.WITHOUT_MODEL)].groupby("dataset")[metric]
    return values.min() if metric in LESS_IS_BETTER else values.max()


def score(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, options: list[str], positive: str | None
) -> dict[str, float]:
    """METRICS in percent: of the positive option, or macro averages (one option against the rest) where there is none.
    0 / 0 counts as 0; an area is nan where an option has no image, or all. Balanced accuracy (of the options that have
    images), MCC (Gorodkin 2004) and calibration error have no positive option. In plain numpy, as a library would
    mostly check its arguments (tests hold all equal to scikit-learn's).

    `truth` and `predicted` are places among `options`, int [images]; -1 is unparsed: wrong everywhere, to the MCC an
    option that is never true. `probabilities` are float [images, options]."""
    images, places = len(truth), range(len(options))
    chosen = [*places] if positive is None else [options.index(positive)]
    once = np.ones((1, images), dtype=np.float32)
    of_options = {name: own[0, 0] for name, own in rates(once, truth, predicted[None], places).items()}
    true, named = (np.bincount(own + 1, minlength=len(options) + 1) for own in (truth, predicted))  # first: unparsed
    spread = (images**2 - (named**2).sum()) * (images**2 - (true**2).sum())
    values = {name: np.mean(own[chosen]) for name, own in of_options.items()}
    values |= {
        "accuracy": np.mean(truth == predicted),
        "auc": np.mean(areas_under_curve(once, truth, probabilities[None], chosen)),
        "balanced_accuracy": np.mean(of_options["recall"][true[1:] > 0]),
        "mcc": (images * (truth == predicted).sum() - true @ named) / np.sqrt(max(spread, 1)),
        "average_precision": np.mean(average_precisions(truth, probabilities)[chosen]),
        "calibration_error": calibration_error(truth, probabilities),
    }
    return {name: 100 * float(values[name]) for name in METRICS}


def rates(
    weights: np.ndarray, truth: np.ndarray, predicted: np.ndarray, chosen: Sequence[int]
) -> dict[str, np.ndarray]:
    """What follows from counts of images, of each chosen option against the rest: metric -> float [weights, points,
    chosen]; `weights` say how often an image counts, float32 [weights, images], `predicted` is int [points, images]."""
    true, named = truth[:, None, None] == chosen, predicted.T[..., None] == chosen  # [images, points, chosen]

    def count(which: np.ndarray) -> np.ndarray:
        counts = weights @ which.reshape(len(truth), -1).astype(np.float32)
        return counts.reshape(-1, *which.shape[1:]).astype(float)

    positive, found, correct, negative = map(count, (true, named, true & named, ~true))
    rejected = count(~true & ~named & (predicted.T[..., None] >= 0))
    recall = correct / np.maximum(positive, 1)
    return dict.fromkeys(("recall", "sensitivity", "balanced_accuracy"), recall) | {
        "f1": 2 * correct / np.maximum(positive + found, 1),
        "precision": correct / np.maximum(found, 1),
        "specificity": rejected / np.maximum(negative, 1),
    }


def areas_under_curve(
    weights: np.ndarray, truth: np.ndarray, probabilities: np.ndarray, chosen: Sequence[int]
) -> np.ndarray:
    """AUC as of `rates`: the share of pairs of images that an option's probability ranks rightly, ties counted half
    (Mann and Whitney 1947); nan where an option has no image, or all. `probabilities` are [points, images, options]."""
    areas = np.empty((len(weights), len(probabilities), len(chosen)))
    for place, option in enumerate(chosen):
        sides = [weights.T * side[:, None] for side in (truth == option, truth != option)]
        for point, own in enumerate(probabilities[..., option]):
            order = np.argsort(own)
            ties = np.flatnonzero(np.diff(own[order], prepend=-np.inf))  # where images of one probability begin
            inside, outside = (np.add.reduceat(side[order], ties, dtype=float) for side in sides)
            won = (inside * (outside.cumsum(axis=0) - outside / 2)).sum(axis=0)
            pairs = inside.sum(axis=0) * outside.sum(axis=0) * np.isfinite(own).all()
            areas[:, point, place] = won / np.where(pairs, pairs, np.nan)
    return areas


def average_precisions(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Average precision of each option against the rest, float [options]; nan if it has no image."""
    from_top = rankdata(-probabilities, "max", axis=0)
    places = [own[truth == option] for option, own in enumerate(from_top.T)]
    return np.array([np.mean(rankdata(own, "max") / own) if len(own) else np.nan for own in places])


def calibration_error(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the most probable option (Naeini et al. 2015), 0 to 1; above 0 by chance alone.
    Bins have equally many images (Nguyen and O'Connor 2015), and those of one probability share a bin."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = (rankdata(confidence, "min") - 1).astype(int) * CALIBRATION_BINS // len(truth)
    return float(np.abs(np.bincount(bins, correct - confidence)).sum() / len(truth))
