"""What medical adaptation gains: accuracy of a model less that of its base (paper section 5, figure 4)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, ROUNDING
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, of_independent, verdicts
from mlprobe_utils.stats.resampling import Statistic, accuracy

MEAN = "mean over data sets"
GAINED, LOST = "gain", "loss"
PAIR = ["dataset", "model", "base"]
SIDES = ["accuracy", "accuracy of the base"]
ABSOLUTE, RELATIVE = ("gain", "low", "high"), ("relative gain (%)", "relative low", "relative high")


def pairs(models: Mapping[str, ModelCard]) -> list[tuple[str, str]]:
    """(adapted model, its base), by slug: of all cards that name one of these models as base, by slug or hub id."""
    named = {name: slug for slug, card in reversed(models.items()) for name in (card.source, slug)}
    return [(slug, named[card.base]) for slug, card in models.items() if card.base in named]


def gains(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """The gain of each of `pairs` on each data set after fine-tuning and before it, and the mean of several data sets,
    which weigh the same: PAIR, SIDES (percent, means over runs), ABSOLUTE (pp), RELATIVE (percent), disagreement
    (percent of the images that only one predicts correctly), p, p (Holm; none of a mean), statement (stage in words),
    verdict: LOST, GAINED or NEITHER by the interval, which is for new images. Raises InputError for predictions on
    other images than the test images."""
    by, frames = [*PAIR, *SIDES, *RELATIVE, "disagreement"], []
    for stage in (stage for stage in ("finetuned", "pretrained") if stage in set(predicted["stage"])):
        tested, found = predicted[(predicted["split"] == "test") & (predicted["stage"] == stage)], []
        for dataset, of_dataset in tested.groupby("dataset", sort=False):
            drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
            correct = {
                slug: of_tested(output_outcomes(rows), images, f"{slug} on {dataset}").correct
                for slug, rows in of_dataset.groupby("model", sort=False)
            }
            for model, base in compared:
                sides = [accuracy(correct[slug], drawn) for slug in (model, base)]
                disagreement = 100 * np.mean(correct[model] != correct[base])
                values = *(side.values.mean() for side in sides), *relative_change(*sides), disagreement
                place = dict(zip(by, (dataset, model, base, *values), strict=True))
                found.append(Pair(place, correct[base], correct[model], drawn))
        table = compare(found, by, ABSOLUTE[0])
        table = table[[*PAIR, *SIDES, *ABSOLUTE, *RELATIVE, "disagreement", "p", "p (Holm)"]]
        several = table[table.duplicated(PAIR[1:], keep=False)].drop(columns=["dataset", "p", "p (Holm)"])
        means = of_independent(several, PAIR[1:], ABSOLUTE, RELATIVE).assign(dataset=MEAN)
        table = pd.concat([table, means], ignore_index=True)
        verdict = verdicts(table["low"], table["high"], (LOST, GAINED, NEITHER))
        frames.append(table.assign(statement=STAGE_NAMES[stage], verdict=verdict))
    return pd.concat(frames, ignore_index=True)


def relative_change(after: Statistic, before: Statistic) -> tuple[float, float, float]:
    """By how many percent the mean over runs changes, with the ends of its interval (symmetric for the logarithm of the
    quotient); nan where before is 0."""
    clusters, (after, before) = min(after.clusters, before.clusters), map(means_over_runs, (after, before))
    if min(after.min(), before.min()) <= 0:
        return 100 * (after[0] / before[0] - 1) if before[0] > 0 else np.nan, np.nan, np.nan
    middle, *resampled = np.log(after / before)
    half = half_width(np.array(resampled), clusters, 100 / clusters / before[0])
    return tuple(100 * float(np.expm1(at)) for at in (middle, middle - half, middle + half))


def means_over_runs(of: Statistic) -> np.ndarray:
    """Of the images as they are, then of every resample, float [1 + resamples]."""
    return np.append(of.values.mean(), of.resampled.reshape(len(of.resampled), -1).mean(axis=1))


def half_width(resampled: np.ndarray, clusters: float, least: float) -> float:
    """Half a t interval; where no resample differs, its standard error is `least`: as if one cluster had changed."""
    freedom = max(clusters - 1, 1)
    error = resampled.std(ddof=1) * np.sqrt(clusters / freedom)
    return t.isf((1 - LEVEL) / 2, freedom) * (error if error > ROUNDING else least)
