"""The vision tower: frozen or adapted in an MLLM's fine-tuning (paper section 5, Table 2), and trained alone (Table 3),
all evaluated on the same test images: differences are paired."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from operator import itemgetter

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.adaptation import half_width
from mlprobe_utils.evaluation.names import FROZEN_TOWER
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import WEIGHTS, intervals, scope_of, spread_of
from mlprobe_utils.stats.paired import NEITHER, WORDS, Pair, compare, judged, of_independent
from mlprobe_utils.stats.resampling import Statistic, accuracy, retrained

TOWERS = {"adapted": "lora", "frozen": "frozen"}
METRICS = ("accuracy", "f1")  # those of Table 2
ABSOLUTE, RELATIVE = "difference (pp)", "relative change (%)"  # two meanings of one average gap
RAISED, LOWERED = "frozen is better", "frozen is worse"
FINE_TUNED = "MLLM fine-tuned"
PROBES = {"pretrained": "probe before fine-tuning", "finetuned": "probe after fine-tuning"}  # at the tower's end
ALONE = {"all": "tower alone, all weights", "lora": "tower alone, LoRA"}
TRAINED = (FINE_TUNED, *ALONE.values())  # in runs
COMPARED = [  # paradigm, and what is subtracted from it
    *product(ALONE.values(), (FINE_TUNED, *PROBES.values())),
    *((FINE_TUNED, probe) for probe in PROBES.values()),
]


def outcomes_of_towers(one: Selection) -> dict[tuple[str], Outcomes]:
    """(tower of TOWERS,) -> outcomes of the final output after fine-tuning, of one model and data set."""
    rows = {tower: variants.tower_rows(one, setting) for tower, setting in TOWERS.items()}
    return {(tower,): output_outcomes(own[own["split"] == "test"]) for tower, own in rows.items()}


def changes(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Frozen less adapted: dataset, model, metric, scope (TRAINING, or WEIGHTS of single runs), adapted, frozen
    (percent, means over runs), change and further columns of `paired.compare`, with verdict LOWERED, RAISED or NEITHER;
    p is exact for accuracy of WEIGHTS only."""
    every = product(found, METRICS, TOWERS)
    each = {(own.dataset, metric, own.model, tower): _score(own, tower, metric) for own, metric, tower in every}
    pairs, means = [], retrained(each, itemgetter(0, 1))
    for own, metric in product(found, METRICS):
        sides = {tower: means[own.dataset, metric, own.model, tower] for tower in TOWERS}
        scope = scope_of(sides.values())
        place = own.place(metric=metric, scope=scope, **{tower: one.values[0] for tower, one in sides.items()})
        exact = metric == "accuracy" and scope == WEIGHTS
        both = [own.outcomes[tower,].correct for tower in TOWERS] if exact else sides.values()
        pairs.append(Pair(place, *both, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "metric", "scope", *TOWERS], words=(LOWERED, RAISED, NEITHER))


def gaps(found: Sequence[Evaluated]) -> pd.DataFrame:
    """The average gap of each model over METRICS and data sets, which are independent: model, gap (its meaning), scope
    (as of `changes`), numbers (how many it is the mean of), value, low, high, p, p (Holm), verdict. A relative change
    of nothing is nan."""
    rows, by, ends = [], ["model", "gap", "scope"], ("value", "low", "high")
    for gap in (RELATIVE, ABSOLUTE):
        values = {(own.dataset, own.model): _gap(own, gap) for own in found}
        known = (own for own in found if np.isfinite(values[own.dataset, own.model]))
        each = {(own.dataset, own.model, tower): _part(own, tower, gap) for own, tower in product(known, TOWERS)}
        means = retrained(each, itemgetter(0))
        for (dataset, model), value in values.items():
            sides, scope, ends_of = [means.get((dataset, model, tower)) for tower in TOWERS], WEIGHTS, [np.nan] * 4
            if all(sides):
                spread = spread_of(sides[1] - sides[0], scope := scope_of(sides))
                half = 100 * half_width(spread)[0]
                ends_of = value - half, value + half, 100 * spread.error[0], spread.freedom[0]
            rows.append((model, gap, scope, len(METRICS), value, *ends_of))
    table = pd.DataFrame(rows, columns=[*by, "numbers", *ends, "error", "freedom"])
    table["numbers"] = table.groupby(by)["numbers"].transform("sum")
    table = of_independent(table, by, ends).drop(columns=["error", "freedom"]).astype({"numbers": int})
    return judged(table, "value", (LOWERED, RAISED, NEITHER))


def _score(own: Evaluated, tower: str, metric: str) -> Statistic:
    return own.outcomes[tower,].score(metric, own.positive, own.resamples)


def _means(own: Evaluated) -> Iterator[np.ndarray]:
    """Of adapted and frozen, METRICS."""
    return (np.array([_score(own, tower, metric).values.mean() for metric in METRICS]) for tower in TOWERS)


def _gap(own: Evaluated, gap: str) -> float:
    """Mean over METRICS, which are of the same answers, on one data set; nan of nothing."""
    adapted, frozen = _means(own)
    share = 1 if gap == ABSOLUTE else np.where(adapted > 0, adapted, np.nan) / 100
    return float(np.mean((frozen - adapted) / share))


def _part(own: Evaluated, tower: str, gap: str) -> Statistic:
    """What a tower adds to `_gap`, which where it is relative is taken as linear near the means."""
    adapted, frozen = _means(own)
    weights = np.full(len(METRICS), 1 / len(METRICS))
    if gap == RELATIVE:
        weights *= 100 / adapted * (1 if tower == "frozen" else frozen / adapted)
    parts = [_score(own, tower, metric) * weight for metric, weight in zip(METRICS, weights, strict=True)]
    sums = {name: sum(getattr(part, name) for part in parts) for name in ("values", "resampled")}
    return replace(parts[0], **sums, clusters=min(part.clusters for part in parts))


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


def _accuracies(found: Sequence[Evaluated]) -> dict[tuple[str, str, str], Statistic]:
    """(dataset, paradigm, model) -> accuracy, of what is trained as of `retrained`; of others with a value a seed."""
    each = {
        (own.dataset, paradigm, own.model): accuracy(one.correct, own.resamples)
        for own in found
        for (paradigm,), one in own.outcomes.items()
    }
    return each | retrained({key: one for key, one in each.items() if key[1] in TRAINED}, itemgetter(0, 1))


def levels(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of each paradigm: dataset, model, paradigm, trained (times), scope, accuracy, low, high."""
    rows, each = [], _accuracies(found)
    for own, (paradigm,) in ((one, key) for one in found for key in one.outcomes):
        of, times = each[own.dataset, paradigm, own.model], len(own.outcomes[paradigm,].correct)
        interval = intervals(of, scope := scope_of([of])).iloc[0]
        rows.append((own.dataset, own.model, paradigm, times, scope, *interval[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "scope", "accuracy", "low", "high"])


def differences(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of a paradigm less that of another, of all COMPARED: dataset, model, paradigm, less, scope, difference
    and further columns of `paired.compare`, with verdict of WORDS. Where both are trained several times the scope is
    TRAINING, else WEIGHTS: each run of the one is paired with each run, or probe's seed, of the other."""
    pairs, each = [], _accuracies(found)
    for own, (paradigm, less) in product(found, COMPARED):
        sides = [each[own.dataset, name, own.model] for name in (less, paradigm)]
        if (scope := scope_of(sides)) == WEIGHTS:
            before, after = (own.outcomes[name,].correct for name in (less, paradigm))
            sides = np.repeat(before, len(after), axis=0), np.tile(after, (len(before), 1, 1))
        pairs.append(Pair(own.place(paradigm=paradigm, less=less, scope=scope), *sides, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "paradigm", "less", "scope"], "difference", WORDS)
