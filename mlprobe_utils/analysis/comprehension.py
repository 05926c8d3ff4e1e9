"""Comprehension (probes of the mean of the image tokens) and utilization (of the last token) along the LLM (paper
section 5, figure 5); the options through the logit lens; and whether a model does better where it reads the question
before the image, or text that does not concern it. Test images and seeds are the same: differences are paired."""

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
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, judged
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
    """Utilization less comprehension at every LLM layer: STATE, point, comprehension, utilization (percent, means over
    seeds), value, band_low, band_high (pp, simultaneous, of RECIPE), p, p (Holm; over all curves), verdict of WORDS."""
    frames = []
    for own, stage in product(found, STAGES):
        curves = {name: own.outcomes[stage, name, CURVE] for name in POOLINGS}
        scores = {name: accuracy(one.correct, own.resamples) for name, one in curves.items()}
        tests = Pair({}, *scores.values(), own.resamples, RECIPE).tests()[["value", "band_low", "band_high", "p"]]
        means = {name: score.values.mean(axis=0) for name, score in scores.items()}
        frames.append(tests.assign(**own.place(stage=stage), point=curves["comprehension"].points, **means))
    table = judged(pd.concat(frames, ignore_index=True), "value", WORDS)
    columns = ["value", "band_low", "band_high", "p", "p (Holm)", "verdict"]
    return table[[*STATE, "point", "comprehension", "utilization", *columns]]


def course(compared: pd.DataFrame) -> pd.DataFrame:
    """How utilization compares to comprehension: dataset, stage, where (a layer), models, and counts by verdict. In any
    layer, a model counts for each verdict that it has somewhere but NEITHER, which counts where it has no other."""
    ordered = compared.sort_values("point", key=lambda points: points.map(flow_order), kind="stable")
    of_curve = ordered.groupby(STATE, sort=False)["verdict"]
    rows = []
    for where, has in (
        ("first layer", of_curve.agg(lambda own: {own.iloc[0]})),
        ("last layer", of_curve.agg(lambda own: {own.iloc[-1]})),
        ("any layer", of_curve.agg(lambda own: {*own} - {NEITHER} or {NEITHER})),
    ):
        for (dataset, stage), own in has.groupby(["dataset", "stage"], sort=False):
            counts = {verdict: sum(verdict in found for found in own) for verdict in WORDS}
            rows.append({"dataset": dataset, "stage": stage, "where": where, "models": len(own)} | counts)
    return pd.DataFrame(rows).sort_values(["dataset", "stage"], kind="stable", ignore_index=True)


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


def lost_on_the_way(lens: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Whether the last layer ranks the options worse than the layer that is the best on the validation images, over all
    runs of WEIGHTS: dataset, model, stage, at (that layer), there, at the end (percent correct), correct there alone,
    correct at the end alone (percent of images), `paired.compare` with verdict LOST, GAINED or NEITHER."""
    pairs, columns = [], ["there", "at the end", "correct there alone", "correct at the end alone"]
    for place, own, drawn, _ in groups(lens, STATE, image_sets, split_rule):
        chosen = best_on_validation(own)
        runs = [outcomes(of_run) for _, of_run in own[own["split"] == "test"].groupby("run", dropna=False)]
        last = runs[0].of_module("L")[-1]
        there, end = (np.concatenate([run.at(point).correct for run in runs]) for point in (chosen, last))
        shares = [100 * share.mean() for share in (there, end, there & ~end, end & ~there)]
        pairs.append(Pair(place | {"at": chosen} | dict(zip(columns, shares, strict=True)), there, end, drawn, WEIGHTS))
    return compare(pairs, ["dataset", "model", "stage", "at", *columns], words=(LOST, GAINED, NEITHER))


def outcomes_of_orders(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, order, POINTS or a site after the LLM) -> outcomes of one model and data set, of the run probed. Each
    order is fine-tuned by itself."""
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
    """Accuracy in one order less that in another, of all ORDERS_COMPARED, at the LLM's two ends and of the final
    output: dataset, model, stage, site, order, less, scope (RECIPE for probes, WEIGHTS for the answers, which are
    one adapter's each), difference and the rest of `paired.compare` with its own verdict."""
    pairs, sites = [], (IMAGE_TOKENS, LAST_TOKEN, OUTPUT)
    for own, stage, (order, less), site in product(found, STAGES, ORDERS_COMPARED, sites):
        scope = WEIGHTS if site == OUTPUT else RECIPE
        place = own.place(stage=stage, site=site, order=order, less=less, scope=scope)
        before, after = (own.outcomes[stage, side, site].correct for side in (less, order))
        pairs.append(Pair(place, before, after, own.resamples, scope))
    by = ["dataset", "model", "stage", "site", "order", "less", "scope"]
    return compare(pairs, by, "difference", HIGHER_OR_LOWER)


def order_curves(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of the probes on the image tokens, and of the final output: model, dataset, stage, order, point (or
    OUTPUT), value (percent), band_low, band_high (of RECIPE, nan for the final output)."""
    frames = []
    for own, order, stage in product(found, ORDERS, STAGES):
        probed, answers = (own.outcomes[stage, order, what] for what in (POINTS, OUTPUT))
        curve = intervals(accuracy(probed.correct, own.resamples), RECIPE)
        curve = curve[["value", "band_low", "band_high"]].assign(point=probed.points)
        output = pd.DataFrame({"value": [100 * answers.correct.mean()], "point": [OUTPUT]})
        frames.append(pd.concat([curve, output]).assign(**own.place(stage=stage, order=order)))
    columns = ["model", "dataset", "stage", "order", "point", "value", "band_low", "band_high"]
    return pd.concat(frames, ignore_index=True)[columns]
