"""Bands of a run's curves, intervals at the ends of modules, and paired tests, of the probes of `results.seed_rows` on
the image tokens, and of the final outputs of all runs: before and after fine-tuning, along the model, beside controls
and baselines, which know less, and of answers to other wordings of the question."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.metrics import ENDS, RESAMPLED
from mlprobe_utils.evaluation.names import CONTROL_RUN, OUTPUT
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes, single_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, groups, means_over_runs
from mlprobe_utils.stats.intervals import PROBE, RECIPE, SCOPES, TRAINING, WEIGHTS, intervals
from mlprobe_utils.stats.paired import WORDS, Pair, compare
from mlprobe_utils.stats.resampling import Statistic, accuracy

PROBES, ANSWER = "probes", "answer"  # all points; the answer of the run that is probed
STEPS = {  # on the way from image to answer: from a point, and to another one
    "along the vision tower": ("V start", "V end"),
    "to the connector's end": ("V end", "C end"),
    "into the LLM": ("C end", "L start"),
    "along the LLM": ("L start", "L end"),
    "to the answer": ("L end", ANSWER),
}
BLIND = "best rule without a model"  # of WITHOUT_MODEL the one with the highest test accuracy: it favours the rule
CONTROLS = (names.CONTROL_TASK, names.RANDOM_WEIGHTS, names.TEXT_ONLY, BLIND, names.CLASSICAL)


def outcomes_of(one: Selection, pooling: str = "image_mean") -> dict[tuple[str, ...], Outcomes]:
    """(stage, PROBES, ANSWER, a site of ENDS or of STEPS) -> outcomes on test images, of one model and data set."""
    seeds, answers = results.seed_rows(one), results.prediction_rows(one)
    seeds, answers = seeds[seeds["pooling"] == pooling], answers[answers["split"] == "test"]
    found = {}
    for stage in STAGES:
        probes, answered = outcomes(seeds[seeds["stage"] == stage]), answers[answers["stage"] == stage]
        of_run = answered[answered["run"].fillna(CONTROL_RUN) == CONTROL_RUN]
        found[stage, PROBES] = probes
        for module, (place, name) in product(MODULES, ((0, "start"), (-1, "end"))):
            found[stage, f"{module} {name}"] = probes.at(probes.of_module(module)[place])
        found |= {(stage, OUTPUT): output_outcomes(answered), (stage, ANSWER): output_outcomes(of_run)}
    return found


def bands(found: Iterable[Evaluated], metric: str) -> pd.DataFrame:
    """Simultaneous bands for RECIPE: STATE, point, band_low, band_high (percent); none but of RESAMPLED."""
    frames = [pd.DataFrame(columns=[*STATE, "point", "band_low", "band_high"])]
    for own, stage in product(found, STAGES) if metric in RESAMPLED else ():
        probes = own.outcomes[stage, PROBES]
        band = intervals(probes.score(metric, own.positive, own.resamples), RECIPE)[["band_low", "band_high"]]
        frames.append(band.assign(**own.place(stage=stage, point=probes.points)))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def scopes_of(site: str, output: Statistic) -> list[str]:
    """Of nothing but new images; and of a probe, or a model whose runs are known to differ, that is trained again."""
    if site != OUTPUT:
        return [PROBE, RECIPE]
    return [WEIGHTS, TRAINING] if output.runs else [WEIGHTS]


def end_intervals(found: Sequence[Evaluated], metric: str) -> pd.DataFrame:
    """At the end of each module and of the final output: dataset, model, stage, site (of ENDS), scope, value, low, high
    (percent); none of TRAINING for a single run, and none for a metric not of RESAMPLED."""
    rows, stages = [], STAGES if metric in RESAMPLED else ()
    outputs = {stage: means_over_runs(found, (stage, OUTPUT), metric=metric) for stage in stages}
    for own, stage, site in product(found, stages, ENDS):
        mean = outputs[stage][own.dataset, own.model, stage, OUTPUT]
        score = mean if site == OUTPUT else own.outcomes[stage, site].score(metric, own.positive, own.resamples)
        for scope in scopes_of(site, mean):
            ends = intervals(score, scope).loc[0, ["value", "low", "high"]]
            rows.append((own.dataset, own.model, stage, site, scope, *ends))
    return pd.DataFrame(rows, columns=["dataset", "model", "stage", "site", "scope", "value", "low", "high"])


def before_and_after(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Paired tests of accuracy after minus before fine-tuning: dataset, model, site (of ENDS), scope, and the columns
    of `paired.compare`, over all rows of a scope."""
    pairs = {scope: [] for scope in SCOPES}
    outputs = [[*means_over_runs(found, (stage, OUTPUT)).values()] for stage in STAGES]
    for (own, *means), site in product(zip(found, *outputs, strict=True), ENDS):
        correct = [own.outcomes[stage, site].correct for stage in STAGES]
        for scope in scopes_of(site, means[1]):
            sides = means if scope == TRAINING else correct
            pairs[scope].append(Pair(own.place(site=site, scope=scope), *sides, own.resamples, scope))
    by = ["dataset", "model", "site", "scope"]
    return pd.concat([compare(own, by, words=WORDS) for own in pairs.values() if own], ignore_index=True)


def steps(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Paired tests of RECIPE of accuracy at the end of each of STEPS minus that at its start: STATE, step, and the
    columns of `paired.compare`. The answer is that of the fine-tuning that the probes are of."""
    pairs = []
    for own, stage, (step, ends) in product(found, STAGES, STEPS.items()):
        before, after = (own.outcomes[stage, end].correct for end in ends)
        pairs.append(Pair(own.place(stage=stage, step=step), before, after, own.resamples, RECIPE))
    return compare(pairs, [*STATE, "step"], words=WORDS)


def beside_controls(found: Iterable[Evaluated], rows: pd.DataFrame) -> pd.DataFrame:
    """Paired tests of accuracy minus that of each of CONTROLS, of `outcomes_of` and the rows of all controls:
    dataset, model, control, site (of ENDS), and the columns of `paired.compare`; the answer is that of CONTROL_RUN.
    Random weights and control task are those of the same probe point, and text alone is compared with answers alone."""
    pairs, rows = [], rows[rows["control"].ne(names.MEMORISATION) & rows["stage"].ne("pretrained")]
    for own in found:
        ends = {site: own.outcomes["finetuned", ANSWER if site == OUTPUT else site] for site in ENDS}
        of_own = rows[rows["dataset"].eq(own.dataset) & rows["model"].fillna(own.model).eq(own.model)]
        points = of_own["point"].fillna("")
        kept, correct = points.isin(["", *(end.points[0] for end in ends.values())]), {}
        for place, group in of_own[kept].groupby(["control", points[kept]]):
            what, parsed = f"{own.model} on {own.dataset}, {place[0]}", place[0] == names.TEXT_ONLY
            correct[place] = single_outcomes(group, ends[OUTPUT].images, what, parsed)
        rules = [correct.pop((name, "")) for name in names.WITHOUT_MODEL if (name, "") in correct]
        correct[BLIND, ""] = max(rules, key=np.mean)
        for ((control, point), before), (site, end) in product(correct.items(), ends.items()):
            if end.points == [point] or (not point and (site == OUTPUT or control != names.TEXT_ONLY)):
                scope = WEIGHTS if site == OUTPUT else RECIPE
                place = own.place(control=control, site=site)
                pairs.append(Pair(place, before[None, None], end.correct, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "control", "site"], words=WORDS)


def prompt_changes(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Every other prompt against the card's own, of `results.prompt_rows`: dataset, model, prompt, accuracy, unparsed
    (percent), OWN_PROMPT (accuracy under it), own low, own high (its interval), change and further columns of
    `paired.compare`, with verdict of WORDS, and outside (whether accuracy is, of that interval)."""
    pairs, by = [], ["dataset", "model", "prompt", "accuracy", "unparsed", OWN_PROMPT, "own low", "own high"]
    for place, group, drawn, images in groups(rows, by[:2], image_sets, split_rule):
        parts = dict(iter(group.groupby("control", sort=False)))
        right = {name: single_outcomes(own, images, f"{place}, {name}", parsed=True) for name, own in parts.items()}
        own = right.pop(OWN_PROMPT)[None]
        interval = intervals(accuracy(own, drawn)).loc[0, ["low", "high"]]
        for name, correct in right.items():
            shares = correct.mean(), parts[name]["parsed"].isna().mean(), own.mean()
            values = [*place.values(), name, *(100 * share for share in shares), *interval]
            pairs.append(Pair(dict(zip(by, values, strict=True)), own, correct[None], drawn))
    return compare(pairs, by, words=WORDS).assign(outside=lambda t: ~t["accuracy"].between(t["own low"], t["own high"]))
