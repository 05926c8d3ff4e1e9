"""The vision tower: frozen or adapted in an MLLM's fine-tuning (paper section 5, Table 2), and trained alone (Table 3),
all evaluated on the same test images: differences are paired."""

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.names import FROZEN_TOWER
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, means_over_runs
from mlprobe_utils.stats.intervals import WEIGHTS, intervals, scope_of
from mlprobe_utils.stats.paired import NEITHER, WORDS, Pair, compare, in_words
from mlprobe_utils.stats.resampling import accuracy

TOWERS = {"adapted": "lora", "frozen": "frozen"}
METRICS = ("accuracy", "f1")  # those of Table 2
ABSOLUTE, RELATIVE = "difference (pp)", "relative change (%)"  # two meanings of one average gap
RAISED, LOWERED = "frozen is significantly better", "frozen is significantly worse"
FINE_TUNED = "fine-tuned MLLM"
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
    """Frozen minus adapted: dataset, model, metric, scope (TRAINING, or WEIGHTS of single runs), adapted, frozen
    (percent, means over runs), change and further columns of `paired.compare`, with verdict LOWERED, RAISED or NEITHER;
    p is exact for accuracy of WEIGHTS only."""
    towers = [(tower,) for tower in TOWERS]
    pairs, means = [], {metric: means_over_runs(found, *towers, metric=metric) for metric in METRICS}
    for own, metric in product(found, METRICS):
        sides = {tower: means[metric][own.dataset, own.model, tower] for tower in TOWERS}
        scope = scope_of(sides.values())
        place = own.place(metric=metric, scope=scope, **{tower: one.values[0] for tower, one in sides.items()})
        exact = metric == "accuracy" and scope == WEIGHTS
        both = [own.outcomes[tower,].correct for tower in TOWERS] if exact else sides.values()
        pairs.append(Pair(place, *both, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "metric", "scope", *TOWERS], words=(LOWERED, RAISED, NEITHER))


def summary(changed: pd.DataFrame) -> str:
    """`changes`, models and data sets by name, in words: the significant ones, and the widest interval of the rest."""
    found, rest = Counter(changed["verdict"]), changed[changed["verdict"] == NEITHER]
    words = f"Freezing the vision tower significantly raises {found[RAISED]} of {len(changed)} scores and lowers"
    words += f" {found[LOWERED]}."
    for row in rest.assign(width=rest["high"] - rest["low"]).nlargest(1, "width").itertuples():
        words += f" For {len(rest)} of {len(changed)} the change is not significant; the widest interval of these is"
        words += f" {row.low:+.1f} to {row.high:+.1f} pp ({row.metric}, {row.model}, {row.dataset})."
    return words


def gaps(changed: pd.DataFrame) -> pd.DataFrame:
    """The average gap of each model over METRICS and data sets, from `changes`: model, scope, gap (its meaning), value,
    low, high (as of `paired.counted`; relative ones to what the adapted scores, nan of nothing), scores (how many)."""
    rows = []
    for (model, scope), own in changed.groupby(["model", "scope"], sort=False):
        ends = own[["change", "low", "high"]]
        for gap, table in ((RELATIVE, 100 * ends.div(own["adapted"], axis=0)), (ABSOLUTE, ends)):
            rows.append((model, scope, gap, *table.mean().replace([np.inf, -np.inf], np.nan), len(own)))
    return pd.DataFrame(rows, columns=["model", "scope", "gap", "value", "low", "high", "scores"])


def gaps_in_words(found: pd.DataFrame) -> str:
    """The mean over the models of `gaps`, in percent for one meaning and in pp for the other."""
    relative, absolute = (in_words(found[found["gap"] == gap].dropna(), "value") for gap in (RELATIVE, ABSOLUTE))
    return f"{relative} % as a relative change, and {absolute} pp as a difference"


def outcomes_of_paradigms(one: Selection) -> dict[tuple[str], Outcomes]:
    """(FROZEN_TOWER or a paradigm of COMPARED,) -> outcomes on test images, of one model and data set."""
    read = results.prediction_rows(one), results.end_rows(one), variants.classifier_rows(one)
    answers, probed, classified = (rows[rows["split"] == "test"] for rows in read)
    probed = probed[probed["point"].str.startswith("V") & (probed["pooling"] == "image_mean")]
    found = {(FINE_TUNED,): output_outcomes(answers[answers["stage"] == "finetuned"])}
    found |= {(name,): outcomes(probed[probed["stage"] == stage]) for stage, name in PROBES.items()}
    if len(head := results.frozen_tower_rows(one)):
        found[FROZEN_TOWER,] = outcomes(head)
    return found | {(name,): outcomes(classified[classified["probe"] == weights]) for weights, name in ALONE.items()}


def levels(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of each paradigm: dataset, model, paradigm, trained (times), scope, accuracy, low, high."""
    rows, means = [], {place: own for name in TRAINED for place, own in means_over_runs(found, (name,)).items()}
    for own in found:
        for (paradigm,), one in own.outcomes.items():
            of = means.get((own.dataset, own.model, paradigm), accuracy(one.correct, own.resamples))
            interval = intervals(of, scope := scope_of([of])).loc[0, ["value", "low", "high"]]
            rows.append((own.dataset, own.model, paradigm, len(one.correct), scope, *interval))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "scope", "accuracy", "low", "high"])


def differences(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Accuracy of a paradigm minus that of a reference, of all COMPARED: dataset, model, paradigm, reference, scope,
    difference and further columns of `paired.compare`, with verdict of WORDS. Where both are trained several times the
    scope is TRAINING, else WEIGHTS: each run of the one is paired with each run, or probe's seed, of the other."""
    pairs, means = [], {place: own for name in TRAINED for place, own in means_over_runs(found, (name,)).items()}
    for own, (paradigm, reference) in product(found, COMPARED):
        sides = [means[own.dataset, own.model, name] for name in (reference, paradigm) if name in TRAINED]
        scope = WEIGHTS
        if len(sides) < 2 or (scope := scope_of(sides)) == WEIGHTS:
            before, after = (own.outcomes[name,].correct for name in (reference, paradigm))
            sides = np.repeat(before, len(after), axis=0), np.tile(after, (len(before), 1, 1))
        pairs.append(Pair(own.place(paradigm=paradigm, reference=reference, scope=scope), *sides, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "paradigm", "reference", "scope"], "difference", WORDS)
