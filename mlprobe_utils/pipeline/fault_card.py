"""Planted faults: their cards and that of the trial, and the damaged models that data/book.yml names."""

import itertools
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import PercentagePoints
from mlprobe_utils.evaluation.names import COMPREHENSION, FIDELITY, QUALITY, READ_OUT_GAP
from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import CARDS, Card, DataCard, check_named, load_card, load_data_card, slugs
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.results import Selection

MODE_OF = {"V": QUALITY, "C": FIDELITY, "L": COMPREHENSION, ANSWER: READ_OUT_GAP}  # module of a fault -> its mode
WITH_DEPTH = ("V", "L")  # the connector is damaged where it ends
OF_STATES = tuple(MODULES)
FOLDER, CASES, ROWS = "trial", "cases.parquet", "rows.parquet"  # what a trial leaves of a model on a data set
DIAGNOSIS, FILES = "diagnosis", ("laboratory.csv", "laboratory.yml")  # of all trials judged: cases, run
STEPS = ("fine-tuning", "answers", "features", "controls of the images", "cases", "interventions")  # of a trial


class Kind(NamedTuple):
    """What is done to the states of a module, or to the options' logits."""

    words: str  # as a page says it, of a growing severity
    destroys: bool  # the class; else it can be decoded as before, but not by what the model has learned
    modules: tuple[str, ...] = OF_STATES


KINDS = {  # by their functions' names, in `synthetic.faults.kinds`
    "noise": Kind("the states are replaced by noise of the same mean and spread", True, (*OF_STATES, ANSWER)),
    "collapse": Kind("the states are projected onto a few directions around their mean", True),
    "mask": Kind("some tokens of every image are replaced by the mean of all", True),
    "lost": Kind("in some images all tokens are replaced by the mean of all", True),
    "heads": Kind("attention heads of the layer exchange their outputs", False, WITH_DEPTH),
    "rotation": Kind("the states are rotated around their mean and keep their spread", False, (*OF_STATES, ANSWER)),
    "signs": Kind("some channels are mirrored at their mean", False),
    "channels": Kind("some channels are exchanged, each rescaled to the mean and spread of its new place", False),
    "places": Kind("in up to half of the channels the tokens of an image are permuted", False, ("V", "C")),
    "shift": Kind("one vector is added to all states", False),
    "fade": Kind("the states shrink towards their mean", False),
    "commonest": Kind("in some images one option, always the same, outscores all others", True, (ANSWER,)),
    "swap": Kind("in some images the options are exchanged", False, (ANSWER,)),
    "bias": Kind("one option is preferred", False, (ANSWER,)),
}


class Fault(Card):
    """A fault that fits every model, as its place is given by modules; trials and the book say how strong it is."""

    folder, in_words = "faults", "fault"
    name: str
    kind: Literal[*KINDS]
    module: Literal["V", "C", "L", "output"] = Field(description="vision tower, connector, LLM, semantic mapping")
    depth: float | None = Field(None, ge=0, le=1, description="of vision tower or LLM: 0 its first point, 1 its last")
    seed: int = Field(ge=0, description="of all that is drawn: noise, directions, channels, images")

    @model_validator(mode="after")
    def _possible(self):
        if self.module not in (possible := KINDS[self.kind].modules):
            raise ValueError(f"kind {self.kind!r} in module {self.module!r}: it is for {', '.join(possible)}")
        if (self.depth is None) == (self.module in WITH_DEPTH):
            mend = "give the depth, 0 to 1" if self.depth is None else "remove it: there is one place only"
            raise ValueError(f"depth of a fault in module {self.module!r}: {mend}")
        return self

    @property
    def destroys(self) -> bool:
        return KINDS[self.kind].destroys

    @property
    def expected(self) -> str:
        """The failure mode that the diagnosis should find; of a fault that keeps the class the read-out gap."""
        return MODE_OF[self.module if self.destroys else ANSWER]

    def place(self, points: list[str]) -> str | None:
        """The damaged one of a model's points, which are in order; None for the semantic mapping."""
        own, depth = [point for point in points if point[0] == self.module], 1.0 if self.depth is None else self.depth
        return own[int(depth * (len(own) - 1) + 0.5)] if self.module in MODULES else None


class Trial(Card):
    """What the benchmark plants: some of the faults at some of the strengths in every model on every data set."""

    folder, in_words = "trials", "trial"
    each: int = Field(ge=1, description="cases that destroy the class, and that keep it, of a model on a data set")
    destroying: list[PercentagePoints] = Field(min_length=1, description="losses of the reference measurement")
    keeping: list[PercentagePoints] = Field(min_length=1, description="losses of the answers")
    seed: int = Field(ge=0, description="of the draw")
    images: int = Field(ge=50, description="fresh phantoms that each case is measured on")
    strong: PercentagePoints = Field(description="a case is strong from this measured loss on")
    least_loss: float = Field(ge=0, le=100, description="pp: a smaller loss is no failure mode, however significant")

    def drawn(self, model: int, dataset: int, datasets: int) -> list[tuple[Fault, float]]:
        """The faults and strengths (points to be lost) of a model and a data set, by their numbers among all. Models go
        round the faults, from model to model the data sets change places, and from round to round the strengths: Latin
        squares, which cross fault, strength, data set and model, and so family, in balance whichever models are run."""
        found = []
        first = (model * datasets + (dataset + model) % datasets) * self.each
        for strengths, destroys in ((self.destroying, True), (self.keeping, False)):
            faults = [fault for fault in all_faults() if fault.destroys == destroys]
            order = np.random.default_rng([self.seed, destroys]).permutation(len(faults))
            for number in range(first, first + self.each):
                rounds, place = divmod(number, len(faults))
                strength = (place + rounds + rounds // len(strengths)) % len(strengths)
                found.append((faults[order[place]], strengths[strength]))
        return found


def all_faults() -> list[Fault]:
    """Every fault that has a card, in the order the data flows."""
    faults, order = [load_card(Fault, slug) for slug in slugs(Fault)], [*MODULES, ANSWER]
    return sorted(faults, key=lambda fault: (order.index(fault.module), fault.depth or 0))


load_trial = partial(load_card, Trial, "planted-faults")


def strengths(model: str, dataset: str, trial: bool) -> list[tuple[Fault, float]]:
    """The faults and how much each is to cost (pp): those of the book at each strength, or what the trial draws, by the
    model's place in data/book.yml and the set's among those of the releases' layouts: another set changes no draw."""
    book, sets = load_book(), [load_data_card(slug) for slug in slugs(DataCard)]
    known = [card.slug for card in sets if card.synthetic and card.layout != "folder"]
    if not trial:
        return [(fault, points) for fault in book_faults() for points in book.planted_faults.strengths.values()]
    place = book.all.index(model) if model in book.all else len(book.all)
    return load_trial().drawn(place, known.index(dataset) if dataset in known else 0, len(known))


def book_faults() -> list[Fault]:
    """Those that data/book.yml names, in the order the data flows. Raises InputError for one without a card."""
    check_named(Fault, named := load_book().planted_faults.faults, "It is named in data/book.yml.")
    return [fault for fault in all_faults() if fault.slug in named]


def laboratory_files() -> list[Path]:
    """The two files of the last benchmark run: those in outputs/ where there are any, else the project's own."""
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
    is_strongest: bool = False
    is_edited: bool = False  # whether its states are (`synthetic.editing`)

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
    def mode(self) -> str:
        return self.fault.expected


def damaged_models(models: Container[str]) -> list[DamagedModel]:
    """The damaged models of a run, in the order the data flows, the weakest first; none if it lacks the healthy one."""
    planted, found = load_book().planted_faults, []
    strengths = sorted(planted.strengths.items(), key=lambda item: item[1])
    for fault, (word, points) in itertools.product(book_faults() if planted.model in models else (), strengths):
        strongest = points == strengths[-1][1]
        edited = strongest and fault.slug in planted.edited
        found.append(DamagedModel(planted.model, fault, word, points, strongest, edited))
    return found


def damaged_selection(selection: Selection) -> Selection:
    """The results of a run's damaged models, on the phantom set of data/book.yml or else the first of the run, or the
    twin of real images: a fault's cost is measured on images drawn afresh."""
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
    for card in (card for card in map(load_data_card, datasets) if not card.synthetic):
        wrong = f"data set '{card.slug}' holds real images, of which no fresh ones can be drawn to measure a fault on"
        raise InputError(f"{wrong}: give '{phantom_twin(card).slug}', on which the model is then fine-tuned")
