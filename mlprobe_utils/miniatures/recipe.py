"""What a model card's `recipe` says of a miniature: its shape, and the training stages that make it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlprobe_utils.cards import ModelCard
from mlprobe_utils.errors import InputError

Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tower(_Strict):
    """Depth and widths of the vision tower or the LLM."""

    depth: Count
    width: Count
    feed_forward: Count
    heads: Count
    key_value_heads: Count | None = None


class Architecture(_Strict):
    vision: Tower
    llm: Tower
    patch_size: Count
    side: Count  # pixels
    vocabulary: Count


class Stage(_Strict):
    """One training stage: which captioned images, which modules learn, how."""

    title: str
    images: Literal["general", "medical"]
    count: Count
    train: list[Literal["vision tower", "connector", "LLM"]] = Field(min_length=1)
    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class Recipe(_Strict):
    """A base miniature has an architecture; an adapted one takes its base's weights and has none."""

    seed: int
    architecture: Architecture | None = None
    stages: list[Stage] = Field(min_length=1)


def recipe_of(card: ModelCard) -> Recipe:
    """The validated recipe of a miniature's card.

    Raises:
        InputError: the card has no recipe, or one with a wrong field, or both or neither of base and architecture.
    """
    if card.recipe is None:
        raise InputError(f"'{card.slug}' is no miniature: its card has no recipe")
    try:
        recipe = Recipe.model_validate(card.recipe)
    except ValidationError as error:
        problems = "; ".join(f"recipe.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise InputError(f"data/models/{card.slug}.yml: {problems}") from error
    if (recipe.architecture is None) == (card.base is None):
        raise InputError(f"data/models/{card.slug}.yml: give either a base or recipe.architecture")
    return recipe
