"""Planted faults: their cards and that of the trial, and the damaged models that data/book.yml names."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import PercentagePoints
from mlprobe_utils.evaluation.names import COMPREHENSION, FIDELITY, MISALIGNMENT, QUALITY
from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import CARDS, Card, DataCard, load_card, load_data_card, slugs
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.results import Selection

MODE_OF = {"V": QUALITY, "C": FIDELITY, "L": COMPREHENSION, ANSWER: MISALIGNMENT}  # module of a fault -> its mode
WITH_DEPTH = ("V", "L")  # the connector is damaged where it ends
FOLDER, CASES, ROWS = "trial", "cases.parquet", "rows.parquet"  # what a trial leaves of a model on a data set
DIAGNOSIS, FILES = "diagnosis", ("laboratory.csv", "laboratory.yml")  # of all trials judged: cases, run
STEPS = ("fine-tuning", "answers", "features", "controls of the images", "cases")  # of a trial


class Fault(Card):
    """A fault that fits every model, as its place is given by modules; trials and the book say how strong it is."""

    folder, kind = "faults", "fault"
    name: str
    module: Literal["V", "C", "L", "output"] = Field(description="vision tower, connector, LLM, semantic mapping")
    depth: float | None = Field(None, ge=0, le=1, description="of vision tower or LLM: 0 its first point, 1 its last")
    seed: int = Field(ge=0, description="of the noise, of the directions kept, of the images hit")

    @model_validator(mode="after")
    def _depth_where_there_is_one(self):
        if (self.depth is None) == (self.module in WITH_DEPTH):
            mend = "give the depth, 0 to 1" if self.depth is None else "remove it: there is one place only"
            raise ValueError(f"depth of a fault in module {self.module!r}: {mend}")
        return self

    def place(self, points: list[str]) -> str | None:
        """The damaged one of a model's points, which are in order; None for the semantic mapping."""
        own, depth = [point for point in points if point[0] == self.module], 1.0 if self.depth is None else self.depth
        return own[int(depth * (len(own) - 1) + 0.5)] if self.module in MODULES else None


class Trial(Card):
    """What the laboratory plants: every fault at several strengths, in every model, on every data set."""

    folder, kind = "trials", "trial"
    points_lost: list[PercentagePoints] = Field(min_length=1, description="by the oracle; of each, one case a fault")
    images: int = Field(ge=50, description="fresh phantoms that each strength is measured on")
    strong: PercentagePoints = Field(description="measured loss of the oracle from which on a case is strong")
    least_loss: float = Field(ge=0, le=100, description="pp: a smaller loss is no failure mode, however clear it is")


def all_faults() -> list[Fault]:
    """Every fault that has a card, in the order the data flows."""
    faults, order = [load_card(Fault, slug) for slug in slugs(Fault)], [*MODULES, ANSWER]
    return sorted(faults, key=lambda fault: (order.index(fault.module), fault.depth or 0))


load_trial = partial(load_card, Trial, "planted-faults")


def laboratory_files() -> list[Path]:
    """The two files of the last laboratory run: those in outputs/ where there are any, else the project's own."""
    own = artefacts.OUTPUTS / DIAGNOSIS
    folder = own if (own / FILES[1]).is_file() else CARDS / DIAGNOSIS
    return [folder / name for name in FILES]


@dataclass(frozen=True)
class DamagedModel:
    """A model of its own, with a slug and rows: one fault at one strength, planted in a fine-tuned state of another."""

    model: str  # slug of the healthy one
    fault: Fault
    strength: str  # in a word
    points_lost: float

    @property
    def slug(self) -> str:
        return f"{self.model}+{self.folder}"

    @property
    def folder(self) -> str:
        """Below FAULTS of the healthy model."""
        return f"{self.fault.slug}-{self.strength}"

    @property
    def name(self) -> str:
        return f"{self.fault.name} ({self.strength})"

    @property
    def is_strongest(self) -> bool:
        return self.points_lost == max(load_book().planted_faults.strengths.values())

    @property
    def mode(self) -> str:
        """The failure mode that the diagnosis should find."""
        return MODE_OF[self.fault.module]


def damaged_models(models: Container[str]) -> list[DamagedModel]:
    """The damaged models of a run, in the order the data flows, the weakest first; none if it lacks the healthy one."""
    planted = load_book().planted_faults
    strengths = sorted(planted.strengths.items(), key=lambda item: item[1])
    faults = all_faults() if planted.model in models else []
    return [DamagedModel(planted.model, fault, word, points) for fault in faults for word, points in strengths]


def damaged_selection(selection: Selection) -> Selection:
    """The results of a run's damaged models, on the phantom set of data/book.yml or else the first of the run; of real
    images alone, on the phantom twin of the first that has one, as a fault's cost is measured on images drawn afresh.
    """
    dataset = load_book().planted_faults.dataset
    cards = [card for card in map(load_data_card, selection.datasets) if card.layout != "folder"]
    if dataset not in selection.datasets and cards:
        dataset = phantom_twin(min(cards, key=lambda card: not card.synthetic)).slug
    models = tuple(damaged.slug for damaged in damaged_models(selection.models))
    return Selection(models, (dataset,), selection.protocol, selection.split_rule)


def phantom_twin(card: DataCard) -> DataCard:
    """The phantom set of a data set's layout; a phantom set is its own. Raises InputError where there is none."""
    for twin in [card, *map(load_data_card, slugs(DataCard))]:
        if twin.synthetic and (twin is card or twin.layout == card.layout != "folder"):
            return twin
    wrong = f"data set '{card.slug}': no phantom set has its layout ({card.layout}), and faults are measured on fresh"
    raise InputError(f"{wrong} phantoms: give data/datasets/ a card that is made by mlprobe_utils.synthetic.phantoms")


def check_drawable(datasets: Iterable[str]) -> None:
    """Raises InputError for a set of real images, which names its phantom twin."""
    for card in (card for card in map(load_data_card, datasets) if not card.synthetic):
        wrong = f"data set '{card.slug}' holds real images, of which no fresh ones can be drawn to measure a fault on"
        raise InputError(f"{wrong}: give '{phantom_twin(card).slug}', on which the model is then fine-tuned")
