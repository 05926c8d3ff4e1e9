"""Cards of the paper's discussions that need training of their own: what is varied, in which models."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.settings import Words
from mlprobe_utils.pipeline.cards import Card, DataCard, ModelCard, load_card, load_data_card, load_model_card, slugs
from mlprobe_utils.pipeline.lineage import original


class Discussion(Card):
    """One thing that is varied, and the models that it is varied in."""

    folder, kind = "discussions", "discussion"
    title: Words
    varies: Literal["vision_tower", "training", "order"] = Field(
        description="whether the vision tower is adapted, what it is trained by, or the order of image and question"
    )
    models: list[Words] = Field(min_length=1, description="slugs of model cards; a miniature stands for its original")
    datasets: list[Words] | None = Field(
        None, min_length=1, description="slugs of data cards, without it all; a phantom set stands for the real one"
    )


def load_discussion(slug: str) -> Discussion:
    """A discussion, by slug. Raises InputError as `cards.load_card`, and for a model or data set that has no card."""
    card = load_card(Discussion, slug)
    for what, kind, named in (("model", ModelCard, card.models), ("data set", DataCard, card.datasets or [])):
        known = slugs(kind)
        if foreign := [name for name in named if name not in known]:
            place = f"It is one of the {what}s in data/{Discussion.folder}/{slug}.yml."
            raise unknown(what, foreign[0], known, place)
    return card


def discussions() -> list[Discussion]:
    """All discussions that have a card, by their slugs. Raises InputError as `load_discussion` does."""
    return [load_discussion(slug) for slug in slugs(Discussion)]


def taking_part(discussion: Discussion, models: Iterable[str]) -> list[str]:
    """The models of a run, by slug, that take part: those of the discussion and their miniatures, or none."""
    return [slug for slug in models if original(load_model_card(slug)).slug in discussion.models]


def discussed_on(discussion: Discussion, datasets: Iterable[str]) -> list[str]:
    """The data sets of a run that a discussion is about: all where it names none, the first where the run has none."""
    datasets = list(datasets)
    if discussion.datasets is None:
        return datasets
    layouts = {load_data_card(slug).layout for slug in discussion.datasets}
    return [slug for slug in datasets if load_data_card(slug).layout in layouts] or datasets[:1]
