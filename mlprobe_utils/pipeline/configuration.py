"""What one `make book` runs over: checked before anything starts."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.settings import Count, Part, PercentagePoints, Words
from mlprobe_utils.evaluation.rows import SPLIT_RULES
from mlprobe_utils.pipeline import cards
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.cards import Card, DataCard, ModelCard, load_data_card, load_model_card
from mlprobe_utils.pipeline.results import Selection

ALL = "all"  # stands for the long list of models


class PlantedFaults(Part):
    faults: list[Words] = Field(min_length=1, description="slugs of fault cards")
    model: Words = Field(description="slug of a model card; runs without it show no planted faults")
    dataset: Words = Field(description="slug of a phantom set; runs without it use their first one")
    edited: list[Words] = Field([], description="slugs of faults that interventions analyse, at the greatest strength")
    strengths: dict[Words, PercentagePoints] = Field(min_length=1, description="name -> loss at the damaged place")


class Book(Card):
    """Which models `make book` runs over, and in which of them faults are planted."""

    folder, in_words = "", "book"
    models: list[Words] = Field(min_length=1, description="of the default, by slug")
    all: list[Words] = Field(min_length=1, description="of MODELS=all")
    planted_faults: PlantedFaults
    replication: Count = Field(description="number of the draw of fresh phantoms for the replication of headlines")


def load_book() -> Book:
    """The book's card. Raises InputError as `load_card`, and for a slug that has no card."""
    book = cards.load_card(Book, "book")
    named = {ModelCard: [*book.models, *book.all, book.planted_faults.model], DataCard: [book.planted_faults.dataset]}
    for kind, own in named.items():
        cards.check_named(kind, own, "It is named in data/book.yml.")
    return book


@dataclass(frozen=True)
class Run(Selection):
    """The results that a book selects, and where its real images are."""

    data: str  # a folder, absolute; empty where only phantoms are named

    def parameters(self) -> dict:
        """The parameters that every chapter takes; `data` relative to the project's root."""
        data = os.path.relpath(self.data, ROOT) if self.data else ""
        plain = {"models": [*self.models], "datasets": [*self.datasets], "protocol": self.protocol}
        return plain | {"split_rule": self.split_rule, "data": data}


def configure(models: Sequence[str], datasets: Sequence[str], protocol: str, split_rule: str, data: str) -> Run:
    """The run of these models (as of `models_of`) and data sets (none: all phantoms, or with `data`, the folder of the
    real images, the paper's). InputError for a slug unknown or given twice, a card not valid, a missing folder."""
    models = models_of(models)
    cards.load_protocol(protocol)
    if split_rule not in SPLIT_RULES:
        raise unknown("split rule", split_rule, SPLIT_RULES)
    folder = (ROOT / data).resolve()  # a chapter's own directory is notebooks/, a step's is outputs/
    if not folder.exists():
        raise InputError(f"DATA: there is no {folder}; give the folder that holds the images (see data/README.md)")
    sets = {slug: load_data_card(slug) for slug in datasets or cards.slugs(DataCard)}
    default = [slug for slug, card in sets.items() if card.synthetic != bool(data) and card.layout != "folder"]
    datasets = _once("DATASETS", datasets or default)
    if not data and (real := [slug for slug in datasets if not (sets[slug].synthetic or sets[slug].root)]):
        mend = "give DATA=<folder> or `root` in its card (data/README.md says what to download), or choose phantoms"
        raise InputError(f"'{real[0]}' is a real data set: {mend}, such as busi-phantom")
    return Run(models, datasets, protocol, split_rule, str(folder) if data else "")


def models_of(models: Sequence[str]) -> tuple[str, ...]:
    """The models of a run, by slug; for none the default of data/book.yml, for "all" its list `all`."""
    book = load_book()
    lists = {(): book.models, (ALL,): book.all}
    models = _once("data/book.yml" if tuple(models) in lists else "MODELS", lists.get(tuple(models), models))
    for slug in models:
        if slug == ALL:
            raise InputError(f"MODELS: '{ALL}' stands for a whole list: give it alone, or name models")
        if slug not in (known := cards.slugs(ModelCard)):
            raise unknown("model", slug, [ALL, *known], "A card of your own goes to data/models/.")
        load_model_card(slug)
    return models


def lineages(models: Iterable[str]) -> dict[str, list[str]]:
    """Miniatures to make for these models: those adapted from none -> themselves and their descendants, bases first."""
    made: dict[str, list[str]] = {}
    for slug in models:
        if load_model_card(slug).made_by:
            ancestry = [slug]
            while base := load_model_card(ancestry[0]).base:
                ancestry.insert(0, base)
            made[ancestry[0]] = list(dict.fromkeys([*made.get(ancestry[0], []), *ancestry]))
    return made


def _once(variable: str, given: Sequence[str]) -> tuple[str, ...]:
    if twice := [slug for slug in given if given.count(slug) > 1]:
        raise InputError(f"{variable} names '{twice[0]}' twice: remove one")
    return tuple(given)
