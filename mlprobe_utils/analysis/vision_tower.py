"""The vision tower: frozen or adapted in an MLLM's fine-tuning (paper section 5, Table 2), and trained alone (Table 3),
all evaluated on the same test images: differences are paired."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.adaptation import half_width, means_over_runs
from mlprobe_utils.evaluation.names import FROZEN_TOWER
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.paired import NEITHER, WORDS, Pair, compare, of_independent
from mlprobe_utils.stats.resampling import MOST_MISSING, Statistic, accuracy

TOWERS = {"adapted": "lora", "frozen": "frozen"}
METRICS = ("accuracy", "f1")  # those of Table 2
ABSOLUTE, RELATIVE = "difference (pp)", "relative change (%)"  # two meanings of one average gap
RAISED, LOWERED = "frozen is better", "frozen is worse"
FINE_TUNED = "MLLM fine-tuned"
PROBES = {"pretrained": "probe before fine-tuning", "finetuned": "probe after fine-tuning"}  # at the tower's end
ALONE = {"all": "tower alone, all weights", "lora": "tower alone, LoRA"}
COMPARED = [  # paradigm, and what is subtracted from it
    *product(ALONE.values(), (FINE_TUNED, *PROBES.values())),
    *((FINE_TUNED, probe) for probe in PROBES.values()),
]


def outcomes_of_towers(one: Selection) -> dict[tuple[str], Outcomes]:
    """(tower of TOWERS,) -> outcomes of the final output after fine-tuning, of one model and data set."""
    rows = {tower: variants.tower_rows(one, setting) for tower, setting in TOWERS.items()}
    return {(tower,): output_outcomes(own[own["split"] == "test"]) for tower, own in rows.items()}


def changes(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Frozen less adapted, for new images, with these adapters: dataset, model, metric, adapted, frozen (percent, means
    over runs), change and further columns of `paired.compare`, with verdict LOWERED, RAISED or NEITHER; p is exact for
    accuracy only."""
    pairs = []
    for own, metric in product(found, METRICS):
        scores = _scores(own, metric)
        place = own.place(metric=metric, **{tower: one.values.mean() for tower, one in scores.items()})
        correct = {tower: own.outcomes[tower,].correct for tower in TOWERS}
        pairs.append(Pair(place, *(correct if metric == "accuracy" else scores).values(), own.resamples))
    return compare(pairs, ["dataset", "model", "metric", *TOWERS], words=(LOWERED, RAISED, NEITHER))


def gaps(found: Sequence[Evaluated]) -> pd.DataFrame:
    """The average gap of each model over METRICS and data sets, which are independent: model, gap (its meaning),
    numbers (how many it is the mean of), value, low, high. A relative change of nothing is nan."""
    rows = [(own.model, gap, len(METRICS), *_gap(own, gap)) for own, gap in product(found, (RELATIVE, ABSOLUTE))]
    table, by = pd.DataFrame(rows, columns=["model", "gap", "numbers", "value", "low", "high"]), ["model", "gap"]
    table["numbers"] = table.groupby(by)["numbers"].transform("sum")
    return of_independent(table, by, ("value", "low", "high")).astype({"numbers": int})


def _gap(own: Evaluated, gap: str) -> tuple[float, float, float]:
    """Mean over metrics on one data set, and the ends of its interval; the metrics are drawn together."""
    found, clusters = [], np.inf
    for metric in METRICS:
        scores = _scores(own, metric).values()
        before, after = map(means_over_runs, scores)
        clusters = min(clusters, *(one.clusters for one in scores))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(after - before if gap == ABSOLUTE else 100 * (after / before - 1))
    value, *resampled = np.mean(found, axis=0)
    finite = np.isfinite(resampled)
    if not np.isfinite(value) or 1 - finite.mean() > MOST_MISSING:
        return np.nan, np.nan, np.nan
    half = half_width(np.array(resampled)[finite], clusters, 100 / clusters)
    return value, value - half, value + half


def _scores(own: Evaluated, metric: str) -> dict[str, Statistic]:
    return {tower: own.outcomes[tower,].score(metric, own.positive, own.resamples) for tower in TOWERS}


def outcomes_of_paradigms(one: Selection) -> dict[tuple[str], Outcomes]:
    """(FROZEN_TOWER or a paradigm of COMPARED,) -> outcomes on test images, of one model and data set."""
    read = results.prediction_rows(one), results.end_rows(one), variants.classifier_rows(one)
    answers, probed, classified = (rows[rows["split"] == "test"] for rows in read)
    probed = probed[probed["point"].str.startswith("V")]
    found = {(FINE_TUNED,): output_outcomes(answers[answers["stage"] == "finetuned"])}
    found |= {(name,): outcomes(probed[probed["stage"] == stage]) for stage, name in PROBES.items()}
    if len(head := results.frozen_tower_rows(one)):
        found[FROZEN_TOWER,] = outcomes(head)
    return found | {(name,): outcomes(classified[classified["probe"] == weights]) for weights, name in ALONE.items()}


def levels(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of each paradigm for new images: dataset, model, paradigm, trained (times), accuracy, low, high."""
    rows = []
    for own in found:
        for (paradigm,), one in own.outcomes.items():
            interval = intervals(accuracy(one.correct, own.resamples)).iloc[0]
            rows.append((own.dataset, own.model, paradigm, len(one.correct), *interval[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "accuracy", "low", "high"])


def differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of a paradigm less that of another, of all COMPARED, for new images: dataset, model, paradigm, less,
    difference and further columns of `paired.compare`, with verdict of WORDS. Runs of a fine-tuning and seeds of a
    probe are independent: each is paired with each."""
    pairs = []
    for own, (paradigm, less) in product(found, COMPARED):
        before, after = (own.outcomes[name,].correct for name in (less, paradigm))
        crossed = np.repeat(before, len(after), axis=0), np.tile(after, (len(before), 1, 1))
        pairs.append(Pair(own.place(paradigm=paradigm, less=less), *crossed, own.resamples))
    return compare(pairs, ["dataset", "model", "paradigm", "less"], "difference", WORDS)
