"""How sure the results of a run are: bands of its curves, intervals at the ends of modules, paired tests.

Probes are those of `results.seed_rows`, on the image tokens: several seeds, before fine-tuning and after its first run.
Final outputs are those of all runs, which are too few to ask RECIPE of: a comparison with one has nothing there. All
that is compared is compared on the same resamples of whole patients and duplicate groups.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.claims import ENDS
from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, PROBE, QUESTIONS, RECIPE, intervals
from mlprobe_utils.stats.paired_tests import holm, paired_tests
from mlprobe_utils.stats.resampling import RESAMPLED, Resamples

ALPHA = 1 - LEVEL  # of significance, after Holm
BETWEEN_POINTS = {  # of patterns.CHANGES those of two fixed points: module and place of the second, and of the first
    "projection": (("C", -1), ("V", -1)),
    "entry drop": (("C", -1), ("L", 0)),
    "course": (("L", -1), ("L", 0)),
    "answer": (None, ("L", -1)),  # None: the final output
}


@dataclass(frozen=True)
class Reading:
    """What was answered to the test images of a data set by one model in one stage: by its probes, and by itself."""

    model: str
    dataset: str
    stage: str
    probes: Outcomes
    answers: Outcomes
    resamples: Resamples
    positive: str | None

    @property
    def place(self) -> dict[str, str]:
        return {"model": self.model, "dataset": self.dataset, "stage": self.stage}

    @property
    def ends(self) -> list[str]:
        """The last probe point of each module."""
        return [self.probes.of_module(module)[-1] for module in MODULES]


def read(selection: Selection, image_sets: Mapping[str, ImageSet]) -> list[Reading]:
    """The readings of a selection, in the order data set, model, stage.

    Raises:
        InputError: what `results.seed_rows`, `outcomes` and `resamples_of_tested` raise; rows of other test images
            than the image set's.
    """
    drawn = {dataset: resamples_of_tested(image_sets[dataset], selection.split) for dataset in selection.datasets}
    found = []
    for model, dataset, _ in selection.folders():
        one = replace(selection, models=(model,), datasets=(dataset,))
        seeds, answers = results.seed_rows(one), results.prediction_rows(one)
        for stage in STAGES:
            own = seeds[(seeds["stage"] == stage) & (seeds["pooling"] == "image_mean")]
            told = answers[(answers["stage"] == stage) & (answers["part"] == "test")]
            both = outcomes(own), output_outcomes(told)
            resamples, images = drawn[dataset]
            if any(of.images != images for of in both):
                raise InputError(f"{model} on {dataset}, {stage}: its rows are not of the test images, make them anew")
            found.append(Reading(model, dataset, stage, *both, resamples, image_sets[dataset].card.positive))
    return found


def bands(readings: Iterable[Reading], metric: str) -> pd.DataFrame:
    """The simultaneous bands of curves for RECIPE: model, dataset, stage, point, band_low, band_high (percent).

    Empty for a metric that is none of RESAMPLED.
    """
    frames = [pd.DataFrame(columns=["model", "dataset", "stage", "point", "band_low", "band_high"])]
    for reading in readings if metric in RESAMPLED else ():
        found = intervals(reading.probes.score(metric, reading.positive, reading.resamples), RECIPE)
        place = reading.place | {"point": reading.probes.points}
        frames.append(found[["band_low", "band_high"]].assign(**place))
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


def mean_width(ends: pd.DataFrame, question: str) -> float:
    """The mean width of the intervals where modules end (points); the final output's are left out."""
    probed = ends[ends["station"] != ENDS[-1]]
    return float((probed[f"{question}, high"] - probed[f"{question}, low"]).mean())


def end_intervals(readings: Iterable[Reading], metric: str) -> pd.DataFrame:
    """The intervals at the end of each module and of the final output, for both questions.

    Returns:
        dataset, model, stage, station (of ENDS), value and, of each question, its interval's low and high; percent.
        Empty for a metric that is none of RESAMPLED.
    """
    columns = ["dataset", "model", "stage", "station", "value"]
    columns += [f"{question}, {end}" for question in QUESTIONS for end in ("low", "high")]
    frames = [pd.DataFrame(columns=columns)]
    for reading in readings if metric in RESAMPLED else ():
        both = {}
        for question in QUESTIONS:
            parts = [reading.probes.at(*reading.ends), *([reading.answers] if question == PROBE else [])]
            scored = [part.score(metric, reading.positive, reading.resamples) for part in parts]
            both[question] = pd.concat([intervals(of, question) for of in scored], ignore_index=True)
        table = pd.DataFrame(reading.place | {"station": ENDS, "value": both[PROBE]["value"]})
        for question, found in both.items():
            table[[f"{question}, {end}" for end in ("low", "high")]] = found[["low", "high"]].reindex(table.index)
        frames.append(table)
    return pd.concat(frames[1:] or frames, ignore_index=True)[columns]


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
    texts = {}
    for station in ENDS:
        own = ends[ends["station"] == station].set_index(["dataset", "model", "stage"])
        for question in QUESTIONS if station != ENDS[-1] else [PROBE]:
            low, high = (own[f"{question}, {end}"].map("{:.1f}".format) for end in ("low", "high"))
            texts[f"{station}: {question}"] = low + "–" + high
    return pd.DataFrame(texts).rename_axis(["dataset", "model", "stage"]).reset_index()


def before_and_after(readings: Iterable[Reading]) -> pd.DataFrame:
    """Accuracy after fine-tuning less before it, at the end of each module and of the final output, with paired tests.

    Returns:
        dataset, model, station, change (points), and of each question low, high, p and p (Holm), which allows for the
        number of all rows.
    """
    by_stage = {stage: {(r.model, r.dataset): r for r in readings if r.stage == stage} for stage in STAGES}
    frames = []
    for pair, after in by_stage["finetuned"].items():
        before = by_stage["pretrained"][pair]
        probed = [reading.probes.at(*reading.ends).right for reading in (before, after)]
        answered = _paired(before.answers.right, after.answers.right)
        found = [_tests(*probed, after.resamples), _tests(*answered, after.resamples, [PROBE])]
        frames.append(pd.concat(found, ignore_index=True).assign(model=after.model, dataset=after.dataset))
    table = pd.concat(frames, ignore_index=True).assign(station=[*ENDS] * len(frames))
    return _corrected(table, ["dataset", "model", "station"])


def counted(tests: pd.DataFrame) -> pd.DataFrame:
    """`before_and_after`, counted: dataset, station, models, higher, lower, and those significant after Holm.

    The last columns, `told apart: …`, count tests of a question with p (Holm) below ALPHA; null where it is not asked.
    """
    ways = tests.assign(higher=tests["change"] > 0, lower=tests["change"] < 0)
    groups = ways.groupby(["dataset", "station"], sort=False)
    table = groups.agg(models=("model", "size"), higher=("higher", "sum"), lower=("lower", "sum"))
    for question in QUESTIONS:
        adjusted = ways[_holm(question)]
        told = (adjusted < ALPHA).astype("Int64").mask(adjusted.isna())
        told = told.groupby([ways["dataset"], ways["station"]]).sum(min_count=1)
        table[f"told apart: {question}"] = told.astype(object).where(told.notna(), np.nan)  # whole numbers stay whole
    return table.reset_index()


def tested_changes(readings: Iterable[Reading]) -> pd.DataFrame:
    """The changes between two fixed points that patterns are read off, with paired tests of RECIPE.

    The answer is that of the fine-tuning that the probes are of; it varies with no seed.

    Returns:
        model, dataset, stage, name (of BETWEEN_POINTS), change (points), low, high, p and p (Holm), which allows for
        the number of all rows.
    """
    frames = []
    for reading in readings:
        runs = reading.answers.seeds
        run = runs.index(CONTROL_RUN) if CONTROL_RUN in runs else 0  # the pretrained model has no run
        answer = np.broadcast_to(reading.answers.right[run], reading.probes.right[:, :1].shape)
        sides = {end: [] for end in ("after", "before")}
        for name in BETWEEN_POINTS:
            for place, own in zip(BETWEEN_POINTS[name], sides.values(), strict=True):
                point = place and reading.probes.of_module(place[0])[place[1]]
                own.append(reading.probes.at(point).right if point else answer)
        after, before = (np.concatenate(own, axis=1) for own in sides.values())
        found = _tests(before, after, reading.resamples, [RECIPE])
        frames.append(found.assign(**reading.place, name=[*BETWEEN_POINTS]))
    return _corrected(pd.concat(frames, ignore_index=True), ["model", "dataset", "stage", "name"], [RECIPE])


def survivors(tests: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """The tests of those changes that exceed their curve's tolerance: `tested_changes` and survives, bool.

    A change survives if its test is significant after Holm and has its sign.

    Args:
        tests: from `tested_changes`.
        changes: from `patterns.changes`.
    """
    keys = ["model", "dataset", "stage"]
    called = changes.melt([*keys, "tolerance"], [*BETWEEN_POINTS], var_name="name", value_name="called")
    called = called[called["called"].abs() > called["tolerance"]].merge(tests, on=[*keys, "name"])
    same_way = np.sign(called["called"]) == np.sign(called["change"])
    return called.assign(survives=same_way & (called[_holm(RECIPE)] < ALPHA))


def _paired(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as many runs: what has one (the pretrained model) is compared with each of the other's."""
    runs = max(len(before), len(after))
    return tuple(np.broadcast_to(side, (runs, *side.shape[1:])) for side in (before, after))


def _tests(
    before: np.ndarray, after: np.ndarray, resamples: Resamples, questions: Iterable[str] = tuple(QUESTIONS)
) -> pd.DataFrame:
    columns = {}
    for question in questions:
        found = paired_tests(before, after, resamples, question)
        columns["change"] = found["value"]
        columns |= {f"{name} ({question})": found[name] for name in ("low", "high", "p")}
    return pd.DataFrame(columns)


def _corrected(table: pd.DataFrame, keys: list[str], questions: Iterable[str] = tuple(QUESTIONS)) -> pd.DataFrame:
    """The columns in order, with Holm's p values of each question over all rows."""
    own = []
    for question in questions:
        p = f"p ({question})"
        table = table.assign(**{_holm(question): holm(table[p])})
        own += [f"low ({question})", f"high ({question})", p, _holm(question)]
    return table[[*keys, "change", *own]].reset_index(drop=True)


def _holm(question: str) -> str:
    return f"p (Holm, {question})"
