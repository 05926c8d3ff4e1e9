"""What medical adaptation gained: accuracy of a model less that of the general model it was adapted from.

Both are evaluated on the same test images, so that gains are paired (paper section 5, figure 4).
"""

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
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, verdicts
from mlprobe_utils.stats.resampling import Statistic, accuracy

MEAN = "mean over data sets"
GAINED, LOST = "gain", "loss"
WORDS = LOST, GAINED, NEITHER
PAIR = ["dataset", "model", "base"]
SIDES = ["accuracy", "accuracy of the base"]
ABSOLUTE, RELATIVE = ["gain", "low", "high"], ["relative gain (%)", "relative low", "relative high"]


def base_in(card: ModelCard, models: Mapping[str, ModelCard]) -> str | None:
    """The slug, among these, of the model that a card names as its base, by slug or by hub id; None without one."""
    return next((slug for slug, other in models.items() if card.base in (slug, other.source)), None)


def pairs(models: Mapping[str, ModelCard]) -> list[tuple[str, str]]:
    """(adapted model, its base), by slug, of all whose base is among these, in their order."""
    found = [(slug, base_in(card, models)) for slug, card in models.items() if card.base]
    return [(slug, base) for slug, base in found if base]


def left_out(models: Mapping[str, ModelCard], names: Mapping[str, str]) -> pd.DataFrame:
    """The models that are in no pair, and why: model, reason.

    Args:
        names: slug -> name of models that are not among these, too.
    """
    paired = {slug for pair in pairs(models) for slug in pair}
    rows = []
    for slug, card in models.items():
        if slug not in paired:
            base = names.get(card.base or "", card.base)
            reason = f"its base, {base}, is not in this run" if base else "its card names no base"
            rows.append((card.name, reason))
    return pd.DataFrame(rows, columns=["model", "reason"])


def gains(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """The gain of each pair on each data set and, of several data sets, their mean.

    Accuracies are means over the runs of the fine-tuning; intervals and tests allow for other images, not for other
    runs. The mean weighs data sets alike, as the paper's does; its interval is made of theirs, which are independent
    (Zou and Donner 2008).

    Args:
        predicted: from `results.prediction_rows`, of one stage.
        compared: from `pairs`.
        image_sets, split_rule: by slug, of the rows.

    Returns:
        dataset, model, base, accuracy, accuracy of the base, gain, low, high (percentage points), relative gain (%),
        relative low, relative high, disagreement (percent of the images that only one predicts correctly), p, p (Holm).
        The rows of the mean have no p.

    Raises InputError for rows of other images than the test images.
    """
    tested, found = predicted[predicted["split"] == "test"], []
    for dataset, of_dataset in tested.groupby("dataset", sort=False):
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        correct = {
            slug: of_tested(output_outcomes(rows), images, f"{slug} on {dataset}").correct
            for slug, rows in of_dataset.groupby("model", sort=False)
        }
        for model, base in compared:
            sides = [accuracy(correct[slug], drawn) for slug in (model, base)]
            place = dict(zip(PAIR, (dataset, model, base), strict=True))
            place |= dict(zip(SIDES, (side.values.mean() for side in sides), strict=True))
            place |= dict(zip(RELATIVE, relative_change(*sides), strict=True))
            place["disagreement"] = 100 * np.mean(correct[model] != correct[base])
            found.append(Pair(place, correct[base], correct[model], drawn))
    table = compare(found, [*PAIR, *SIDES, *RELATIVE, "disagreement"], ABSOLUTE[0])
    table = table[[*PAIR, *SIDES, *ABSOLUTE, *RELATIVE, "disagreement", "p", "p (Holm)"]]
    return pd.concat([table, *_means(table)], ignore_index=True)


def gains_of_stages(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """`gains` after fine-tuning and before it, with statement (stage in words) and verdict of WORDS by interval."""
    found = []
    for stage in ("finetuned", "pretrained"):
        own = gains(predicted[predicted["stage"] == stage], compared, image_sets, split_rule)
        found.append(own.assign(statement=STAGE_NAMES[stage], verdict=verdicts(own["low"], own["high"], WORDS)))
    return pd.concat(found, ignore_index=True)


def relative_change(after: Statistic, before: Statistic) -> tuple[float, float, float]:
    """By how many percent the mean over seeds has changed, with the ends of its interval; nan where before is 0.

    The interval is symmetric for the logarithm of the quotient, whose error comes from the resamples. Where nothing
    ever changes, the error is taken as if one cluster had, as in `intervals`.
    """
    values = [side.values.mean() for side in (after, before)]
    drawn = [side.resampled.reshape(len(side.resampled), -1).mean(axis=1) for side in (after, before)]
    if min(*values, *(own.min() for own in drawn)) <= 0:
        quotient = 100 * (values[0] / values[1] - 1) if values[1] > 0 else np.nan
        return quotient, np.nan, np.nan
    clusters = min(after.clusters, before.clusters)
    error = np.log(drawn[0] / drawn[1]).std(ddof=1) * np.sqrt(clusters / max(clusters - 1, 1))
    error = error if error > ROUNDING else 100 / clusters / values[1]
    half = t.isf((1 - LEVEL) / 2, max(clusters - 1, 1)) * error
    middle = np.log(values[0] / values[1])
    return tuple(100 * float(np.expm1(at)) for at in (middle, middle - half, middle + half))


def _means(table: pd.DataFrame) -> list[pd.DataFrame]:
    """One row a pair: means over its data sets, if there are several."""
    frames = []
    for (model, base), own in table.groupby(["model", "base"], sort=False):
        if len(own) > 1:
            row = {"dataset": MEAN, "model": model, "base": base}
            row |= own[[*SIDES, *ABSOLUTE, *RELATIVE, "disagreement"]].mean().to_dict()
            for value, low, high in (ABSOLUTE, RELATIVE):
                row[low] = row[value] - np.sqrt(((own[value] - own[low]) ** 2).sum()) / len(own)
                row[high] = row[value] + np.sqrt(((own[high] - own[value]) ** 2).sum()) / len(own)
            frames.append(pd.DataFrame([row]))
    return frames
