"""The vision tower: frozen or adapted in an MLLM's fine-tuning (paper section 5, Table 2), and trained alone (Table 3),
all evaluated on the same test images: differences are paired."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import t

from mlprobe_utils.evaluation.names import FROZEN_TOWER
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, means_over_runs
from mlprobe_utils.stats.intervals import LEVEL, ROUNDING, WEIGHTS, intervals, scope_of
from mlprobe_utils.stats.paired import NEITHER, WORDS, Pair, compare, of_independent
from mlprobe_utils.stats.resampling import MOST_MISSING, Statistic, accuracy

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
    pairs, means = [], {key: means_over_runs(found, key[:1], key[1]) for key in product(TOWERS, METRICS)}
    for own, metric in product(found, METRICS):
        sides = {tower: means[tower, metric][own.dataset, own.model] for tower in TOWERS}
        scope = scope_of(sides.values())
        place = own.place(metric=metric, scope=scope, **{tower: one.values[0] for tower, one in sides.items()})
        exact = metric == "accuracy" and scope == WEIGHTS
        both = [own.outcomes[tower,].correct for tower in TOWERS] if exact else sides.values()
        pairs.append(Pair(place, *both, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "metric", "scope", *TOWERS], words=(LOWERED, RAISED, NEITHER))


def gaps(found: Sequence[Evaluated]) -> pd.DataFrame:
    """The average gap of each model over METRICS and data sets, which are independent, of WEIGHTS: model, gap (its
    meaning), numbers (how many it is the mean of), value, low, high. A relative change of nothing is nan."""
    rows = [(own.model, gap, len(METRICS), *_gap(own, gap)) for own, gap in product(found, (RELATIVE, ABSOLUTE))]
    table, by = pd.DataFrame(rows, columns=["model", "gap", "numbers", "value", "low", "high"]), ["model", "gap"]
    table["numbers"] = table.groupby(by)["numbers"].transform("sum")
    return of_independent(table, by, ("value", "low", "high")).astype({"numbers": int})


def _gap(own: Evaluated, gap: str) -> tuple[float, float, float]:
    """Mean over metrics on one data set, and the ends of its interval; the metrics are drawn together."""
    found, clusters = [], np.inf
    for metric in METRICS:
        scores = [_score(own, tower, metric) for tower in TOWERS]
        before, after = (np.append(one.values.mean(), one.resampled.mean(axis=(1, 2))) for one in scores)
        clusters = min(clusters, *(one.clusters for one in scores))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(after - before if gap == ABSOLUTE else 100 * (after / before - 1))
    value, *resampled = np.mean(found, axis=0)
    finite = np.isfinite(resampled)
    if not np.isfinite(value) or 1 - finite.mean() > MOST_MISSING:
        return np.nan, np.nan, np.nan
    freedom = max(clusters - 1, 1)  # where no resample differs: as if one cluster had changed
    error = np.std(np.array(resampled)[finite], ddof=1) * np.sqrt(clusters / freedom)
    half = t.isf((1 - LEVEL) / 2, freedom) * (error if error > ROUNDING else 100 / clusters)
    return value, value - half, value + half


def _score(own: Evaluated, tower: str, metric: str) -> Statistic:
    return own.outcomes[tower,].score(metric, own.positive, own.resamples)


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


def levels(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of each paradigm: dataset, model, paradigm, trained (times), scope, accuracy, low, high."""
    rows, means = [], {name: means_over_runs(found, (name,)) for name in TRAINED}
    for own in found:
        for (paradigm,), one in own.outcomes.items():
            of = means.get(paradigm, {}).get((own.dataset, own.model), accuracy(one.correct, own.resamples))
            interval = intervals(of, scope := scope_of([of])).loc[0, ["value", "low", "high"]]
            rows.append((own.dataset, own.model, paradigm, len(one.correct), scope, *interval))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "scope", "accuracy", "low", "high"])


def differences(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of a paradigm less that of another, of all COMPARED: dataset, model, paradigm, less, scope, difference
    and further columns of `paired.compare`, with verdict of WORDS. Where both are trained several times the scope is
    TRAINING, else WEIGHTS: each run of the one is paired with each run, or probe's seed, of the other."""
    pairs, means = [], {name: means_over_runs(found, (name,)) for name in TRAINED}
    for own, (paradigm, less) in product(found, COMPARED):
        sides, scope = [means[name][own.dataset, own.model] for name in (less, paradigm) if name in TRAINED], WEIGHTS
        if len(sides) < 2 or (scope := scope_of(sides)) == WEIGHTS:
            before, after = (own.outcomes[name,].correct for name in (less, paradigm))
            sides = np.repeat(before, len(after), axis=0), np.tile(after, (len(before), 1, 1))
        pairs.append(Pair(own.place(paradigm=paradigm, less=less, scope=scope), *sides, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "paradigm", "less", "scope"], "difference", WORDS)
