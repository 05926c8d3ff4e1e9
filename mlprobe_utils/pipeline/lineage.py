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
    return next((other for other in _cards() if other.source == card.miniature_of), card)


def bases(models: Mapping[str, ModelCard]) -> list[str]:
    """The slugs of those that another one was adapted from, in the order given."""
    return [slug for slug in models if slug in {card.base for card in models.values()}]


def series(models: Mapping[str, ModelCard]) -> dict[str, str]:
    """slug -> series in words for a page; a model whose original has none is a series of its own, by its name."""
    found = {}
    for slug, card in models.items():
        own = original(card).series
        found[slug] = f"miniatures of {own}" if own and card.is_miniature else own or card.name
    return found


def sizes(models: Mapping[str, ModelCard]) -> pd.DataFrame:
    """series and parameters (of the original), by slug, where its card has both."""
    return _sizes({slug: original(card) for slug, card in models.items()})


def paper_sizes() -> pd.DataFrame:
    """As `sizes`, of the models of Table 1, by their names there."""
    return _sizes({card.table1: card for card in _cards() if card.table1})


def _cards() -> list[ModelCard]:
    return [load_model_card(slug) for slug in slugs(ModelCard)]


def _sizes(cards: Mapping[str, ModelCard]) -> pd.DataFrame:
    known = {name: (card.series, card.parameters) for name, card in cards.items() if card.series and card.parameters}
    return pd.DataFrame.from_dict(known, orient="index", columns=["series", "parameters"])
