"""What the models are and what it takes to run them: Table S1 from the model cards, one card, the paper's own table."""

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from mlprobe_utils.book.book_pages import model_page
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card
from mlprobe_utils.pipeline.published import short
from mlprobe_utils.plots.tables import Table, captioned

BYTES = {"float32": 4, "bfloat16": 2}  # of a parameter


def model_table(cards: Iterable[ModelCard], of_run: Sequence[str]) -> Table:
    """A row a card, those of this run first and each with a link to its page.

    Args:
        cards: a miniature's as `miniatures.recipe.described` completes it.
        of_run: slugs, in the order of the run.

    Raises:
        InputError: a card's `base` that is neither a card nor a hub id.
    """
    places = {slug: place for place, slug in enumerate(of_run)}
    ordered = sorted(cards, key=lambda card: (places.get(card.slug, len(places)), card.name))
    rows = [{"model": _linked(card) if card.slug in places else _text(card.name)} | facts(card) for card in ordered]
    caption = "The models that have a card; a link leads to the page of a model of this run."
    return captioned(pd.DataFrame(rows), caption)


def card_table(card: ModelCard) -> Table:
    """One card, a row a fact. Raises InputError as `model_table` does."""
    known = {"slug": _text(card.slug), "revision": _text(card.revision)} | facts(card)
    rows = [(fact, value) for fact, value in known.items() if value]
    return captioned(pd.DataFrame(rows, columns=["", _text(card.name)]), f"From data/models/{_text(card.slug)}.yml.")


def facts(card: ModelCard) -> dict[str, str]:
    """The columns of Table S1 but for the name; before its last, what running takes and where the weights come from.

    HTML, empty where nothing is said. Raises InputError as `model_table` does.
    """
    count = parameters_of(card)
    return {
        "parameters": short(count) if count else "",
        "base model": _base(card),
        "vision tower": _text(card.vision_tower),
        "connector": _text(card.connector),
        "LLM": _text(card.llm),
        "to run it": _running(card, count),
        "licence": _text(card.licence),
        "source": _source(card),
        "training stages": _listed(card.training_stages or []),
    }


def parameters_of(card: ModelCard) -> int | None:
    """As the card says, or counted in the headers of the weights where they lie in a folder; None: not known."""
    if card.parameters:
        return card.parameters
    sizes = []
    for path in sorted(_folder(card).glob("*.safetensors")):
        with safe_open(path, "numpy") as opened:
            sizes += [math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118  (no dict)
    return sum(sizes) or None


def _folder(card: ModelCard) -> Path:
    """Where the weights lie, if they are in a folder; of a hub id a folder that does not exist."""
    return (artefacts.OUTPUTS if card.made_by else artefacts.ROOT) / Path(card.source).expanduser()


def _base(card: ModelCard) -> str:
    """The name of the base's card; a hub id as it is."""
    if card.base is None or "/" in card.base:
        return _text(card.base)
    return _text(load_model_card(card.base).name)


def _running(card: ModelCard, count: int | None) -> str:
    """Precision and memory of the weights (nothing where the precision is the protocol's), cap on pixels, gating."""
    said = []
    if card.precision:
        said += [card.precision]
        said += [f"{count * BYTES[card.precision] / 2**30:.1f} GiB of weights"] if count else []
    if card.max_pixels:
        said += [f"at most {card.max_pixels:,} pixels"]
    if card.gated:
        said += ["gated"]
    return ", ".join(words.replace(" ", "\N{NO-BREAK SPACE}") for words in said)  # breaks between, not within


def _source(card: ModelCard) -> str:
    """Where the weights come from; a folder is not named, as it may lie in somebody's home."""
    if card.miniature_of:
        return f"made here, in place of {_text(card.miniature_of)}"
    return "a folder of the machine that made this page" if _folder(card).is_dir() else _text(card.source)


def _linked(card: ModelCard) -> str:
    return f'<a href="{model_page(card.slug)}.html">{_text(card.name)}</a>'


def _listed(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f'<ol style="min-width:min(32em,50vw);margin:0">{items}</ol>' if texts else ""


def _text(text: str | None) -> str:
    return html.escape(text or "")
