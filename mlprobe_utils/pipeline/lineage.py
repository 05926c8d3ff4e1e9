"""Model lineage: what a miniature stands for, which models others were adapted from, series and sizes."""

from collections.abc import Mapping
from importlib.metadata import version

import pandas as pd

from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs


def miniature(card: ModelCard) -> Artefact:
    """The checkpoint of a miniature, made from its recipe and its base's weights by one release of torch."""
    inputs = {"family": card.family, "recipe": card.recipe, "torch": version("torch")}
    upstream = (miniature(load_model_card(card.base)),) if card.base else ()
    return Artefact(artefacts.OUTPUTS / card.source, "miniature", inputs, upstream)


def original(card: ModelCard) -> ModelCard:
    """The card of the model that a miniature stands for; for any other card itself."""
    return next((other for other in map(load_model_card, slugs(ModelCard)) if other.source == card.miniature_of), card)


def bases(models: Mapping[str, ModelCard]) -> list[str]:
    """The slugs of those that another one was adapted from, in the order given."""
    return [slug for slug in models if slug in {card.base for card in models.values()}]


def series(models: Mapping[str, ModelCard]) -> dict[str, str]:
    """slug -> series in words for a page; a model whose original has none is a series of its own, by its name."""
    own = {slug: original(card).series for slug, card in models.items()}
    prefixes = {True: "miniatures of ", False: ""}
    return {s: prefixes[card.is_miniature] + own[s] if own[s] else card.name for s, card in models.items()}


def sizes(models: Mapping[str, ModelCard]) -> pd.DataFrame:
    """series and parameters (of the original), by name, where its card has both."""
    cards = {name: original(card) for name, card in models.items()}
    known = {name: (card.series, card.parameters) for name, card in cards.items() if card.series and card.parameters}
    return pd.DataFrame.from_dict(known, orient="index", columns=["series", "parameters"])


def paper_sizes() -> pd.DataFrame:
    """As `sizes`, of the models of Table 1, by their names there."""
    return sizes({card.table1: card for card in map(load_model_card, slugs(ModelCard)) if card.table1})
