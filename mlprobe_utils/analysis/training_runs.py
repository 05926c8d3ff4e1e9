"""Runs of a fine-tuning: how far they differ, and what more of them could show."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import WEIGHTS, spread_of
from mlprobe_utils.stats.paired import ALPHA
from mlprobe_utils.stats.resampling import Resamples, accuracy, between_runs, retrained

NUMBERS = (2, 3, 5)  # of runs
POWER = 0.8  # as is usual in planning


def of_models(
    predicted: pd.DataFrame, stage: str, image_sets: Mapping[str, ImageSet], split_rule: str
) -> Iterator[tuple[str, Resamples, dict[str, np.ndarray]]]:
    """Data set by data set its resamples, and by model whether the answers to its test images are correct, bool [runs,
    1, images]. Raises InputError for predictions on other images than the test images."""
    tested = predicted[(predicted["split"] == "test") & (predicted["stage"] == stage)]
    for dataset, of_dataset in tested.groupby("dataset", sort=False):
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        found = {slug: output_outcomes(own) for slug, own in of_dataset.groupby("model", sort=False)}
        yield dataset, drawn, {m: of_tested(own, images, f"{m} on {dataset}").correct for m, own in found.items()}


def spreads(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """How accuracies of runs of one fine-tuning differ: dataset, models, standard deviations in pp (seen; by images,
    that of equal runs; between runs, what is left), degrees of freedom; and the smallest difference (pp) of two of them
    that is found with POWER at ALPHA by so many runs of each, and by ever more (images alone), mean over `compared`.
    nan where no model has several runs."""
    rows = []
    for dataset, drawn, correct in of_models(predicted, "finetuned", image_sets, split_rule):
        found = {slug: accuracy(own, drawn) for slug, own in correct.items()}
        rows.append(row := {"dataset": dataset, "models": len(found), "degrees of freedom": 0})
        if between := between_runs(found.values()):
            known = {"seen": between.seen, "by images": between.by_images, "between runs": between.variance}
            row |= {"degrees of freedom": between.freedom} | {name: own**0.5 for name, own in known.items()}
            means, here = retrained(found), between.freedom / len(found) + 1
            alone = [spread_of(means[one] - means[base], WEIGHTS) for one, base in compared]
            shared = max(1e4 * np.mean([own.error**2 for own in alone]) - 2 * between.by_images / here, 0)
            for runs in (*NUMBERS, np.inf) if alone else ():
                by_images, by_runs = shared + 2 * between.by_images / runs, 2 * between.seen / runs
                variance = by_images + 2 * between.variance / runs
                terms = by_images**2 / alone[0].freedom[0] + by_runs**2 / (len(found) * (runs - 1))
                least = sum(t.isf([ALPHA / 2, 1 - POWER], variance**2 / terms)) * variance**0.5
                row["images alone" if np.isinf(runs) else f"{runs} runs"] = least
    columns = ["dataset", "models", "seen", "by images", "between runs", "degrees of freedom"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{n} runs" for n in NUMBERS), "images alone"])
