"""How certain the results of a run are: bands of its curves, intervals at the ends of modules, paired tests.

Probes are those of `results.seed_rows`, on the image tokens: several seeds, before fine-tuning and after its first run.
Final outputs are those of all runs, which are too few for RECIPE: a comparison with one has nothing there.
"""

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.claims import ENDS
from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import LEVEL, PROBE, QUESTIONS, RECIPE, intervals
from mlprobe_utils.stats.paired import Pair, compare
from mlprobe_utils.stats.resampling import RESAMPLED

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
    """The last probe point of each module."""
    return [probes.of_module(module)[-1] for module in MODULES]


def bands(found: Iterable[Evaluated], metric: str) -> pd.DataFrame:
    """The simultaneous bands of curves for RECIPE: model, dataset, stage, point, band_low, band_high (percent).

    Empty for a metric that is none of RESAMPLED.
    """
    frames = [pd.DataFrame(columns=[*STATE, "point", "band_low", "band_high"])]
    for own, stage in product(found, STAGES) if metric in RESAMPLED else ():
        probes = own.outcomes[stage, PROBES]
        band = intervals(probes.score(metric, own.positive, own.resamples), RECIPE)[["band_low", "band_high"]]
        frames.append(band.assign(**own.place(stage=stage, point=probes.points)))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def band_words(metric: str) -> str:
    """What the page says of the areas in its chart."""
    if metric not in RESAMPLED:
        return f"Of '{metric}' no areas are drawn: bands are computed of {', '.join(RESAMPLED)} alone."
    return f"The areas are simultaneous {100 * LEVEL:.0f} % bands of {RECIPE}."


def outside(bands: pd.DataFrame, means: pd.Series) -> pd.Series:
    """Whether a curve's value lies outside of its band, bool, at every point that has one.

    Args:
        bands: from `bands`.
        means: of the same metric, by model, dataset, stage and point.
    """
    ends = bands.set_index(list(means.index.names))
    values = means.reindex(ends.index)
    return (values < ends["band_low"]) | (values > ends["band_high"])


def end_intervals(found: Iterable[Evaluated], metric: str) -> pd.DataFrame:
    """The intervals at the end of each module and of the final output, for both questions.

    Returns:
        dataset, model, stage, site (of ENDS), value and, of each question, its interval's low and high; percent.
        Empty for a metric that is none of RESAMPLED.
    """
    columns = ["dataset", "model", "stage", "site", "value"]
    columns += [f"{question}, {end}" for question in QUESTIONS for end in ("low", "high")]
    frames = [pd.DataFrame(columns=columns)]
    for own, stage in product(found, STAGES) if metric in RESAMPLED else ():
        probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
        ends = probes.at(*ends_of(probes)).score(metric, own.positive, own.resamples)
        output = answers.score(metric, own.positive, own.resamples)
        both = {PROBE: pd.concat([intervals(ends), intervals(output)], ignore_index=True)}
        both[RECIPE] = intervals(ends, RECIPE).reindex(both[PROBE].index)
        table = pd.DataFrame(own.place(stage=stage, site=ENDS, value=both[PROBE]["value"]))
        for question, interval in both.items():
            table[[f"{question}, {end}" for end in ("low", "high")]] = interval[["low", "high"]]
        frames.append(table)
    return pd.concat(frames[1:] or frames, ignore_index=True)[columns]


def mean_width(ends: pd.DataFrame, question: str) -> float:
    """The mean width of the intervals where modules end (percentage points), without the final output's."""
    probed = ends[ends["site"] != ENDS[-1]]
    return float((probed[f"{question}, high"] - probed[f"{question}, low"]).mean())


def width_words(ends: pd.DataFrame) -> str:
    """What the page says of the intervals where modules end, from `end_intervals`."""
    if ends.empty:
        return "Of this metric no intervals are computed."
    widths = ", ".join(f"{mean_width(ends, question):.1f} for {question}" for question in QUESTIONS)
    return f"Over both stages, the mean width of an interval where a module ends is, in points: {widths}."


def questions() -> pd.DataFrame:
    """QUESTIONS for the page."""
    return pd.DataFrame(QUESTIONS.items(), columns=["question", "of what it is asked"])


def side_by_side(ends: pd.DataFrame) -> pd.DataFrame:
    """`end_intervals` for the page: a row a model, data set and stage; each interval a text."""
    keys, texts = ["dataset", "model", "stage"], {}
    for site in ENDS:
        own = ends[ends["site"] == site].set_index(keys)
        for question in QUESTIONS if site != ENDS[-1] else [PROBE]:
            low, high = (own[f"{question}, {end}"].map("{:.1f}".format) for end in ("low", "high"))
            texts[f"{site}: {question}"] = low + "–" + high
    return pd.DataFrame(texts).rename_axis(keys).reset_index()


def before_and_after(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy after fine-tuning less before it, at the end of each module and of the final output, with paired tests.

    Returns:
        dataset, model, site, change (percentage points), and of each question low, high, p and p (Holm), which
        allows for the number of all rows.
    """
    by, tables = ["dataset", "model", "site"], []
    for question in QUESTIONS:
        table = compare(_stages(found, question), by).set_index([*by, "change"] if tables else by)
        names = {name: f"{name} ({question})" for name in ("low", "high", "p")}
        tables.append(table.rename(columns=names | {"p (Holm)": _holm(question)}))
    return tables[0].join(tables[1].reset_index("change", drop=True)).reset_index()


def _stages(found: Iterable[Evaluated], question: str) -> Iterator[Pair]:
    for own in found:
        sides = []
        for stage in STAGES:
            probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
            sides.append([*(probes.at(end).correct for end in ends_of(probes)), answers.correct])
        for site, before, after in zip(ENDS, *sides, strict=True):
            if question == PROBE or site != ENDS[-1]:
                yield Pair(own.place(site=site), before, after, own.resamples, question)


def counted(tests: pd.DataFrame) -> pd.DataFrame:
    """`before_and_after`, counted: dataset, site, models, higher, lower, and those significant after Holm.

    The last columns, `significant: …`, count tests of a question with p (Holm) below ALPHA; null where there is none.
    """
    ways = tests.assign(higher=tests["change"] > 0, lower=tests["change"] < 0)
    groups = ways.groupby(["dataset", "site"], sort=False)
    table = groups.agg(models=("model", "size"), higher=("higher", "sum"), lower=("lower", "sum"))
    for question in QUESTIONS:
        adjusted = ways[_holm(question)]
        significant = (adjusted < ALPHA).astype("Int64").mask(adjusted.isna())
        significant = significant.groupby([ways["dataset"], ways["site"]]).sum(min_count=1)
        table[f"significant: {question}"] = significant.astype(object).where(
            significant.notna(), np.nan
        )  # whole numbers stay whole
    return table.reset_index()


def tested_changes(found: Iterable[Evaluated]) -> pd.DataFrame:
    """The changes between two fixed points that patterns are read off, with paired tests of RECIPE.

    The answer is that of the fine-tuning that the probes are of; it varies with no seed.

    Returns:
        model, dataset, stage, name (of BETWEEN_POINTS), change and further columns of `paired.compare`.
    """
    return compare(_between_points(found), [*STATE, "name"])


def _between_points(found: Iterable[Evaluated]) -> Iterator[Pair]:
    for own, stage in product(found, STAGES):
        probes, answers = own.outcomes[stage, PROBES], own.outcomes[stage, ANSWERS]
        run = answers.seeds.index(CONTROL_RUN) if CONTROL_RUN in answers.seeds else 0  # none before fine-tuning
        for name, ends in BETWEEN_POINTS.items():
            after, before = (
                probes.at(probes.of_module(end[0])[end[1]]).correct if end else answers.correct[[run]] for end in ends
            )
            yield Pair(own.place(stage=stage, name=name), before, after, own.resamples, RECIPE)


def survivors(tests: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """The tests of those changes that exceed their curve's tolerance: `tested_changes` and survives, bool.

    A change survives if its test is significant after Holm and has its sign.

    Args:
        tests: from `tested_changes`.
        changes: from `patterns.changes`.
    """
    called = changes.melt([*STATE, "tolerance"], [*BETWEEN_POINTS], var_name="name", value_name="called")
    called = called[called["called"].abs() > called["tolerance"]].merge(tests, on=[*STATE, "name"])
    same_way = np.sign(called["called"]) == np.sign(called["change"])
    return called.assign(survives=same_way & (called["p (Holm)"] < ALPHA))


def _holm(question: str) -> str:
    return f"p (Holm, {question})"
