"""What medical adaptation gains: accuracy of a model less that of its base (paper section 5, figure 4)."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.analysis.training_runs import of_models
from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.stats.intervals import LEVEL, TRAINING, WEIGHTS, Spread, scope_of, spread_of
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, judged, of_independent
from mlprobe_utils.stats.resampling import Statistic, accuracy, retrained

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
    """The gain of each of `pairs` on each data set, and the mean of several data sets, which weigh the same: after
    fine-tuning in the scope TRAINING, where models have several runs, and of WEIGHTS; and before it. Columns: PAIR,
    SIDES (percent, means over runs), ABSOLUTE (pp), RELATIVE (percent), disagreement (percent of the images that only
    one predicts correctly), p, p (Holm; over all of one stage and scope), verdict (LOST, GAINED or NEITHER), stage,
    scope, statement (both in words). Raises InputError for predictions on other images than the test images."""
    by, frames = [*PAIR, *SIDES, *RELATIVE, "disagreement"], []
    for stage in (stage for stage in ("finetuned", "pretrained") if stage in set(predicted["stage"])):
        found, known = {TRAINING: [], WEIGHTS: []}, True
        for dataset, drawn, correct in of_models(predicted, stage, image_sets, split_rule):
            means = retrained({slug: accuracy(own, drawn) for slug, own in correct.items()})
            known &= scope_of(means.values()) == TRAINING
            for (model, base), scope in product(compared, (TRAINING, WEIGHTS) if known else (WEIGHTS,)):
                after, before = means[model], means[base]
                disagreement = 100 * np.mean(correct[model] != correct[base])
                values = after.values[0], before.values[0], *relative_change(after, before, scope), disagreement
                place = dict(zip(by, (dataset, model, base, *values), strict=True))
                sides = (before, after) if scope == TRAINING else (correct[base], correct[model])
                found[scope].append(Pair(place, *sides, drawn, scope))
        for scope, own in found.items():
            if scope == WEIGHTS or (own and known):
                statement = f"{STAGE_NAMES[stage]}: {scope}"
                frames.append(_judged(own, by).assign(stage=stage, scope=scope, statement=statement))
    return pd.concat(frames, ignore_index=True)


def _judged(pairs: Sequence[Pair], by: Sequence[str]) -> pd.DataFrame:
    """Comparisons, and their means over data sets, corrected for the number of all."""
    table = compare(pairs, by, ABSOLUTE[0], also=("error", "freedom"))
    several = table[table.duplicated(PAIR[1:], keep=False)].drop(columns=["dataset"])
    means = of_independent(several, PAIR[1:], ABSOLUTE, RELATIVE).assign(dataset=MEAN)
    table = judged(pd.concat([table, means], ignore_index=True), ABSOLUTE[0], (LOST, GAINED, NEITHER))
    return table[[*PAIR, *SIDES, *ABSOLUTE, *RELATIVE, "disagreement", "p", "p (Holm)", "verdict"]]


def relative_change(after: Statistic, before: Statistic, scope: str) -> tuple[float, float, float]:
    """By how many percent a mean over runs (`retrained`) changes, with the ends of its interval (symmetric for the
    logarithm of the quotient, whose error is that of the two, each in shares of itself); nan where before is 0."""
    (end,), (start,) = after.values, before.values
    if min(end, start) <= 0:
        return 100 * (end / start - 1) if start > 0 else np.nan, np.nan, np.nan
    spread = spread_of(after * (100 / end) - before * (100 / start), scope)
    middle, half = np.log(end / start), half_width(spread)[0]
    return tuple(100 * float(np.expm1(at)) for at in (middle, middle - half, middle + half))


def half_width(spread: Spread) -> np.ndarray:
    """Half a t interval, as shares [points]."""
    return t.isf((1 - LEVEL) / 2, spread.freedom) * spread.error
