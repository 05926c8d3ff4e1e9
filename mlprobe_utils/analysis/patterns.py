"""The recurring patterns of the probing curves (paper section 4.1), named by stated rules and counted.

A curve is one model, data set and stage: accuracy in percent at every probe point (`image_mean`, mean over runs) and of
the final output. A change counts only beyond the curve's tolerance t. The mean of the highest third of the points
decides, as the single highest of many noisy ones exceeds the first by itself; two vision towers are compared by their
difference, as a rise near the tolerance would count in one stage and not in the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

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


CHANGES: dict[str, tuple[str, Callable[[Curve], float]]] = {  # numbers of a curve (pp): in words, and computed
    "rise": ("mean of the highest third − first point", lambda c: max(_thirds(c["V"])) - c["V"][0]),
    "fall": ("mean of the highest third − last point", lambda c: max(_thirds(c["V"])) - c["V"][-1]),
    "projection": ("connector's last point − vision tower's last point", lambda c: c["C"][-1] - c["V"][-1]),
    "entry drop": ("connector's last point − LLM's first point", lambda c: c["C"][-1] - c["L"][0]),
    "course": ("LLM's last point − LLM's first point", lambda c: c["L"][-1] - c["L"][0]),
    "answer": ("final output − LLM's last point", lambda c: c["output"][0] - c["L"][-1]),
    "bend": (
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

    def holds(self, changes: Mapping[str, float], tolerance: float) -> bool:
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


def tolerance(accuracy: float, images: int) -> float:
    """How many pp a change must exceed: two standard errors of the difference of two independent proportions about
    `accuracy` (percent). Outcomes on the same `images` are correlated, so that the rule is cautious."""
    share = accuracy / 100
    return float(200 * np.sqrt(2 * share * (1 - share) / images))


def changes(scores: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """The numbers that the rules decide by: STATE, CHANGES and tolerance (pp); the stage BOTH has "bend", and only it.
    Of `metrics.probe_scores` and `metrics.output_scores`; InputError for a module or a final output that is missing."""
    scores = scores[(scores["pooling"] == "image_mean") & scores["point"].str[0].isin(MODULES)]
    if scores.empty:
        raise InputError("patterns need probe scores of the pooling image_mean: there are none")
    finals = outputs.groupby(STATE)["accuracy"].mean()
    records = []
    for (model, dataset), of_pair in scores.groupby(["model", "dataset"], sort=False):
        curves, tolerances = {}, {}
        for stage, rows in of_pair.groupby("stage", sort=False):
            means = rows.groupby("point")["accuracy"].mean().sort_index()
            curves[stage] = {module: means[means.index.str[0] == module].to_numpy() for module in MODULES}
            if empty := [f"{MODULES[module]} ({module})" for module, own in curves[stage].items() if not len(own)]:
                raise InputError(f"{model} on {dataset}, {stage}: no probe point of the {empty[0]}")
            if (model, dataset, stage) not in finals:
                raise InputError(f"{model} on {dataset}, {stage}: no accuracy of the final output")
            curves[stage]["output"] = np.array([finals[model, dataset, stage]])
            tolerances[stage] = tolerance(means.mean(), rows["images"].iloc[0])
        if set(STAGES) <= set(curves):
            before, after = (curves[stage]["V"] for stage in STAGES)
            curves[BOTH], tolerances[BOTH] = {"shape": after - before}, max(tolerances.values())
        for stage, curve in curves.items():
            state = dict(zip(STATE, (model, dataset, stage), strict=True))
            records.append(state | numbers(curve) | {"tolerance": tolerances[stage]})
    return pd.DataFrame(records, columns=[*STATE, *CHANGES, "tolerance"])


def numbers(curve: Curve) -> dict[str, float]:
    """The CHANGES that the parts of a curve have."""
    names = dict.fromkeys(name for pattern in PATTERNS if pattern.part in curve for name in pattern.conditions)
    return {name: float(CHANGES[name][1](curve)) for name in names}


def patterns(scores: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """The pattern of every curve in every part, from `changes`: STATE, module (a key of PARTS), pattern, change (the
    numbers that decided, as text), tolerance."""
    records = []
    for row, pattern in product(changes(scores, outputs).to_dict("records"), PATTERNS):
        if pattern.holds(row, row["tolerance"]):  # nan stands in no relation: what does not apply has no pattern
            decided = ", ".join(f"{change} {row[change]:+.1f}" for change in pattern.conditions)
            records.append((*(row[key] for key in STATE), pattern.part, pattern.name, decided, row["tolerance"]))
    return pd.DataFrame(records, columns=[*STATE, "module", "pattern", "change", "tolerance"])


def counts(found: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """How many curves have each of PATTERNS: module, pattern, before (nan of a comparison of the stages), after, on
    (data sets by `names`, with their curves)."""
    records = []
    for pattern in PATTERNS:
        curves = found[(found["module"] == pattern.part) & (found["pattern"] == pattern.name)]
        before, after = ((curves["stage"] == stage).sum() for stage in STAGES)
        if pattern.part == "shape":
            before, after = np.nan, len(curves)
        sizes = curves.groupby("dataset", sort=False).size()
        on = ", ".join(f"{names.get(dataset, dataset)} {number}" for dataset, number in sizes.items())
        records.append((PARTS[pattern.part], pattern.name, before, after, on))
    columns = ["module", "pattern", "before", "after", "on"]
    return pd.DataFrame(records, columns=columns, dtype=object)  # whole numbers stay whole beside nan


def rules() -> pd.DataFrame:
    """The rules in words: module, pattern, rule, section 4.1 (what it says of the pattern; empty: nothing)."""
    records = []
    for pattern in PATTERNS:
        rule = " and ".join(f"{CHANGES[change][0]} {relation}" for change, relation in pattern.conditions.items())
        records.append((PARTS[pattern.part], pattern.name, rule, pattern.paper))
    return pd.DataFrame(records, columns=["module", "pattern", "rule", "section 4.1"])
