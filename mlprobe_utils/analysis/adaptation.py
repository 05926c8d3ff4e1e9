"""What medical adaptation gained: a model's answers less those of the general model it was adapted from.

Both are asked about the same test images, so that gains are paired (paper section 5, figure 4).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.evaluation.outcomes import Outcomes, output_outcomes
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, ROUNDING
from mlprobe_utils.stats.paired_tests import holm, paired_tests
from mlprobe_utils.stats.resampling import Resamples, Statistic, accuracy

MEAN = "mean over data sets"
ABSOLUTE, RELATIVE = "gain", "relative gain (%)"
GAINED, LOST, NEITHER = "gain", "loss", "not distinguishable"


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
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split: str
) -> pd.DataFrame:
    """The gain of each pair on each data set and, of several data sets, their mean.

    Accuracies are means over the runs of the fine-tuning, of the answers as they were given; intervals and tests allow
    for other images, not for other runs. The mean weighs data sets alike, as the paper's does; its interval is made of
    theirs (Zou and Donner 2008), which are independent.

    Args:
        predicted: from `results.prediction_rows`, of one stage.
        compared: from `pairs`.
        image_sets: by slug, of the rows' data sets.
        split: of the rows.

    Returns:
        dataset, model, base, accuracy, accuracy of the base, gain, low, high (points), relative gain (%), relative
        low, relative high, disagreement (percent of the images that one has right and the other wrong), p, p (Holm).
        The rows of the mean have no p: a test of each data set is one of other images.

    Raises:
        InputError: rows of other images than the test images; as `output_outcomes`.
    """
    tested, records = predicted[predicted["part"] == "test"], []
    for dataset in tested["dataset"].unique():
        drawn, images = resamples_of_tested(image_sets[dataset], split)
        of_dataset = tested[tested["dataset"] == dataset]
        answered = {slug: _answers(own, images) for slug, own in of_dataset.groupby("model", sort=False)}
        for model, base in compared:
            place = {"dataset": dataset, "model": model, "base": base}
            records.append(place | _gain(answered[model].right, answered[base].right, drawn))
    columns = ["dataset", "model", "base", *_COLUMNS]
    table = pd.DataFrame(records, columns=columns)
    table["p (Holm)"] = holm(table["p"])
    return pd.concat([table, *_means(table)], ignore_index=True)


def gains_of_stages(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split: str
) -> pd.DataFrame:
    """`gains` after fine-tuning and before it, one below the other, with statement (the stage's name) and verdict."""
    found = []
    for stage in ("finetuned", "pretrained"):
        own = gains(predicted[predicted["stage"] == stage], compared, image_sets, split)
        found.append(own.assign(statement=STAGE_NAMES[stage], verdict=verdicts(own)))
    return pd.concat(found, ignore_index=True)


def verdicts(gained: pd.DataFrame) -> pd.Series:
    """Whether a gain's whole interval lies beyond 0: GAINED, LOST or NEITHER, of each row of `gains`."""
    return pd.Series(np.select([gained["low"] > 0, gained["high"] < 0], [GAINED, LOST], NEITHER), gained.index)


_COLUMNS = ["accuracy", "accuracy of the base", ABSOLUTE, "low", "high", RELATIVE, "relative low", "relative high"]
_COLUMNS += ["disagreement", "p"]


def _answers(rows: pd.DataFrame, images: list[str]) -> Outcomes:
    found = output_outcomes(rows)
    if found.images != images:
        where = f"{rows['model'].iloc[0]} on {rows['dataset'].iloc[0]}"
        raise InputError(f"{where}: its answers are not to the test images, make them anew")
    return found


def _gain(own: np.ndarray, base: np.ndarray, drawn: Resamples) -> dict[str, float]:
    """One pair on one data set; bool [runs, 1, images] each."""
    runs = max(len(own), len(base))
    own, base = (np.broadcast_to(side, (runs, *side.shape[1:])) for side in (own, base))
    test = paired_tests(base, own, drawn).iloc[0]
    sides = accuracy(own, drawn), accuracy(base, drawn)
    found = [float(side.values.mean()) for side in sides]
    found += [*test[["value", "low", "high"]], *relative_change(*sides), 100 * np.mean(own != base), test["p"]]
    return dict(zip(_COLUMNS, found, strict=True))


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
    logarithms = np.log(drawn[0] / drawn[1])
    error = logarithms.std(ddof=1) * np.sqrt(clusters / max(clusters - 1, 1))
    error = error if error > ROUNDING else 100 / clusters / values[1]
    half = t.isf((1 - LEVEL) / 2, max(clusters - 1, 1)) * error
    middle = np.log(values[0] / values[1])
    return tuple(100 * float(np.expm1(at)) for at in (middle, middle - half, middle + half))


def _means(table: pd.DataFrame) -> list[pd.DataFrame]:
    """One row a pair: means over its data sets, if there are several."""
    frames = []
    for (model, base), own in table.groupby(["model", "base"], sort=False):
        if len(own) > 1:
            row = {"dataset": MEAN, "model": model, "base": base} | own[_COLUMNS[:-1]].mean().to_dict()
            for value, low, high in ((ABSOLUTE, "low", "high"), (RELATIVE, "relative low", "relative high")):
                row[low] = row[value] - np.sqrt(((own[value] - own[low]) ** 2).sum()) / len(own)
                row[high] = row[value] + np.sqrt(((own[high] - own[value]) ** 2).sum()) / len(own)
            frames.append(pd.DataFrame([row]))
    return frames
