"""Bands of a run's curves, intervals at the ends of modules, and paired tests, of the probes of `results.seed_rows` on
the image tokens, and of the final outputs of all runs."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.metrics import ENDS, RESAMPLED
from mlprobe_utils.evaluation.names import CONTROL_RUN, OUTPUT
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, means_over_runs
from mlprobe_utils.stats.intervals import FIXED, PROBE, RECIPE, SCOPES, TRAINING, WEIGHTS, intervals
from mlprobe_utils.stats.paired import ALPHA, WORDS, Pair, compare

PROBES, ANSWER = "probes", "answer"  # all points; the answer of the run that is probed
STEPS = {  # on the way from image to answer: from a point, and to another one
    "along the vision tower": ("V start", "V end"),
    "to the connector's end": ("V end", "C end"),
    "into the LLM": ("C end", "L start"),
    "along the LLM": ("L start", "L end"),
    "to the answer": ("L end", ANSWER),
}


def outcomes_of(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, PROBES, ANSWER, a site of ENDS or of STEPS) -> outcomes on test images, of one model and data set."""
    seeds, answers = results.seed_rows(one), results.prediction_rows(one)
    seeds, answers = seeds[seeds["pooling"] == "image_mean"], answers[answers["split"] == "test"]
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


def scopes_of(site: str) -> tuple[str, str]:
    """Of nothing but new images; and of a probe, or a model, that is trained again."""
    return (WEIGHTS, TRAINING) if site == OUTPUT else (PROBE, RECIPE)


def end_intervals(found: Sequence[Evaluated], metric: str) -> pd.DataFrame:
    """At the end of each module and of the final output: dataset, model, stage, site (of ENDS), value, and low and high
    by scope (percent; nan for TRAINING of a single run); none for a metric not of RESAMPLED."""
    rows, stages = [], STAGES if metric in RESAMPLED else ()
    outputs = {stage: means_over_runs(found, (stage, OUTPUT), metric=metric) for stage in stages}
    for own, stage, site in product(found, stages, ENDS):
        mean = outputs[stage][own.dataset, own.model, stage, OUTPUT]
        score = mean if site == OUTPUT else own.outcomes[stage, site].score(metric, own.positive, own.resamples)
        row = own.place(stage=stage, site=site)
        for scope in (scope for scope in scopes_of(site) if scope != TRAINING or score.runs):
            value, low, high = intervals(score, scope).iloc[0][["value", "low", "high"]]
            row |= {"value": value, f"{scope}, low": low, f"{scope}, high": high}
        rows.append(row)
    sides = [f"{scope}, {end}" for scope in SCOPES for end in ("low", "high")]
    return pd.DataFrame(rows, columns=["dataset", "model", "stage", "site", "value", *sides])


def side_by_side(ends: pd.DataFrame) -> pd.DataFrame:
    """`end_intervals` in a row a model, data set and stage; each interval a text."""
    keys, texts = ["dataset", "model", "stage"], {}
    for site in ENDS:
        own = ends[ends["site"] == site].set_index(keys)
        for scope in scopes_of(site):
            low, high = (own[f"{scope}, {end}"] for end in ("low", "high"))
            text = low.map("{:.1f}–".format) + high.map("{:.1f}".format)
            texts[f"{site}: {scope}"] = text.where(low.notna(), "")
    return pd.DataFrame(texts).rename_axis(keys).reset_index()


def before_and_after(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Paired tests of accuracy after less before fine-tuning: dataset, model, site (of ENDS), change (pp), and by scope
    low, high, p and p (Holm), over all rows that the scope is known of."""
    by, pairs = ["dataset", "model", "site"], {scope: [] for scope in SCOPES}
    outputs = [[*means_over_runs(found, (stage, OUTPUT)).values()] for stage in STAGES]
    for (own, *means), site in product(zip(found, *outputs, strict=True), ENDS):
        correct = [own.outcomes[stage, site].correct for stage in STAGES]
        for scope in (scope for scope in scopes_of(site) if scope != TRAINING or means[1].runs):
            sides = means if scope == TRAINING else correct
            pairs[scope].append(Pair(own.place(site=site), *sides, own.resamples, scope))
    tables = {scope: compare(own, by).set_index(by) for scope, own in pairs.items()}
    table = pd.concat([tables[scope][["change"]] for scope in FIXED])
    table = table.loc[[(own.dataset, own.model, site) for own, site in product(found, ENDS)]]
    for scope, own in tables.items():
        columns = [f"low ({scope})", f"high ({scope})", f"p ({scope})", f"p (Holm, {scope})"]
        table = table.join(own.drop(columns="change").set_axis(columns, axis=1))
    return table.reset_index()


def counted(tests: pd.DataFrame) -> pd.DataFrame:
    """`before_and_after`: dataset, site, models, higher, lower, and those significant after Holm, by scope."""
    signs = tests.assign(higher=tests["change"] > 0, lower=tests["change"] < 0)
    groups = signs.groupby(["dataset", "site"], sort=False)
    table = groups.agg(models=("model", "size"), higher=("higher", "sum"), lower=("lower", "sum"))
    for scope in SCOPES:
        adjusted = [own.dropna() for _, own in groups[f"p (Holm, {scope})"]]
        significant = [int((own < ALPHA).sum()) if len(own) else np.nan for own in adjusted]
        table[f"significant: {scope}"] = pd.Series(significant, table.index, dtype=object)  # whole beside nan
    return table.reset_index()


def steps(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Paired tests of RECIPE of accuracy at the end of each of STEPS less that at its start: STATE, step, and the
    columns of `paired.compare`. The answer is that of the fine-tuning that the probes are of."""
    pairs = []
    for own, stage, (step, ends) in product(found, STAGES, STEPS.items()):
        before, after = (own.outcomes[stage, end].correct for end in ends)
        pairs.append(Pair(own.place(stage=stage, step=step), before, after, own.resamples, RECIPE))
    return compare(pairs, [*STATE, "step"], words=WORDS)
