"""Comprehension (probes of the mean of the image tokens) and utilization (of the last token) along the LLM (paper
section 5, figure 5); the options through the logit lens; and whether a model does better where it reads the question
before the image, or irrelevant text. Test images and seeds are the same: differences are paired."""

from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.names import CONTROL_RUN, IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.points import MODULES, POOLINGS, flow_order
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import OPTION, STAGES, predicted_option
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import ORDER, Selection
from mlprobe_utils.pipeline.tested import Evaluated, groups
from mlprobe_utils.pipeline.variants import of_value
from mlprobe_utils.stats.intervals import RECIPE, WEIGHTS, intervals
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER, Pair, compare, in_words, judged
from mlprobe_utils.stats.paired import WORDS as HIGHER_OR_LOWER
from mlprobe_utils.stats.resampling import accuracy

ABOVE, BELOW = "utilization above", "utilization below"
WORDS = BELOW, ABOVE, NEITHER
CURVE, BEST = "every layer", "the best layer on validation images"
LOST, GAINED = "lost", "gained"
ORDERS_COMPARED = (  # an order, and what is subtracted from it; only in `question_first` image tokens see the question
    ("question_first", "image_first"),
    ("irrelevant_first", "image_first"),
    ("question_first", "irrelevant_first"),
)
POINTS = "all points"  # of the image tokens
MOST_NAMED = 6  # curves in a sentence


def outcomes_of(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, of POOLINGS, CURVE or BEST) -> outcomes at LLM points, of one model and data set."""
    seeds, fitted = (rows[rows["point"].str[0] == "L"] for rows in (results.seed_rows(one), results.probe_rows(one)))
    found = {}
    for stage, (name, pooling) in product(STAGES, POOLINGS.items()):
        own, validated = (rows[(rows["stage"] == stage) & (rows["pooling"] == pooling)] for rows in (seeds, fitted))
        found[stage, name, CURVE] = outcomes(own)
        found[stage, name, BEST] = found[stage, name, CURVE].at(best_on_validation(validated))
    return found


def best_on_validation(rows: pd.DataFrame) -> str:
    """The point with the highest accuracy on validation images, mean over runs; the earliest of equals."""
    own = rows[rows["split"] == "validation"]
    if own.empty:
        raise InputError("no rows of validation images to choose a point with: probe the validation images too")
    correct = (predicted_option(own) == own["label"]).groupby(own["point"]).mean()
    return min(correct.index[correct == correct.max()], key=flow_order)


def differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Utilization - comprehension at every LLM layer: STATE, point, comprehension, utilization (percent, means over
    seeds), value, band_low, band_high (pp, simultaneous, of RECIPE), p, p (Holm; over all curves), verdict of WORDS."""
    frames = []
    for own, stage in product(found, STAGES):
        curves = {name: own.outcomes[stage, name, CURVE] for name in POOLINGS}
        scores = {name: accuracy(one.correct, own.resamples) for name, one in curves.items()}
        tests = Pair({}, *scores.values(), own.resamples, RECIPE).tests()[["value", "band_low", "band_high", "p"]]
        means = {name: score.values.mean(axis=0) for name, score in scores.items()}
        place = pd.DataFrame(own.place(stage=stage, point=curves["comprehension"].points, **means))
        frames.append(place.join(tests))
    return judged(pd.concat(frames, ignore_index=True), "value", WORDS)


def course(compared: pd.DataFrame) -> pd.DataFrame:
    """A row per curve of `differences`: STATE, first layer, last layer (verdicts there), and the layer where
    utilization exceeds comprehension most, one where it does significantly first: point, value, band, verdict."""
    ordered = compared.sort_values("point", key=lambda points: points.map(flow_order), kind="stable")
    ends = ordered.groupby(STATE, sort=False)["verdict"].agg(["first", "last"]).add_suffix(" layer").reset_index()
    ordered = ordered.assign(above=ordered["verdict"] == ABOVE).sort_values(["above", "value"], kind="stable")
    highest = ordered.drop_duplicates(STATE, keep="last")
    return ends.merge(highest[[*STATE, "point", "value", "band_low", "band_high", "verdict"]], on=STATE)


def above_in_words(courses: pd.DataFrame) -> str:
    """Of rows of `course`, with names: how many curves rise above comprehension, which, and how many significantly."""
    above = courses[courses["value"] > 1e-9].sort_values("value", ascending=False)  # less is rounding
    named = [f"{r.model} on {r.dataset} ({r.point}, {r.value:+.1f} pp)" for r in above.head(MOST_NAMED).itertuples()]
    named += [f"{len(above) - MOST_NAMED} more"] if len(above) > MOST_NAMED else []
    if not named:
        return f"none of {len(courses)} curves rises above comprehension at any layer."
    count = f"{len(above)} of {len(courses)} curves {'rises' if len(above) == 1 else 'rise'} above comprehension"
    significant = (courses["verdict"] == ABOVE).sum() or "none"
    return f"{count} at one layer or more: {'; '.join(named)}. The difference is significant in {significant} of them."


def mean_in_words(compared: pd.DataFrame) -> str:
    """The mean difference with its interval, and how many are significant; of pairs of `paired.compare`."""
    mean = f"{in_words(compared, 'difference')} pp"
    if len(compared) == 1:
        return f"{mean} ({compared['verdict'].iloc[0]})"
    higher, lower = (compared["verdict"].isin(words).sum() or "none" for words in ((ABOVE, HIGHER), (BELOW, LOWER)))
    counts = f"significantly higher in {higher} and lower in {lower} of {len(compared)} pairs of model and data set"
    return f"{mean}, {counts}"


def ceilings(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Whether utilization exceeds comprehension, each at the layer that is its best on the validation images: STATE,
    comprehension at, utilization at (LLM points), comprehension, utilization (percent), difference and the rest of
    `paired.compare` under RECIPE, with verdict of WORDS."""
    pairs = []
    for own, stage in product(found, STAGES):
        best = {name: own.outcomes[stage, name, BEST] for name in POOLINGS}
        place = own.place(stage=stage) | {f"{name} at": one.points[0] for name, one in best.items()}
        place |= {name: 100 * one.correct.mean() for name, one in best.items()}
        pairs.append(Pair(place, *(one.correct for one in best.values()), own.resamples, RECIPE))
    return compare(pairs, [*STATE, *(f"{name} at" for name in POOLINGS), *POOLINGS], "difference", WORDS)


def true_option(lens: pd.DataFrame) -> pd.DataFrame:
    """Mean probability of the true option on the test images (percent): model, dataset, stage, run, point, value."""
    tested = lens[lens["split"] == "test"]
    probabilities = tested.filter(regex=f"^{OPTION}")
    columns = probabilities.columns.get_indexer(OPTION + tested["label"])
    tested = tested.assign(value=100 * probabilities.to_numpy()[np.arange(len(tested)), columns])
    return tested.groupby([*STATE, "run", "point"], dropna=False, sort=False)["value"].mean().reset_index()


def settled(lens: pd.DataFrame) -> pd.DataFrame:
    """Share of test images whose first-ranked option is the last layer's from a layer on: STATE, run, point, value
    (%)."""
    frames = []
    for (*place, run), own in lens[lens["split"] == "test"].groupby([*STATE, "run"], dropna=False, sort=False):
        found = outcomes(own)
        points = found.of_module("L")
        predicted = found.at(*points).predicted[0]
        same = np.logical_and.accumulate((predicted == predicted[-1])[::-1])[::-1]
        curve = pd.DataFrame({"point": points, "value": 100 * same.mean(axis=1)})
        frames.append(curve.assign(**dict(zip(STATE, place, strict=True)), run=run))
    return pd.concat(frames, ignore_index=True)


def settling_layers(shares: pd.DataFrame) -> pd.DataFrame:
    """Where half of the images are `settled`, mean over runs: dataset, model, stage, at, layers before the last."""
    rows = []
    for (model, dataset, stage), own in shares.groupby(STATE, sort=False):
        curve = own.groupby("point")["value"].mean().sort_index(key=lambda points: points.map(flow_order))
        at = int(np.argmax(curve >= 50))
        rows.append((dataset, model, stage, curve.index[at], len(curve) - 1 - at))
    return pd.DataFrame(rows, columns=["dataset", "model", "stage", "at", "layers before the last"])


def earlier_layer(lens: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Whether the last layer ranks the options worse than the layer that is the best on the validation images, over all
    runs of WEIGHTS: dataset, model, stage, best layer, at the best, at the last (percent correct), correct at the best
    only, correct at the last only (percent of images), `paired.compare` with verdict LOST, GAINED or NEITHER."""
    pairs, columns = [], ["at the best", "at the last", "correct at the best only", "correct at the last only"]
    for place, own, drawn, _ in groups(lens, STATE, image_sets, split_rule):
        chosen = best_on_validation(own)
        runs = [outcomes(of_run) for _, of_run in own[own["split"] == "test"].groupby("run", dropna=False)]
        last = runs[0].of_module("L")[-1]
        there, end = (np.concatenate([run.at(point).correct for run in runs]) for point in (chosen, last))
        shares = [100 * share.mean() for share in (there, end, there & ~end, end & ~there)]
        place |= {"best layer": chosen} | dict(zip(columns, shares, strict=True))
        pairs.append(Pair(place, there, end, drawn, WEIGHTS))
    return compare(pairs, ["dataset", "model", "stage", "best layer", *columns], words=(LOST, GAINED, NEITHER))


def outcomes_of_orders(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, order, POINTS or a site after the LLM) -> outcomes of one model and data set, of the run probed. Each
    order has a fine-tuning of its own."""
    found = {}
    for order in ORDERS:
        own = of_value(one, ORDER, order)
        seeds, answers = results.seed_rows(own), results.prediction_rows(own)
        answers = answers[(answers["split"] == "test") & (answers["run"].fillna(CONTROL_RUN) == CONTROL_RUN)]
        modules = seeds[seeds["point"].str[0].isin(MODULES)]
        for stage in STAGES:
            by_pooling = modules[modules["stage"] == stage].groupby("pooling")
            image_tokens, last_token = (outcomes(by_pooling.get_group(pooling)) for pooling in POOLINGS.values())
            last = image_tokens.of_module("L")[-1]
            sites = {POINTS: image_tokens, IMAGE_TOKENS: image_tokens.at(last), LAST_TOKEN: last_token.at(last)}
            sites[OUTPUT] = output_outcomes(answers[answers["stage"] == stage])
            found |= {(stage, order, site): own for site, own in sites.items()}
    return found


def order_differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy in one order - accuracy in another, of all ORDERS_COMPARED, at the LLM's two ends and of the final
    output: dataset, model, stage, site, order, minus, scope (RECIPE for probes, WEIGHTS for the answers, which are
    one adapter's each), difference and the rest of `paired.compare` with its own verdict."""
    pairs, sites = [], (IMAGE_TOKENS, LAST_TOKEN, OUTPUT)
    for own, stage, (order, minus), site in product(found, STAGES, ORDERS_COMPARED, sites):
        scope = WEIGHTS if site == OUTPUT else RECIPE
        place = own.place(stage=stage, site=site, order=order, minus=minus, scope=scope)
        before, after = (own.outcomes[stage, side, site].correct for side in (minus, order))
        pairs.append(Pair(place, before, after, own.resamples, scope))
    by = ["dataset", "model", "stage", "site", "order", "minus", "scope"]
    return compare(pairs, by, "difference", HIGHER_OR_LOWER)


def order_curves(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of the probes on the image tokens, and of the final output: model, dataset, stage, order, point (or
    OUTPUT), value (percent), band_low, band_high (of RECIPE, nan for the final output)."""
    frames = []
    for own, order, stage in product(found, ORDERS, STAGES):
        probed, answers = (own.outcomes[stage, order, what] for what in (POINTS, OUTPUT))
        curve = intervals(accuracy(probed.correct, own.resamples), RECIPE)[["value", "band_low", "band_high"]]
        curve.loc[len(curve), "value"] = 100 * answers.correct.mean()
        place = pd.DataFrame(own.place(stage=stage, order=order, point=[*probed.points, OUTPUT]))
        frames.append(place.join(curve))
    return pd.concat(frames, ignore_index=True)
