"""From the accuracy that a fault is to cost to a severity in one model, and what it then costs, image by image.

All on fresh phantoms of the test set's classes: on some the statistics of intact states are taken and classifiers are
fitted, on others the severity is chosen, on as many more as the faults' cards say the strength is measured.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from mlprobe_utils.artefacts import atomic_write, write_parquet
from mlprobe_utils.cards import Images
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.extraction import save_whole
from mlprobe_utils.faults.card import ANSWER, Fault
from mlprobe_utils.faults.damage import Damage, planted
from mlprobe_utils.faults.fresh import fresh_images
from mlprobe_utils.faults.oracle import INTACT, Reading, pooled_at, read, right, severity_for
from mlprobe_utils.faults.reference import statistics_of
from mlprobe_utils.loading import LoadedModel
from mlprobe_utils.results import CALIBRATION, HITS

PARTS = ("fitting", "choosing", "measuring")  # no image is in two of them
MOST_CHOOSING = 600  # images to fit and to choose on: more change the severity by less than the measured interval
STATISTICS = "statistics.safetensors"


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


def counts_of(faults: Iterable[Fault]) -> dict[str, int]:
    """Part -> images, for faults that are calibrated together."""
    measured = max(fault.images for fault in faults)
    return {part: measured if part == "measuring" else min(MOST_CHOOSING, measured) for part in PARTS}


@dataclass(frozen=True)
class Calibration:
    """A fault in one model: the damage, what severity 1 would lose (percentage points), and the measuring images."""

    damage: Damage
    most: float
    hits: pd.DataFrame


def calibrate(
    loaded: LoadedModel, encoder: Encoder, faults: Iterable[Fault], drawn: dict[str, Drawn]
) -> dict[str, Calibration]:
    """Calibrates several faults at once, so that the intact model reads each image once: slug -> calibration.

    Args:
        drawn: part -> its phantoms, all of PARTS.

    Raises:
        InputError: a fault that has no place in the model.
    """
    faults = {fault.slug: fault for fault in faults}
    options = drawn["fitting"].image_set.card.options
    damages = {slug: planted(fault, loaded.family) for slug, fault in faults.items()}
    points = [damage.point for damage in damages.values() if damage.point]
    statistics = statistics_of(loaded, encoder, drawn["fitting"].batches(), points)
    damages = {
        slug: Damage(d.module, d.seed, d.point, 1.0, statistics[d.point] if d.point else {})
        for slug, d in damages.items()
    }
    labels = {part: own.labels for part, own in drawn.items()}
    full = {p: read(loaded, encoder, options, drawn[p].batches(), damages) for p in ("fitting", "choosing")}
    most = {}
    for slug, fault in faults.items():
        lost = _answers_lost if fault.module == ANSWER else _states_lost
        severity, most[slug] = severity_for(lost(damages[slug], slug, full, labels), fault.points_lost)
        damages[slug] = damages[slug].at(severity)
    readings = {p: read(loaded, encoder, options, drawn[p].batches(), damages) for p in ("fitting", "measuring")}
    return {
        slug: Calibration(damages[slug], most[slug], hits_of(slug, damages[slug], readings, labels)) for slug in faults
    }


def _states_lost(damage: Damage, slug: str, full: dict[str, dict[str, Reading]], labels: dict) -> Callable:
    """Accuracy lost at the damaged place, in points, as a function of the severity."""
    key = f"{damage.point}/image_mean"

    def accuracy(states: Callable[[str], np.ndarray]) -> float:
        fitting, choosing = states("fitting"), states("choosing")
        return 100 * right(fitting, labels["fitting"], choosing, labels["choosing"]).mean()

    before = accuracy(lambda part: full[part][INTACT].states[key])

    def lost(severity: float) -> float:
        own = damage.at(severity)
        pooled = lambda part: pooled_at(own, *(full[part][name].states[key] for name in (INTACT, slug)))  # noqa: E731
        return before - accuracy(pooled)

    return lost


def _answers_lost(damage: Damage, slug: str, full: dict[str, dict[str, Reading]], labels: dict) -> Callable:
    """Accuracy of the answers lost, in points: which images are hit has nothing to do with what they show."""
    before, after = (
        np.mean([(full[part][name].answers == labels[part]).mean() for part in full]) for name in (INTACT, slug)
    )
    return lambda severity: 100 * severity * (before - after)


def hits_of(slug: str, damage: Damage, readings: dict[str, dict[str, Reading]], labels: dict) -> pd.DataFrame:
    """Whether the oracle is right on each measuring image, of the intact and of the damaged model.

    Columns: fault, point (`output`: the model's own answer), pooling, decides (whether the strength is read here),
    phantom (its number), intact and damaged (bool).
    """
    fitting, measuring = readings["fitting"], readings["measuring"]
    frames = []
    for key in measuring[slug].states:
        hits = [
            right(fitting[n].states[key], labels["fitting"], measuring[n].states[key], labels["measuring"])
            for n in (INTACT, slug)
        ]
        point, pooling = key.split("/")
        frames.append(_hits(point, pooling, (point, pooling) == (damage.point, "image_mean"), *hits))
    answers = [measuring[n].answers == labels["measuring"] for n in (INTACT, slug)]
    frames.append(_hits(ANSWER, None, damage.module == ANSWER, *answers))
    return pd.concat(frames, ignore_index=True).assign(fault=slug)


def _hits(point: str, pooling: str | None, decides: bool, intact: np.ndarray, damaged: np.ndarray) -> pd.DataFrame:
    told = pd.DataFrame({"phantom": range(len(intact)), "intact": intact, "damaged": damaged})
    return told.assign(point=point, pooling=pd.Series(pooling, told.index, dtype=object), decides=decides)


def save(calibration: Calibration, fault: Fault, folder: Path) -> None:
    """Leaves a calibration in `folder`: what was wanted and found, statistics of the states, the measuring images."""
    damage = calibration.damage
    reached = calibration.most >= fault.points_lost
    said = {"point": damage.point or ANSWER, "severity": damage.severity, "wanted": fault.points_lost}
    said |= {"most": calibration.most, "reached": bool(reached)}
    save_whole(damage.statistics, folder / STATISTICS)
    write_parquet(calibration.hits, folder / HITS)
    atomic_write(folder / CALIBRATION, json.dumps(said, indent=1))


def load_damage(fault: Fault, folder: Path) -> Damage:
    """The damage of a fault as its calibration in `folder` has it."""
    said = json.loads((folder / CALIBRATION).read_text())
    point = None if fault.module == ANSWER else said["point"]
    return Damage(fault.module, fault.seed, point, said["severity"], load_file(folder / STATISTICS))
