"""A fault at several strengths in one model, from one pass over fresh phantoms through the intact model.

What a damage leaves of a state is affine in it, so that intact states and what severity 1 would leave of them give
those of every severity between (`oracle.pooled_at`); and an image whose answer is swapped at some severity is swapped
in the same way at all above.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from mlprobe_utils.encoding import Encoder
from mlprobe_utils.faults.calibration import PARTS, Drawn
from mlprobe_utils.faults.card import ANSWER, Fault
from mlprobe_utils.faults.damage import Damage, damage_noted, numbers_of, planted
from mlprobe_utils.faults.mapping import branches, chosen
from mlprobe_utils.faults.oracle import one_pass, pooled_at, right, severity_for, swapped_logits
from mlprobe_utils.faults.randomness import uniform
from mlprobe_utils.faults.reference import statistics_of
from mlprobe_utils.intervals import intervals
from mlprobe_utils.loading import LoadedModel, to_device
from mlprobe_utils.resampling import accuracy, resample


@dataclass(frozen=True)
class Strength:
    """A fault at one strength: `wanted`, and what the oracle measured lost, with the ends of its 95 % interval; points.

    `reached` says whether severity 1 loses as much as was wanted on the images that the severity is chosen on.
    """

    damage: Damage
    wanted: float
    reached: bool
    strength: float
    strength_low: float
    strength_high: float


@dataclass(frozen=True)
class Whole:
    """What is read of some images for a damage: `intact`, and `full` as severity 1 leaves it.

    Means of the image tokens at its place, float32 [images, width]; of the semantic mapping the options that are
    answered, int [images], and `hit_above`, float [images], from which severity on an image's answer is swapped.
    """

    intact: np.ndarray
    full: np.ndarray
    hit_above: np.ndarray | None = None


def calibrate_strengths(
    loaded: LoadedModel, encoder: Encoder, faults: Iterable[Fault], drawn: dict[str, Drawn], wanted: list[float]
) -> dict[str, list[Strength]]:
    """Each fault at every strength of `wanted` that can be told apart: slug -> strengths, the least first.

    Where severity 1 does not lose what is wanted, it stands for this and all greater strengths, once.

    Args:
        drawn: part -> its phantoms, all of PARTS.

    Raises:
        InputError: a fault that has no place in the model.
    """
    places = {fault.slug: planted(fault, loaded.family) for fault in faults}
    options = drawn["fitting"].image_set.card.options
    points = [damage.point for damage in places.values() if damage.point]
    batches = {part: list(drawn[part].batches()) for part in PARTS}
    labels = {part: drawn[part].labels for part in PARTS}
    statistics = statistics_of(loaded, encoder, batches["fitting"], points)
    full = {
        slug: Damage(d.module, d.seed, d.point, 1.0, statistics[d.point] if d.point else {})
        for slug, d in places.items()
    }
    read = {part: _read(loaded, encoder, options, batches[part], full) for part in PARTS}
    return {
        slug: _strengths(damage, {part: read[part][slug] for part in PARTS}, labels, wanted)
        for slug, damage in full.items()
    }


@torch.inference_mode()
def _read(
    loaded: LoadedModel, encoder: Encoder, options: list[str], batches: list, damages: Mapping[str, Damage]
) -> dict[str, Whole]:
    parting = branches(encoder.answer_tokens(options))
    of_states = {name: damage for name, damage in damages.items() if damage.module != ANSWER}
    parts: dict[str, list[tuple]] = {name: [] for name in damages}
    for images in batches:
        inputs = to_device(encoder.questions(images), loaded)
        with damage_noted(loaded, of_states, inputs) as left:
            states, next_logits = one_pass(loaded, inputs, encoder.tokenizer.pad_token_id)
            left = dict(left)
        for name, damage in damages.items():
            if damage.module != ANSWER:
                parts[name].append((states[f"{damage.point}/image_mean"], left[name]))
                continue
            swapped = swapped_logits(loaded, inputs, damage, parting, next_logits)
            answers = (chosen(logits, parting, len(options)).cpu() for logits in (next_logits, swapped))
            numbers = numbers_of(damage, loaded.family, inputs)
            parts[name].append((*answers, torch.tensor([uniform(number) for number in numbers], dtype=torch.float64)))
    return {
        name: Whole(*(torch.cat(column).numpy() for column in zip(*own, strict=True))) for name, own in parts.items()
    }


def _strengths(
    damage: Damage, read: Mapping[str, Whole], labels: Mapping[str, np.ndarray], wanted: list[float]
) -> list[Strength]:
    hits = cache((_hits_of_answers if damage.module == ANSWER else _hits_of_states)(damage, read, labels))

    def lost(severity: float) -> float:
        return 100 * (hits(0.0, "choosing").mean() - hits(severity, "choosing").mean())

    found: dict[float, Strength] = {}
    drawn = resample(np.arange(len(labels["measuring"])))
    for points in sorted(wanted):
        severity, most = severity_for(lost, points)
        own = damage.at(severity)
        distinct = own.rank(len(own.statistics["mean"])) if damage.module == "C" else severity
        if distinct not in found:
            before, after = (accuracy(hits(s, "measuring")[None], drawn) for s in (0.0, severity))
            change = intervals(after - before).iloc[0]
            found[distinct] = Strength(own, points, most >= points, -change["value"], -change["high"], -change["low"])
    return list(found.values())


def _hits_of_states(damage: Damage, read: Mapping[str, Whole], labels: Mapping[str, np.ndarray]) -> Callable:
    def hits(severity: float, part: str) -> np.ndarray:
        """Whether a classifier that was fitted under the damage is right, bool [images]."""
        fitting, judged = (
            pooled_at(damage.at(severity), own.intact, own.full) if severity else own.intact
            for own in (read["fitting"], read[part])
        )
        return right(fitting, labels["fitting"], judged, labels[part])

    return hits


def _hits_of_answers(damage: Damage, read: Mapping[str, Whole], labels: Mapping[str, np.ndarray]) -> Callable:
    def hits(severity: float, part: str) -> np.ndarray:
        own = read[part]
        return np.where(own.hit_above < severity, own.full, own.intact) == labels[part]

    return hits
