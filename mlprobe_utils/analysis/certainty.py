"""Bands of a run's curves, intervals at the ends of modules, and paired tests, of the probes of `results.seed_rows` on
the image tokens, and of the final outputs of all runs, which are too few for RECIPE."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.metrics import ENDS, RESAMPLED
from mlprobe_utils.evaluation.names import CONTROL_RUN
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import LEVEL, PROBE, RECIPE, SCOPES, intervals
from mlprobe_utils.stats.paired import Pair, compare

ALPHA = 1 - LEVEL  # of significance, after Holm
PROBES, ANSWERS = "probes", "answers"
BETWEEN_POINTS = {  # of patterns.CHANGES those of two fixed points: module and place of the second, and of the first
    "projection": (("C", -1), ("V", -1)),
    "entry drop": (("C", -1), ("L", 0)),
    "course": (("L", -1), ("L", 0)),
    "answer": (None, ("L", -1)),  # None: the final output
}


def outcomes_of(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, PROBES or ANSWERS) -> outcomes on test images, of one model and data set."""
    seeds, answers = results.seed_rows(one), results.prediction_rows(one)
    seeds, answers = seeds[seeds["pooling"] == "image_mean"], answers[answers["split"] == "test"]
    found = {(stage, PROBES): outcomes(seeds[seeds["stage"] == stage]) for stage in STAGES}
    return found | {(stage, ANSWERS): output_outcomes(answers[answers["stage"] == stage]) for stage in STAGES}


def ends_of(probes: Outcomes) -> list[str]:
    return [probes.of_module(module)[-1] for module in MODULES]


def bands(found: Iterable[Evaluated], metric: str) -> pd.DataFrame:
    """Simultaneous bands for RECIPE: STATE, point, band_low, band_high (percent); none but of RESAMPLED."""
    frames = [pd.DataFrame(columns=[*STATE, "point", "band_low", "band_high"])]
    for own, stage in product(found, STAGES) if metric in RESAMPLED else ():
        probes = own.outcomes[stage, PROBES]
        band = intervals(probes.score(metric, own.positive, own.resamples), RECIPE)[["band_low", "band_high"]]
        frames.append(band.assign(**own.place(stage=stage, point=probes.points)))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def end_intervals(found: Iterable[Evaluated], metric: str) -> pd.DataFrame:
    """At the end of each module and of the final output: dataset, model, stage, site (of ENDS), value, and low and high
    by scope (percent); none for a metric not of RESAMPLED."""
    sides = [f"{scope}, {end}" for scope in SCOPES for end in ("low", "high")]
    columns = ["dataset", "model", "stage", "site", "value", *sides]
    frames = [pd.DataFrame(columns=columns)]
    for own, stage in product(found, STAGES) if metric in RESAMPLED else ():
        probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
        ends = probes.at(*ends_of(probes)).score(metric, own.positive, own.resamples)
        output = answers.score(metric, own.positive, own.resamples)
        fixed = pd.concat([intervals(ends), intervals(output)], ignore_index=True)
        both = [fixed[["low", "high"]], intervals(ends, RECIPE)[["low", "high"]]]
        table = pd.concat(both, axis=1).set_axis(sides, axis=1)
        frames.append(table.assign(**own.place(stage=stage, site=ENDS, value=fixed["value"])))
    return pd.concat(frames[1:] or frames, ignore_index=True)[columns]


def side_by_side(ends: pd.DataFrame) -> pd.DataFrame:
    """`end_intervals` in a row a model, data set and stage; each interval a text."""
    keys, texts = ["dataset", "model", "stage"], {}
    for site in ENDS:
        own = ends[ends["site"] == site].set_index(keys)
        for scope in SCOPES if site != ENDS[-1] else [PROBE]:
            low, high = (own[f"{scope}, {end}"].map("{:.1f}".format) for end in ("low", "high"))
            texts[f"{site}: {scope}"] = low + "–" + high
    return pd.DataFrame(texts).rename_axis(keys).reset_index()


def before_and_after(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Paired tests of accuracy after less before fine-tuning: dataset, model, site (of ENDS), change (pp), and by scope
    low, high, p and p (Holm), over all rows."""
    by, pairs = ["dataset", "model", "site"], {scope: [] for scope in SCOPES}
    for own in found:
        sides = []
        for stage in STAGES:
            probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
            sides.append([*(probes.at(end).correct for end in ends_of(probes)), answers.correct])
        for scope, (site, *both) in product(SCOPES, [*zip(ENDS, *sides, strict=True)]):
            if scope == PROBE or site != ENDS[-1]:
                pairs[scope].append(Pair(own.place(site=site), *both, own.resamples, scope))
    names = {scope: {name: f"{name} ({scope})" for name in ("low", "high", "p")} for scope in SCOPES}
    names = {scope: own | {"p (Holm)": f"p (Holm, {scope})"} for scope, own in names.items()}
    tables = [compare(own, by).set_index(by).rename(columns=names[scope]) for scope, own in pairs.items()]
    return tables[0].join(tables[1].drop(columns="change")).reset_index()


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


def tested_changes(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Paired tests of RECIPE of changes between two fixed points: STATE, name (of BETWEEN_POINTS), `paired.compare`.
    The answer is that of the fine-tuning that the probes are of."""
    pairs = []
    for own, stage in product(found, STAGES):
        probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
        run = answers.seeds.index(CONTROL_RUN) if CONTROL_RUN in answers.seeds else 0  # none before fine-tuning
        for name, ends in BETWEEN_POINTS.items():
            after, before = (
                probes.at(probes.of_module(end[0])[end[1]]).correct if end else answers.correct[[run]] for end in ends
            )
            pairs.append(Pair(own.place(stage=stage, name=name), before, after, own.resamples, RECIPE))
    return compare(pairs, [*STATE, "name"])


def survivors(tests: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """`tested_changes` of those of `patterns.changes` that exceed their curve's tolerance, and survives: the test is
    significant after Holm and has the sign of the change."""
    called = changes.melt([*STATE, "tolerance"], [*BETWEEN_POINTS], var_name="name", value_name="called")
    called = called[called["called"].abs() > called["tolerance"]].merge(tests, on=[*STATE, "name"])
    same_sign = np.sign(called["called"]) == np.sign(called["change"])
    return called.assign(survives=same_sign & (called["p (Holm)"] < ALPHA))
