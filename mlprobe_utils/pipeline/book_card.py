"""The card of the book: the models of `make book`, and in which of them faults are planted."""

from typing import Annotated

from pydantic import Field

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.settings import Part, Words
from mlprobe_utils.pipeline.cards import Card, DataCard, ModelCard, load_card, slugs


class PlantedFaults(Part):
    """In which model every fault is planted, on which images, and how strong."""

    model: Words = Field(description="slug of a model card; a run without it shows no planted faults")
    dataset: Words = Field(description="slug of a phantom set; of a run without it, the first one is taken")
    strengths: dict[Words, Annotated[float, Field(gt=0, le=100)]] = Field(
        min_length=1, description="in a word -> percentage points to be lost at the damaged place"
    )


class Book(Card):
    """What `make book` runs over; `configuration` refuses a model that is named twice."""

    folder, kind = "", "book"
    models: list[Words] = Field(min_length=1, description="of the default, by slug")
    all: list[Words] = Field(min_length=1, description="of MODELS=all")
    planted_faults: PlantedFaults


def load_book() -> Book:
    """The book's card. Raises InputError as `cards.load_card` does, and for a slug that has no card."""
    book, mend = load_card(Book, "book"), "It is named in data/book.yml."
    known = slugs(ModelCard)
    for slug in (*book.models, *book.all, book.planted_faults.model):
        if slug not in known:
            raise unknown("model", slug, known, mend)
    if (dataset := book.planted_faults.dataset) not in (known := slugs(DataCard)):
        raise unknown("data set", dataset, known, mend)
    return book
