"""What a vision tower is trained by: the MLLM's answers, probes at the tower's end, or the tower alone.

Paper section 5, Table 3. All are evaluated on the same test images, so that differences are paired. The runs of a
fine-tuning and the seeds of a probe are independent: each is paired with each.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import ceil

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.cards import FineTuning
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.paired import WORDS, Pair, compare
from mlprobe_utils.stats.resampling import accuracy

FINE_TUNED = "MLLM fine-tuned"
PROBES = {"pretrained": "probe before fine-tuning", "finetuned": "probe after fine-tuning"}  # at the tower's end
ALONE = {"all": "tower alone, all weights", "lora": "tower alone, LoRA"}
PARADIGMS = (FINE_TUNED, *PROBES.values(), *ALONE.values())
COMPARED = [  # paradigm, and what is subtracted from it
    *product(ALONE.values(), (FINE_TUNED, *PROBES.values())),
    *((FINE_TUNED, probe) for probe in PROBES.values()),
]


def outcomes_of(one: Selection) -> dict[tuple[str], Outcomes]:
    """(paradigm of PARADIGMS,) -> outcomes on test images, of one model and data set."""
    answers, probed, classified = (
        rows[rows["split"] == "test"]
        for rows in (results.prediction_rows(one), results.end_rows(one), variants.classifier_rows(one))
    )
    probed = probed[probed["point"].str.startswith("V")]
    found = {(FINE_TUNED,): output_outcomes(answers[answers["stage"] == "finetuned"])}
    found |= {(name,): outcomes(probed[probed["stage"] == stage]) for stage, name in PROBES.items()}
    return found | {(name,): outcomes(classified[classified["probe"] == way]) for way, name in ALONE.items()}


def levels(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of each paradigm: dataset, model, paradigm, trained (times), accuracy, low, high (percent).

    Intervals are for new images, with what was trained.
    """
    rows = []
    for own in found:
        for (paradigm,), one in own.outcomes.items():
            interval = intervals(accuracy(one.correct, own.resamples)).iloc[0]
            rows.append((own.dataset, own.model, paradigm, len(one.correct), *interval[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "accuracy", "low", "high"])


def differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of a paradigm less that of another, of all COMPARED; for new images, with what was trained.

    Returns:
        dataset, model, paradigm, less, difference and further columns of `paired.compare`, with verdict of WORDS.
    """
    return compare(_pairs(found), ["dataset", "model", "paradigm", "less"], "difference", WORDS)


def _pairs(found: Iterable[Evaluated]) -> Iterator[Pair]:
    for own in found:
        for paradigm, less in COMPARED:
            before, after = crossed(*(own.outcomes[name,].correct for name in (less, paradigm)))
            yield Pair(own.place(paradigm=paradigm, less=less), before, after, own.resamples)


def crossed(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as often as there are pairs of a seed of one and a seed of the other: bool [pairs, points, images]."""
    return np.repeat(one, len(other), axis=0), np.tile(other, (len(one), *[1] * (other.ndim - 1)))


def budgets(image_sets: Mapping[str, ImageSet], split_rule: str, recipe: FineTuning) -> pd.DataFrame:
    """What every training has, of an MLLM or a tower alone: dataset, training images, epochs, images a step, steps."""
    rows = []
    for dataset, image_set in image_sets.items():
        images = len(image_set.rows_of(split_rule, "train"))
        steps = recipe.epochs * ceil(images / recipe.batch_size)
        rows.append((dataset, images, recipe.epochs, recipe.batch_size, steps))
    return pd.DataFrame(rows, columns=["dataset", "training images", "epochs", "images a step", "steps"])
