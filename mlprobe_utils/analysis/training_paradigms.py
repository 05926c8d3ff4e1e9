"""What a vision tower is trained by: the MLLM's answers, probes at the tower's end, or the tower alone.

Paper section 5, Table 3. All are asked about the same test images, so that differences are paired. The runs of a
fine-tuning and the seeds of a probe have nothing to do with each other: each is paired with each.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.cards import FineTuning
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import LEVEL, PROBE, intervals
from mlprobe_utils.stats.paired_tests import holm, paired_tests
from mlprobe_utils.stats.resampling import Resamples, accuracy

FINE_TUNED = "MLLM fine-tuned"
PROBES = {"pretrained": "probe before fine-tuning", "finetuned": "probe after fine-tuning"}  # at the tower's end
ALONE = {"all": "tower alone, all weights", "lora": "tower alone, LoRA"}
PARADIGMS = (FINE_TUNED, *PROBES.values(), *ALONE.values())
COMPARED = [  # paradigm, and what is taken from it
    *product(ALONE.values(), (FINE_TUNED, *PROBES.values())),
    *((FINE_TUNED, probe) for probe in PROBES.values()),
]
HIGHER, LOWER, NEITHER = "higher", "lower", "not distinguishable"


@dataclass(frozen=True)
class Reading:
    """What one model on one data set was trained to tell: paradigm of PARADIGMS -> bool [seeds, 1, images]."""

    model: str
    dataset: str
    right: dict[str, np.ndarray]
    resamples: Resamples


def read(selection: Selection, image_sets: Mapping[str, ImageSet]) -> list[Reading]:
    """The readings of a selection, in the order data set, model.

    Raises:
        InputError: a model and data set that was not run; rows of other images than the test images.
    """
    drawn = {dataset: resamples_of_tested(image_sets[dataset], selection.split) for dataset in selection.datasets}
    found = []
    for model, dataset, _ in selection.folders():
        one = replace(selection, models=(model,), datasets=(dataset,))
        rows = results.prediction_rows(one), results.end_rows(one), variants.classifier_rows(one)
        resamples, images = drawn[dataset]
        found.append(Reading(model, dataset, told_apart(*rows, f"{model} on {dataset}", images), resamples))
    return found


def told_apart(
    predicted: pd.DataFrame, probed: pd.DataFrame, classified: pd.DataFrame, whose: str, images: list[str]
) -> dict[str, np.ndarray]:
    """The outcomes of every paradigm, from the rows of one model on one data set; those of test images count.

    Args:
        predicted, probed, classified: from `results.prediction_rows`, `.end_rows` and `variants.classifier_rows`.
        whose: the rows are, for errors.
        images: the test images, sorted.

    Raises as `read`.
    """
    answers, probed, classified = (rows[rows["part"] == "test"] for rows in (predicted, probed, classified))
    probed = probed[probed["point"].str.startswith("V")]
    found: dict[str, Outcomes] = {FINE_TUNED: output_outcomes(answers[answers["stage"] == "finetuned"])}
    found |= {name: outcomes(probed[probed["stage"] == stage]) for stage, name in PROBES.items()}
    found |= {name: outcomes(classified[classified["probe"] == way]) for way, name in ALONE.items()}
    return {name: of_tested(own, images, f"{whose}, {name}").right for name, own in found.items()}


def levels(readings: Iterable[Reading]) -> pd.DataFrame:
    """Accuracy of each paradigm: dataset, model, paradigm, trained (times), accuracy, low, high (percent).

    Intervals are for new images, with what was trained.
    """
    rows = []
    for reading in readings:
        for paradigm, right in reading.right.items():
            found = intervals(accuracy(right, reading.resamples), PROBE).iloc[0]
            place = (reading.dataset, reading.model, paradigm, len(right))
            rows.append((*place, *found[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["dataset", "model", "paradigm", "trained", "accuracy", "low", "high"])


def differences(readings: Iterable[Reading]) -> pd.DataFrame:
    """Accuracy of a paradigm less that of another, of all COMPARED.

    Returns:
        dataset, model, paradigm, less, difference, low, high (points; for new images, with what was trained), p
        (exact), p (Holm) over all rows, verdict: HIGHER or LOWER where p (Holm) is below 5 %, else NEITHER.
    """
    frames = []
    for reading in readings:
        for paradigm, less in COMPARED:
            before, after = crossed(reading.right[less], reading.right[paradigm])
            found = paired_tests(before, after, reading.resamples)[["value", "low", "high", "p"]]
            place = {"dataset": reading.dataset, "model": reading.model, "paradigm": paradigm, "less": less}
            frames.append(found.assign(**place))
    table = pd.concat(frames, ignore_index=True).rename(columns={"value": "difference"})
    table["p (Holm)"] = holm(table["p"])
    told = table["p (Holm)"] < 1 - LEVEL
    ways = [told & (table["difference"] > 0), told & (table["difference"] < 0)]
    columns = ["dataset", "model", "paradigm", "less", "difference", "low", "high", "p", "p (Holm)"]
    return table[columns].assign(verdict=np.select(ways, [HIGHER, LOWER], NEITHER))


def crossed(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as often as there are pairs of a seed of one and a seed of the other: bool [pairs, points, images]."""
    return np.repeat(one, len(other), axis=0), np.tile(other, (len(one), *[1] * (other.ndim - 1)))


def budgets(image_sets: Mapping[str, ImageSet], split: str, recipe: FineTuning) -> pd.DataFrame:
    """What every training has, of an MLLM or a tower alone: dataset, training images, epochs, images a step, steps."""
    rows = []
    for dataset, image_set in image_sets.items():
        images = len(image_set.part(split, "train"))
        steps = recipe.epochs * ceil(images / recipe.batch_size)
        rows.append((dataset, images, recipe.epochs, recipe.batch_size, steps))
    return pd.DataFrame(rows, columns=["dataset", "training images", "epochs", "images a step", "steps"])
