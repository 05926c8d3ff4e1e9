"""What medical adaptation gains: accuracy of a model minus that of its base (paper section 5, figure 4). And how much
runs of a fine-tuning differ, and which difference more of them could detect."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS, scope_of, spread_of
from mlprobe_utils.stats.paired import ALPHA, NEITHER, POWER, Pair, compare
from mlprobe_utils.stats.resampling import Resamples, accuracy, between_runs, retrained

MEAN = "mean over data sets"
GAINED, LOST = "significant gain", "significant loss"
PAIR = ["dataset", "model", "base"]
SIDES = ["accuracy", "accuracy of the base"]
NUMBERS = (2, 3, 5)  # of runs
RELATIVE = "relative gain (%)"


def pairs(models: Mapping[str, ModelCard]) -> list[tuple[str, str]]:
    """(adapted model, its base), by slug: of all cards that name one of these models as base, by slug or hub id."""
    named = {name: slug for slug, card in reversed(models.items()) for name in (card.source, slug)}
    return [(slug, named[card.base]) for slug, card in models.items() if card.base in named]


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


def gains(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """The gain of each of `pairs` on each data set, and the mean of several data sets, which weigh the same and is not
    tested: after fine-tuning in the scope TRAINING, where models have several runs, and of WEIGHTS; and before it.
    Columns: PAIR, SIDES (percent, means over runs), gain, low, high (pp), RELATIVE (percent), disagreement (percent
    of the images that only one predicts correctly), p, p (Holm; over all of one stage and scope), verdict (LOST, GAINED
    or NEITHER), stage, scope, statement (both in words). Raises InputError for predictions on other images."""
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
                table = compare(own, by, "gain", (LOST, GAINED, NEITHER))
                several = table[table.duplicated(PAIR[1:], keep=False)].drop(columns=["p", "p (Holm)"])
                table = pd.concat([table, of_independent(several, PAIR[1:], "gain").assign(dataset=MEAN)])
                frames.append(table.assign(stage=stage, scope=scope, statement=f"{STAGE_NAMES[stage]}: {scope}"))
    return pd.concat(frames, ignore_index=True)


def of_independent(estimates: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Means by groups of estimates that are independent, as of several data sets: `by`, and all numbers; the intervals
    of `value`, low and high, are joined (Zou and Donner 2008)."""
    estimates = estimates.astype(dict.fromkeys((value, "low", "high"), float))  # of no rows, too
    groups = estimates.groupby([*by], sort=False)
    means = groups.mean(numeric_only=True)
    for end, sign in (("low", -1), ("high", 1)):
        squares = estimates[[*by]].assign(own=np.square(estimates[end] - estimates[value]))
        means[end] = means[value] + sign * np.sqrt(squares.groupby([*by])["own"].sum()) / groups.size()
    return means.reset_index()


def summary(tested: pd.DataFrame) -> str:
    """Gains of one stage and scope, models and data sets by name, in words: how many are above 0, how many are
    significant by `verdict`, which charts mark, and the largest gain and loss."""
    if tested.empty:
        return "There is no pair of models to compare."
    found, ends = Counter(tested["verdict"]), tested.sort_values("gain").iloc[[0, -1]]
    words = "{r.gain:+.1f} pp ({r.low:+.1f} to {r.high:+.1f}; {r.model}, {r.dataset})"
    least, most = (words.format(r=row) for row in ends.itertuples())
    loss = f"the largest loss is {least}" if ends["gain"].min() < 0 else f"there is no loss; the smallest is {least}"
    above = f"{(tested['gain'] > 0).sum()} of {len(tested)} differences are above 0, {found[GAINED]} of them"
    return f"{above} significantly; significant losses: {found[LOST]}. The largest difference is {most}; {loss}."


def spreads(
    predicted: pd.DataFrame, compared: Sequence[tuple[str, str]], image_sets: Mapping[str, ImageSet], split_rule: str
) -> pd.DataFrame:
    """How accuracies of runs of one fine-tuning differ: dataset, models, standard deviations in pp (observed; by
    images, that of equal runs; between runs, the rest), degrees of freedom; and the smallest difference (pp) of two
    that is found with POWER at ALPHA by so many runs of each, and by ever more (images alone), mean over `compared`.
    nan where no model has several runs."""
    rows = []
    for dataset, drawn, correct in of_models(predicted, "finetuned", image_sets, split_rule):
        found = {slug: accuracy(own, drawn) for slug, own in correct.items()}
        rows.append(row := {"dataset": dataset, "models": len(found), "degrees of freedom": 0})
        if between := between_runs(found.values()):
            known = {"observed": between.seen, "by images": between.by_images, "between runs": between.variance}
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
    columns = ["dataset", "models", "observed", "by images", "between runs", "degrees of freedom"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{n} runs" for n in NUMBERS), "images alone"])
