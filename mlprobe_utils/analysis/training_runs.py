"""Runs of a fine-tuning: how far they differ, what that leaves of a model's accuracy, and what more runs could show."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.detectable import least_of_runs
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS, intervals, spread_of
from mlprobe_utils.stats.resampling import Resamples, accuracy, between_runs, retrained

ONE_RUN = "every model has one run, so that nothing is said about a training setup: intervals are of these weights"


def of_models(
    predicted: pd.DataFrame, stage: str, image_sets: Mapping[str, ImageSet], split_rule: str
) -> Iterator[tuple[str, Resamples, dict[str, np.ndarray]]]:
    """Data set by data set its resamples, and by model whether the answers to its test images are correct, bool [runs,
    1, images]. Raises InputError for predictions on other images than the test images."""
    tested = predicted[(predicted["split"] == "test") & (predicted["stage"] == stage)]
    for dataset, of_dataset in tested.groupby("dataset", sort=False):
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        by_model = of_dataset.groupby("model", sort=False)
        found = {slug: of_tested(output_outcomes(own), images, f"{slug} on {dataset}") for slug, own in by_model}
        yield dataset, drawn, {slug: own.correct for slug, own in found.items()}


def spreads(predicted: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """How far accuracies of runs of one fine-tuning differ: dataset, models, runs (of all), as standard deviations in
    pp those seen, by images (what the choice of images alone makes of runs that are alike), and between runs (what is
    left); degrees of freedom. nan where no model has several runs."""
    rows = []
    for dataset, drawn, correct in of_models(predicted, "finetuned", image_sets, split_rule):
        between = between_runs(accuracy(own, drawn) for own in correct.values())
        known = (between.seen, between.by_images, between.variance) if between else [np.nan] * 3
        counts = len(correct), sum(map(len, correct.values()))
        rows.append((dataset, *counts, *np.sqrt(known), between.freedom if between else 0))
    columns = ["dataset", "models", "runs", "seen", "by images", "between runs", "degrees of freedom"]
    return pd.DataFrame(rows, columns=columns)


def in_words(found: pd.DataFrame, names: Mapping[str, str]) -> str:
    """`spreads` for a sentence."""
    known = found[found["degrees of freedom"] > 0].rename(columns={"between runs": "size", "degrees of freedom": "of"})
    words = (f"{own.size:.1f} on {names[own.dataset]} ({own.of} degrees of freedom)" for own in known.itertuples())
    return "; ".join(words) or ONE_RUN


def accuracies(predicted: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Accuracy of the final output after fine-tuning: dataset, model, runs, accuracy (percent, mean over runs), and an
    interval of each scope as a text; none of TRAINING where a model has one run."""
    rows = []
    for dataset, drawn, correct in of_models(predicted, "finetuned", image_sets, split_rule):
        for model, own in retrained({slug: accuracy(one, drawn) for slug, one in correct.items()}).items():
            scopes = (WEIGHTS, TRAINING) if own.runs else (WEIGHTS,)
            ends = {scope: intervals(own, scope).loc[0, ["low", "high"]] for scope in scopes}
            texts = {scope: "{:.1f}–{:.1f}".format(*pair) for scope, pair in ends.items()}
            place = {"dataset": dataset, "model": model, "runs": len(correct[model]), "accuracy": own.values[0]}
            rows.append(place | {WEIGHTS: "", TRAINING: ""} | texts)
    return pd.DataFrame(rows)


def least_differences(
    predicted: pd.DataFrame,
    compared: Sequence[tuple[str, str]],
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    runs: Sequence[int] = (2, 3, 5),
) -> pd.DataFrame:
    """The smallest difference in accuracy between two trainings that is found in 80 % of cases, with so many runs of
    each, by the variances of these models and pairs: dataset, a column a number of runs, any number (pp). None where no
    model has several runs."""
    rows = []
    for dataset, drawn, correct in of_models(predicted, "finetuned", image_sets, split_rule):
        found = {slug: accuracy(own, drawn) for slug, own in correct.items()}
        if not (between := between_runs(found.values())) or not compared:
            continue
        means, here = retrained(found), max(map(len, correct.values()))
        by_images = np.mean([spread_of(means[one] - means[base], WEIGHTS).error ** 2 for one, base in compared])
        shared = max(1e4 * by_images - 2 * between.by_images / here, 0.0)  # what more runs leave of it
        least = {f"{n} runs": least_of_runs(between, shared, len(correct), drawn, n) for n in runs}
        rows.append({"dataset": dataset} | least | {"any number": least_of_runs(between, shared, 1, drawn, np.inf)})
    return pd.DataFrame(rows, columns=["dataset", *(f"{n} runs" for n in runs), "any number"])
