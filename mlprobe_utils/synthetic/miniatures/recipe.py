"""What a model card's `recipe` says of a miniature: its shape, and the training stages that make it."""

from typing import Literal

from pydantic import Field, model_validator

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Count, Part, Rate, settings
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card

TEXT_ALONE = "medical sentences"
Text = Literal["general captions", "general questions", "medical captions", "medical questions", "medical sentences"]


class Tower(Part):  # of vision, or the LLM
    depth: Count
    width: Count
    feed_forward: Count
    heads: Count
    key_value_heads: Count | None = None


class Architecture(Part):
    vision: Tower
    llm: Tower
    llm_type: Literal["qwen2", "qwen3"] | None = None  # of a family whose LLMs differ (Hulu-Med)
    patch_size: Count
    side: Count  # pixels
    vocabulary: Count


class Stage(Part):  # of training
    title: str
    texts: list[Text] = Field(min_length=1)
    modalities: list[Literal["ultrasound", "ct", "xray"]] = Field(["ultrasound", "ct", "xray"], min_length=1)
    count: Count  # questions, of all texts and modalities together
    samples: Count | None = None  # answers drawn a question, of which correct ones are learned; none: all are taught
    train: list[Literal["vision tower", "connector", "LLM"]] = Field(min_length=1)
    epochs: Count
    batch_size: Count
    learning_rate: Rate

    @model_validator(mode="after")
    def _text_alone_is_alone(self):
        if TEXT_ALONE in self.texts and (self.texts != [TEXT_ALONE] or self.train != ["LLM"]):
            raise ValueError(f"{TEXT_ALONE!r} have no images: give them a stage of their own, with train: [LLM]")
        if self.samples and any(not text.endswith("questions") for text in self.texts):
            raise ValueError("samples need answers that are correct or not: texts has to name questions only")
        return self


class Recipe(Part):  # an adapted miniature has the weights of its base and no architecture of its own
    seed: int
    architecture: Architecture | None = None
    stages: list[Stage]  # none: random weights


def recipe_of(card: ModelCard) -> Recipe:
    """The recipe of a miniature's card. Raises InputError where there is none, a field of it is wrong, or the card has
    both or neither of base and architecture."""
    if card.recipe is None:
        raise InputError(f"'{card.slug}' is no miniature: its card has no recipe")
    file = f"data/models/{card.slug}.yml"
    recipe = settings(Recipe, f"{file}, recipe", card.recipe)
    if recipe.architecture and card.family is None:
        raise InputError(f"{file}: say of which family its class is (family)")
    if (recipe.architecture is None) == (card.base is None):
        raise InputError(f"{file}: give either a base or recipe.architecture")
    return recipe


def architecture_of(card: ModelCard) -> Architecture:
    """The shape of a miniature: its own, or the one of the base that it was adapted from. Raises as `recipe_of`."""
    return recipe_of(card).architecture or architecture_of(load_model_card(card.base))


def described(card: ModelCard) -> ModelCard:
    """A miniature's card with vision tower, LLM and stages from its recipe, connector and shape from its base. Raises
    InputError as `recipe_of`, and where the card says in words what its recipe or its base says already."""
    if card.recipe is None:
        return card
    recipe = recipe_of(card)
    if own := recipe.architecture:
        towers = {"vision_tower": own.vision, "llm": own.llm}  # number and unit stay on one line
        fields = {name: f"{tower.depth}\xa0blocks, width\xa0{tower.width}" for name, tower in towers.items()}
    else:
        fields = described(load_model_card(card.base)).model_dump(include={"vision_tower", "connector", "llm"})
    fields["training_stages"] = [stage.title for stage in recipe.stages] or ["none: random weights"]
    if twice := [field for field in fields if getattr(card, field) is not None]:
        raise InputError(f"data/models/{card.slug}.yml: remove {', '.join(twice)}: the recipe or the base says it")
    return card.model_copy(update=fields)
