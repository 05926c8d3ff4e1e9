"""The card of the book: the models of `make book`, and in which of them faults are planted."""

from typing import Annotated

from pydantic import Field, model_validator

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.settings import Part, Words
from mlprobe_utils.pipeline.cards import Card, DataCard, ModelCard, load_card, slugs

BOOK, ALL = "book", "all"  # the card; what stands for the long list of models


class PlantedFaults(Part):
    """In which model every fault is planted, on which images, and how strong."""

    model: Words = Field(description="slug of a model card; a run without it shows no planted faults")
    dataset: Words = Field(description="slug of a phantom set; of a run without it, the first one is taken")
    strengths: dict[Words, Annotated[float, Field(gt=0, le=100)]] = Field(
        min_length=1, description="in a word -> percentage points to be lost at the damaged place"
    )


class Book(Card):
    """What `make book` runs over."""

    folder, kind = "", "book"
    models: list[Words] = Field(min_length=1, description="of the default, by slug")
    all: list[Words] = Field(min_length=1, description="of MODELS=all")
    planted_faults: PlantedFaults

    @model_validator(mode="after")
    def _named_once(self):
        for field in ("models", "all"):
            named = getattr(self, field)
            if twice := [slug for slug in named if named.count(slug) > 1]:
                raise ValueError(f"{field} names {twice[0]!r} twice: remove one")
        return self


def load_book() -> Book:
    """The book's card. Raises InputError as `cards.load_card` does, and for a model that has no card."""
    book, known = load_card(Book, BOOK), slugs(ModelCard)
    for slug in (*book.models, *book.all, book.planted_faults.model):
        if slug not in known:
            raise unknown("model", slug, known, "It is named in data/book.yml.")
    if (dataset := book.planted_faults.dataset) not in (known := slugs(DataCard)):
        raise unknown("data set", dataset, known, "It is named in data/book.yml.")
    return book
