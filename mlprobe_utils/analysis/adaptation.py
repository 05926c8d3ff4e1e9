"""What medical adaptation gains: accuracy of a model less that of its base (paper section 5, figure 4)."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.training_runs import of_models
from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS, scope_of
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, of_independent
from mlprobe_utils.stats.resampling import accuracy, retrained

MEAN = "mean over data sets"
GAINED, LOST = "gain", "loss"
PAIR = ["dataset", "model", "base"]
SIDES = ["accuracy", "accuracy of the base"]
ABSOLUTE, RELATIVE = ("gain", "low", "high"), "relative gain (%)"


def pairs(models: Mapping[str, ModelCard]) -> list[tuple[str, str]]:
    """(adapted model, its base), by slug: of all cards that name one of these models as base, by slug or hub id."""
    named = {name: slug for slug, card in reversed(models.items()) for name in (card.source, slug)}
    return [(slug, named[card.base]) for slug, card in models.items() if card.base in named]


def gains(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """The gain of each of `pairs` on each data set, and the mean of several data sets, which weigh the same and is not
    tested: after fine-tuning in the scope TRAINING, where models have several runs, and of WEIGHTS; and before it.
    Columns: PAIR, SIDES (percent, means over runs), ABSOLUTE (pp), RELATIVE (percent), disagreement (percent of the
    images that only one predicts correctly), p, p (Holm; over all of one stage and scope), verdict (LOST, GAINED or
    NEITHER), stage, scope, statement (both in words). Raises InputError for predictions on other images."""
    by, frames = [*PAIR, *SIDES, RELATIVE, "disagreement"], []
    for stage in (stage for stage in ("finetuned", "pretrained") if stage in set(predicted["stage"])):
        found, known = {TRAINING: [], WEIGHTS: []}, True
        for dataset, drawn, correct in of_models(predicted, stage, image_sets, split_rule):
            means = retrained({slug: accuracy(own, drawn) for slug, own in correct.items()})
            known &= scope_of(means.values()) == TRAINING
            for (model, base), scope in product(compared, (TRAINING, WEIGHTS) if known else (WEIGHTS,)):
                after, before = (means[slug].values[0] for slug in (model, base))
                relative = 100 * (after / before - 1) if before else np.nan
                disagreement = 100 * np.mean(correct[model] != correct[base])
                place = dict(zip(by, (dataset, model, base, after, before, relative, disagreement), strict=True))
                sides = (of[slug] for of in (means if scope == TRAINING else correct,) for slug in (base, model))
                found[scope].append(Pair(place, *sides, drawn, scope))
        for scope, own in found.items():
            if scope == WEIGHTS or (own and known):
                table = compare(own, by, ABSOLUTE[0], (LOST, GAINED, NEITHER))
                several = table[table.duplicated(PAIR[1:], keep=False)].drop(columns=["p", "p (Holm)"])
                table = pd.concat([table, of_independent(several, PAIR[1:], ABSOLUTE[0]).assign(dataset=MEAN)])
                frames.append(table.assign(stage=stage, scope=scope, statement=f"{STAGE_NAMES[stage]}: {scope}"))
    last = ["disagreement", "p", "p (Holm)", "verdict", "stage", "scope", "statement"]
    return pd.concat(frames, ignore_index=True)[[*PAIR, *SIDES, *ABSOLUTE, RELATIVE, *last]]
