"""The recurring patterns of the probing curves (paper section 4.1), named by stated rules and counted.

A curve is one model, data set and stage: accuracy in percent at every probe point (`image_mean`, mean over runs) and of
the final output. A change counts only beyond the curve's tolerance t. The rules are data: `CHANGES` are the numbers
that are read off a curve, `PATTERNS` say which of them must lie where. The page's table of rules is made from both.

How often noise alone makes a pattern is measured in tests/analysis/test_patterns.py. The highest third decides, as the
single highest of many noisy points exceeds the first by itself; the price is that a rise that goes on evenly up to the
last point counts with five sixths of its size. Two vision towers are compared by their difference, as a rise near the
tolerance would count in one stage and not in the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import STAGES

Curve = Mapping[str, np.ndarray]  # part -> accuracies at its points in order, percent
PARTS = MODULES | {"output": "final output", "shape": "vision tower, before and after"}
BOTH = "both"  # the stage of what compares the two: under "shape" lie the accuracies after less those before


def _thirds(values: np.ndarray) -> list[float]:
    return [third.mean() for third in np.array_split(values, 3) if len(third)]


@dataclass(frozen=True)
class Change:
    """A number read off a curve, in percentage points: what it is in words, and how it is computed."""

    words: str
    of: Callable[[Curve], float]


CHANGES = {
    "rise": Change("mean of the highest third − first point", lambda c: max(_thirds(c["V"])) - c["V"][0]),
    "fall": Change("mean of the highest third − last point", lambda c: max(_thirds(c["V"])) - c["V"][-1]),
    "projection": Change("connector's last point − vision tower's last point", lambda c: c["C"][-1] - c["V"][-1]),
    "entry drop": Change("connector's last point − LLM's first point", lambda c: c["C"][-1] - c["L"][0]),
    "course": Change("LLM's last point − LLM's first point", lambda c: c["L"][-1] - c["L"][0]),
    "answer": Change("final output − LLM's last point", lambda c: c["output"][0] - c["L"][-1]),
    "bend": Change(
        "after less before: mean of the highest third − mean of the lowest third",
        lambda c: max(_thirds(c["shape"])) - min(_thirds(c["shape"])),
    ),
}

ABOVE, NOT_ABOVE, WITHIN, BELOW = "> t", "≤ t", "within ±t", "< −t"
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ABOVE: lambda change, t: change > t,
    NOT_ABOVE: lambda change, t: change <= t,
    WITHIN: lambda change, t: abs(change) <= t,
    BELOW: lambda change, t: change < -t,
}


@dataclass(frozen=True)
class Pattern:
    """A named behaviour of one part: it holds if every change stands in its relation to the tolerance."""

    part: str  # of PARTS
    name: str
    conditions: Mapping[str, str]  # of CHANGES -> of RELATIONS
    paper: str = ""  # what section 4.1 says of it, in our words; empty: it does not name it

    @property
    def rule(self) -> str:
        return " and ".join(f"{CHANGES[change].words} {relation}" for change, relation in self.conditions.items())

    def holds(self, changes: Mapping[str, float], tolerance: float) -> bool:
        """Whether a curve with these changes has the pattern."""
        return all(RELATIONS[relation](changes[change], tolerance) for change, relation in self.conditions.items())


PATTERNS = (
    Pattern("V", "rise and fluctuate", {"rise": ABOVE, "fall": NOT_ABOVE}, "the commonest on BUSI and COVID19-CT"),
    Pattern("V", "rise and fall", {"rise": ABOVE, "fall": ABOVE}),
    Pattern("V", "sustained decline", {"rise": NOT_ABOVE, "fall": ABOVE}, "seen on Chest-Xray"),
    Pattern("V", "unchanged", {"rise": NOT_ABOVE, "fall": NOT_ABOVE}),
    Pattern("C", "gain", {"projection": ABOVE}),
    Pattern("C", "preserved", {"projection": WITHIN}, "what connectors mostly do"),
    Pattern("C", "loss", {"projection": BELOW}),
    Pattern("L", "drop and recover", {"entry drop": ABOVE, "course": ABOVE}, "the first of three behaviours"),
    Pattern("L", "drop without recovery", {"entry drop": ABOVE, "course": NOT_ABOVE}),
    Pattern("L", "rise", {"entry drop": NOT_ABOVE, "course": ABOVE}),
    Pattern("L", "unchanged", {"entry drop": NOT_ABOVE, "course": WITHIN}, "the second of three behaviours"),
    Pattern("L", "gradual decline", {"entry drop": NOT_ABOVE, "course": BELOW}, "the third of three behaviours"),
    Pattern("output", "lower", {"answer": BELOW}, "sometimes"),
    Pattern("output", "equal within noise", {"answer": WITHIN}, "rarely"),
    Pattern("output", "higher", {"answer": ABOVE}, "occasionally"),
    Pattern("shape", "same shape", {"bend": NOT_ABOVE}, "on BUSI and COVID19-CT"),
    Pattern("shape", "different shape", {"bend": ABOVE}, "on Chest-Xray"),
)


def tolerance(accuracy: float, images: int, errors: float = 2.0) -> float:
    """Standard errors of the difference of two independent proportions, times `errors`; percentage points.

    Args:
        accuracy: about which both proportions lie, percent.
        images: test images that each proportion is taken over.
        errors: how many standard errors a change must exceed to count.

    Outcomes on the same images are correlated, so that differences vary less than this: the rule is cautious.
    """
    share = accuracy / 100
    return float(errors * 100 * np.sqrt(2 * share * (1 - share) / images))


def changes(scores: pd.DataFrame, outputs: pd.DataFrame, errors: float = 2.0) -> pd.DataFrame:
    """The numbers that the rules decide by: a row a model, data set and stage, a column each of CHANGES and tolerance.

    Args:
        scores: from `metrics.probe_scores`; side paths and other poolings than `image_mean` are left out.
        outputs: from `metrics.output_scores`.
        errors: see `tolerance`, which is taken at the mean accuracy of all points of the curve.

    Where both stages are there, a row of the stage BOTH compares them, with the larger of their tolerances. What does
    not apply is nan. Only accuracy has that tolerance: patterns are read off accuracy whatever metric a page shows.

    Raises:
        InputError: a module, a point or a final output that is missing, named with its model, data set and stage;
            curves whose points were scored on different numbers of images.
    """
    scores = scores[(scores["pooling"] == "image_mean") & scores["point"].str[0].isin(MODULES)]
    _check(scores, outputs)
    finals = outputs.groupby(STATE)["accuracy"].mean()
    records = []
    for (model, dataset), of_pair in scores.groupby(["model", "dataset"], sort=False):
        curves, tolerances = {}, {}
        for stage, rows in of_pair.groupby("stage", sort=False):
            means = rows.groupby("point")["accuracy"].mean().sort_index()
            curves[stage] = {module: means[means.index.str[0] == module].to_numpy() for module in MODULES}
            curves[stage]["output"] = np.array([finals[model, dataset, stage]])
            tolerances[stage] = tolerance(means.mean(), rows["images"].iloc[0], errors)
        if set(STAGES) <= set(curves):
            before, after = (curves[stage]["V"] for stage in STAGES)
            curves[BOTH], tolerances[BOTH] = {"shape": after - before}, max(tolerances.values())
        for stage, curve in curves.items():
            state = dict(zip(STATE, (model, dataset, stage), strict=True))
            records.append(state | numbers(curve) | {"tolerance": tolerances[stage]})
    return pd.DataFrame(records, columns=[*STATE, *CHANGES, "tolerance"])


def numbers(curve: Curve) -> dict[str, float]:
    """The changes that the parts of a curve have, by name of CHANGES, percentage points."""
    names = dict.fromkeys(name for pattern in PATTERNS if pattern.part in curve for name in pattern.conditions)
    return {name: float(CHANGES[name].of(curve)) for name in names}


def patterns(scores: pd.DataFrame, outputs: pd.DataFrame, errors: float = 2.0) -> pd.DataFrame:
    """The pattern of every curve in every part: model, dataset, stage, module, pattern, change, tolerance.

    `module` is a key of PARTS. `change` holds the numbers that decided, by name of CHANGES, as text; `tolerance` is in
    percentage points. Arguments and errors as in `changes`.
    """
    records = []
    for row in changes(scores, outputs, errors).to_dict("records"):
        for pattern in PATTERNS:
            if pattern.holds(row, row["tolerance"]):  # nan stands in no relation: what does not apply has no pattern
                decided = ", ".join(f"{change} {row[change]:+.1f}" for change in pattern.conditions)
                found = {"module": pattern.part, "pattern": pattern.name, "change": decided}
                records.append({key: row[key] for key in STATE} | found | {"tolerance": row["tolerance"]})
    return pd.DataFrame(records)


def by_curve(found: pd.DataFrame) -> pd.DataFrame:
    """The patterns of a curve beside each other: model, dataset, stage, and a column a part of the model, by its name.

    Args:
        found: from `patterns`; what compares the stages is left out.
    """
    of_stages = found[found["stage"] != BOTH]
    wide = of_stages.pivot(index=STATE, columns="module", values="pattern")
    parts = {part: name for part, name in PARTS.items() if part in wide}
    return wide[[*parts]].rename(columns=parts).rename_axis(columns=None).reset_index()


def counts(found: pd.DataFrame, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """How many curves have each pattern: module, pattern, before, after (curves), on (data sets with their curves).

    Args:
        found: from `patterns`.
        names: slug -> name of data sets.

    Patterns that no curve has are listed with 0. A comparison of the stages counts under `after`; its `before` is nan.
    """
    records = []
    for pattern in PATTERNS:
        curves = found[(found["module"] == pattern.part) & (found["pattern"] == pattern.name)]
        before, after = ((curves["stage"] == stage).sum() for stage in STAGES)
        if pattern.part == "shape":
            before, after = np.nan, len(curves)
        records.append((PARTS[pattern.part], pattern.name, before, after, _where(curves, names or {})))
    columns = ["module", "pattern", "before", "after", "on"]
    return pd.DataFrame(records, columns=columns, dtype=object)  # whole numbers stay whole beside nan


def rules() -> pd.DataFrame:
    """The rules in words: module, pattern, rule, section 4.1 (what it says of the pattern; empty: nothing)."""
    records = [(PARTS[pattern.part], pattern.name, pattern.rule, pattern.paper) for pattern in PATTERNS]
    return pd.DataFrame(records, columns=["module", "pattern", "rule", "section 4.1"])


def _where(curves: pd.DataFrame, names: Mapping[str, str]) -> str:
    counted = curves.groupby("dataset", sort=False).size()
    return ", ".join(f"{names.get(dataset, dataset)} {number}" for dataset, number in counted.items())


def _check(scores: pd.DataFrame, outputs: pd.DataFrame) -> None:
    if scores.empty:
        raise InputError("patterns need probe scores of the pooling image_mean: there are none")
    scored = set(outputs.loc[outputs["accuracy"].notna(), STATE].itertuples(index=False, name=None))
    for (model, dataset), rows in scores.groupby(["model", "dataset"], sort=False):
        expected = [f"{m}.{i:02d}" for m in MODULES for i in range(_points(rows, m, f"{model} on {dataset}"))]
        for (stage, run), of_run in rows.groupby(["stage", "run"], dropna=False, sort=False):
            where = f"{model} on {dataset}, {stage}"
            there = set(of_run.loc[of_run["accuracy"].notna(), "point"])
            if missing := [point for point in expected if point not in there]:
                raise InputError(f"{where}, run {run}: no accuracy at probe points {', '.join(missing)}")
            if (model, dataset, stage) not in scored:
                raise InputError(f"{where}: no accuracy of the final output")
        if rows["images"].nunique() > 1:
            raise InputError(f"{model} on {dataset}: points scored on {sorted(rows['images'].unique())} images")


def _points(rows: pd.DataFrame, module: str, where: str) -> int:
    """Number of points that a module has if it is whole: up to the highest that any stage or run has."""
    points = rows.loc[rows["point"].str[0] == module, "point"]
    if points.empty:
        raise InputError(f"{where}: no probe point of the {MODULES[module]} ({module})")
    return int(points.str[2:].astype(int).max()) + 1
