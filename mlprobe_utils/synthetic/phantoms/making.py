"""Makes a phantom set, or returns at once where it is current."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, slugs
from mlprobe_utils.pipeline.images import phantom
from mlprobe_utils.synthetic.phantoms import writing
from mlprobe_utils.synthetic.phantoms.marks import Shortcut

MADE_BY = "phantoms"  # the command


class Recipe(BaseModel):
    """The recipe block of a phantom's card."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    seed: Annotated[int, Field(ge=0)]
    side: Annotated[int, Field(ge=32, le=512)]  # pixels
    difficulty: Annotated[float, Field(ge=0, le=1)]
    shortcut: Shortcut | None = None


def read_recipe(card: DataCard) -> Recipe:
    """The validated recipe of a phantom's card.

    Raises:
        InputError: a key missing, unknown, of a wrong type or out of range; a shortcut in a class that the card has
            not.
    """
    try:
        recipe = Recipe.model_validate(card.recipe or {})
    except ValidationError as error:
        problems = "; ".join(
            f"recipe.{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise InputError(
            f"data/datasets/{card.slug}.yml: {problems}. A recipe holds seed (0 or more), side (32 to 512 pixels), "
            "difficulty (0, easy, to 1, hard) and, if one is to be planted, shortcut: its label and its agreement "
            "(0.5 to 1)."
        ) from error
    labels = [known.name for known in card.classes]
    if recipe.shortcut and recipe.shortcut.label not in labels:
        raise InputError(
            f"data/datasets/{card.slug}.yml: recipe.shortcut.label: '{recipe.shortcut.label}' is not a class of the "
            f"card. Classes: {', '.join(labels)}."
        )
    return recipe


def make(slug: str) -> Path:
    """Makes the phantom set of a data card unless it is current.

    Args:
        slug: of a data card whose `made_by` is this command.

    Returns:
        The artefact's folder, OUTPUTS/phantoms/SLUG, in the layout of the public release.

    Raises:
        InputError: no such card, not a phantom, a recipe that is not valid, or a class or split that is not known here.
    """
    card = load_data_card(slug)
    if card.made_by != MADE_BY:
        phantoms = [s for s in slugs(DataCard) if load_data_card(s).made_by == MADE_BY]
        raise InputError(f"'{slug}' is not a phantom, its images are not made here. Phantoms: {', '.join(phantoms)}.")
    recipe = read_recipe(card)
    for split in card.release_counts:
        if split not in writing.SPLITS:
            raise unknown("split", split, writing.SPLITS)
    if not (own := phantom(card)).is_current():
        with own.making() as partial:
            writing.write(card, recipe.seed, recipe.side, recipe.difficulty, recipe.shortcut, partial)
    return own.folder
