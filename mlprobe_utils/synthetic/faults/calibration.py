"""How severe a fault has to be in one model to cost a given accuracy, from one pass over fresh phantoms.

On some phantoms the statistics of intact states are taken and classifiers are fitted, on others severities are chosen,
and on the rest it is measured what they cost. What a damage leaves of a state is affine in it, so that intact states
and what severity 1 would leave of them give those of every severity between (`oracle.pooled_at`); and an image whose
answer is swapped at some severity is swapped in the same way at all above.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.datasets.settings import Images
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.fault_card import Fault
from mlprobe_utils.pipeline.results import HITS, STATISTICS, STRENGTHS
from mlprobe_utils.probing.extraction import save_whole
from mlprobe_utils.synthetic.faults.damage import Damage, damage_noted, numbers_of, planted
from mlprobe_utils.synthetic.faults.fresh import fresh_images
from mlprobe_utils.synthetic.faults.mapping import branches, chosen
from mlprobe_utils.synthetic.faults.oracle import one_pass, pooled_at, right, severity_for, swapped_logits
from mlprobe_utils.synthetic.faults.randomness import uniform
from mlprobe_utils.synthetic.faults.reference import statistics_of

PARTS = ("fitting", "choosing", "measuring")  # no image is in two of them
MOST_CHOOSING = 600  # images to fit and to choose on: more change the severity by less than the measured interval


@dataclass(frozen=True)
class Drawn:
    """Fresh phantoms of one part: the class of each, and the images in batches, drawn anew whenever they are read."""

    image_set: ImageSet
    split: str
    settings: Images
    part: str
    count: int
    batch_size: int

    @property
    def classes(self) -> np.ndarray:
        """Class names as the test set has them in proportion."""
        test = self.image_set.part(self.split, "test")["label"].to_numpy()
        return np.random.default_rng(self._number).choice(test, self.count)

    @property
    def labels(self) -> np.ndarray:
        """Number of the right option, int [images]."""
        return np.array([self._names.index(name) for name in self.classes])

    def batches(self) -> Iterator[list[np.ndarray]]:
        classes = self.classes
        for first in range(0, len(classes), self.batch_size):
            names = classes[first : first + self.batch_size]
            yield fresh_images(self.image_set.card, self.settings, list(names), self._number, first)

    @property
    def _names(self) -> list[str]:
        return [known.name for known in self.image_set.card.classes]

    @property
    def _number(self) -> int:
        return PARTS.index(self.part)


def counts_of(measured: int) -> dict[str, int]:
    """Part -> images, where the strength is measured on so many."""
    return {part: measured if part == "measuring" else min(MOST_CHOOSING, measured) for part in PARTS}


@dataclass(frozen=True)
class Strength:
    """A fault at one strength: the points that were `wanted`, and whether the oracle is right on the measuring images.

    `reached` says whether severity 1 loses as much as was wanted on the images that the severity is chosen on; `intact`
    and `damaged` are bool [images], without and with the damage.
    """

    damage: Damage
    wanted: float
    reached: bool
    intact: np.ndarray
    damaged: np.ndarray


@dataclass(frozen=True)
class Whole:
    """What is read of some images for a damage: `intact`, and `full` as severity 1 leaves it.

    Means of the image tokens at its place, float32 [images, width]; of the semantic mapping the options that are
    answered, int [images], and `hit_above`, float [images], from which severity on an image's answer is swapped.
    """

    intact: np.ndarray
    full: np.ndarray
    hit_above: np.ndarray | None = None


def calibrate(
    loaded: LoadedModel, encoder: Encoder, faults: Iterable[Fault], drawn: dict[str, Drawn], wanted: list[float]
) -> dict[str, list[Strength]]:
    """Each fault at every strength of `wanted`, in points: slug -> strengths, in this order.

    Where severity 1 does not lose what is wanted, it stands for it.

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
    read = {part: read_whole(loaded, encoder, options, batches[part], full) for part in PARTS}
    return {
        slug: _strengths(damage, {part: read[part][slug] for part in PARTS}, labels, wanted)
        for slug, damage in full.items()
    }


@torch.inference_mode()
def read_whole(
    loaded: LoadedModel, encoder: Encoder, options: list[str], batches: list, damages: Mapping[str, Damage]
) -> dict[str, Whole]:
    """Reads images once through the intact model, noting what each damage of severity 1 would leave: name -> Whole."""
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

    found = []
    for points in wanted:
        severity, most = severity_for(lost, points)
        both = (hits(s, "measuring") for s in (0.0, severity))
        found.append(Strength(damage.at(severity), points, most >= points, *both))
    return found


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


def save(found: Mapping[str, list[Strength]], folder: Path) -> None:
    """Leaves what `calibrate` found in `folder`: a row a fault and strength, the measuring images, and statistics."""
    rows, hits, statistics = [], [], {}
    for slug, strengths in found.items():
        for strength in strengths:
            damage, of = strength.damage, {"fault": slug, "wanted": strength.wanted}
            rows.append(
                of | {"point": damage.point or ANSWER, "severity": damage.severity, "reached": strength.reached}
            )
            hits.append(pd.DataFrame({"intact": strength.intact, "damaged": strength.damaged}).assign(**of))
            statistics |= {f"{slug}/{name}": value for name, value in damage.statistics.items()}
    save_whole(statistics, folder / STATISTICS)
    write_parquet(pd.concat(hits, ignore_index=True), folder / HITS)
    write_parquet(pd.DataFrame(rows), folder / STRENGTHS)


def load_damages(faults: Iterable[Fault], folder: Path) -> dict[tuple[str, float], Damage]:
    """The damages that `save` left of some faults: (fault, points wanted) -> damage."""
    rows, saved, found = pd.read_parquet(folder / STRENGTHS), load_file(folder / STATISTICS), {}
    for fault in faults:
        own = {key.partition("/")[2]: value for key, value in saved.items() if key.partition("/")[0] == fault.slug}
        for row in rows[rows["fault"] == fault.slug].itertuples():
            point = None if fault.module == ANSWER else row.point
            found[fault.slug, row.wanted] = Damage(fault.module, fault.seed, point, row.severity, own)
    return found
