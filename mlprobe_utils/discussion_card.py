"""Cards of the paper's discussions that need training of their own: what is varied, in which models. No torch."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from mlprobe_utils.cards import Card, ModelCard, Words, load_card, slugs
from mlprobe_utils.errors import unknown
from mlprobe_utils.lineage import original


class Discussion(Card):
    """One thing that is varied, and the models that it is varied in."""

    folder, kind = "discussions", "discussion"
    title: Words
    varies: Literal["vision_tower", "training", "order"] = Field(
        description="whether the vision tower is adapted, what it is trained by, or the order of image and question"
    )
    models: list[Words] = Field(min_length=1, description="slugs of model cards; a miniature stands for its original")


def load_discussion(slug: str) -> Discussion:
    """A discussion, by slug. Raises InputError as `cards.load_card` does, and for a model that has no card."""
    card = load_card(Discussion, slug)
    known = slugs(ModelCard)
    if foreign := [model for model in card.models if model not in known]:
        raise unknown("model", foreign[0], known, f"It is one of the models in data/{Discussion.folder}/{slug}.yml.")
    return card


def discussions() -> list[Discussion]:
    """All discussions that have a card, by their slugs. Raises InputError as `load_discussion` does."""
    return [load_discussion(slug) for slug in slugs(Discussion)]


def taking_part(discussion: Discussion, models: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
    """The models of a run that take part: those of the discussion and their miniatures; if it has none of them, all."""
    compared = {slug: card for slug, card in models.items() if original(card).slug in discussion.models}
    return compared or dict(models)
