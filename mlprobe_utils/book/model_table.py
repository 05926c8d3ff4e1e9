"""What the models are and what it takes to run them: Table S1 from the model cards, one card, the paper's own table."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from mlprobe_utils.book.book_pages import model_page
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import Images, ModelCard, Protocol, load_model_card
from mlprobe_utils.pipeline.published import published_config, short
from mlprobe_utils.pipeline.results import tensor_sizes
from mlprobe_utils.plots.tables import Table, captioned

BYTES = {"float32": 4, "bfloat16": 2}  # of a parameter


def model_table(cards: Iterable[ModelCard], of_run: Sequence[str]) -> Table:
    """A row per card (a miniature's as `recipe.described` completes it); those of this run come first, with a link to
    their page. Raises InputError for a `base` that is neither a card nor a hub id."""
    places, rows = {slug: place for place, slug in enumerate(of_run)}, []
    for card in sorted(cards, key=lambda card: (places.get(card.slug, len(places)), card.name)):
        name = html.escape(card.name)
        link = f'<a href="{model_page(card.slug)}.html">{name}</a>'
        rows.append({"model": link if card.slug in places else name} | facts(card))
    caption = "All models with a card; those of this run link to their page."
    return captioned(pd.DataFrame(rows), caption)


def first_met(cards: Iterable[ModelCard], protocol: Protocol) -> Table:
    """What a user should know of each model, a row per card: access, size, pixels, thoughts, licence and notes."""
    rows = []
    for card in cards:
        count, memory, most = parameters_of(card), gibibytes(card), card.max_new_tokens
        times = most and most / protocol.answering.max_new_tokens
        known = {
            "model": card.name,
            "access": "gated: accept its terms" if card.gated else "open",
            "size": ", ".join(filter(None, [count and short(count), memory and f"{memory} in {card.precision}"])),
            "image size": pixels_read(card, protocol.images) or f"at most {protocol.images.max_pixels:,} pixels",
            "answer": f"thinks first: up to {most:,} tokens, {times:.0f} times the protocol's" if most else "direct",
            "licence": card.licence or "not stated",
            "notes": "; ".join(card.notes or []),
        }
        rows.append({name: html.escape(text) for name, text in known.items()})
    caption = f"From the model cards; image sizes and answers for the protocol '{protocol.slug}'."
    return captioned(pd.DataFrame(rows), caption)


def pixels_read(card: ModelCard, images: Images) -> str:
    """The size at which a model reads an image, in words; empty where that is the size it is given."""
    shape = published_config(card.architecture) if card.architecture else {}
    if side := shape.get("vision_config", {}).get("image_size"):  # LLaVA and Gemma 3 read all images at it
        return f"{side} × {side} pixels" + (", padded to a square" if card.pad_to_square else "")
    given = images.square_side**2 if images.square_side else images.max_pixels
    return f"at most {card.max_pixels:,} pixels" if card.max_pixels and card.max_pixels < given else ""


def pixel_words(cards: Iterable[ModelCard], images: Images) -> str:
    """The size of the images that models are given, and which of them read another, for a page that compares them."""
    side = images.square_side
    given = f"{side} × {side} pixels" if side else f"at most {images.max_pixels:,} pixels, proportions kept"
    others = [f"{card.name}, {own}" for card in cards if (own := pixels_read(card, images))]
    words = f"; resized by the model: {'; '.join(others)}" if others else ""
    return f"All models receive images of {given}{words}."


def card_table(card: ModelCard) -> Table:
    """One card, a row per fact. Raises InputError as `model_table` does."""
    slug, revision = html.escape(card.slug), html.escape(card.revision or "")
    known = pd.Series({"slug": slug, "revision": revision} | facts(card), name=html.escape(card.name))
    return captioned(known[known != ""].rename_axis("").reset_index(), f"From data/models/{slug}.yml.")


def facts(card: ModelCard) -> dict[str, str]:
    """The columns of Table S1 but for the name, with what running takes and where the weights come from; HTML, empty
    where the card gives nothing. Raises InputError as `model_table` does."""
    count, memory = parameters_of(card), gibibytes(card)
    of_card = card.base and "/" not in card.base  # else a hub id
    source = "a local folder" if _folder(card).is_dir() else card.source
    to_run = [card.precision, memory and f"{memory} of weights"]  # no precision: the protocol's
    to_run += [card.max_pixels and f"at most {card.max_pixels:,} pixels", card.gated and "gated"]
    texts = {
        "parameters": short(count) if count else "",
        "base model": load_model_card(card.base).name if of_card else card.base,
        "vision tower": card.vision_tower,
        "connector": card.connector,
        "LLM": card.llm,
        # lines break between, not within
        "requirements": ", ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in to_run if text),
        "licence": card.licence,
        "source": f"trained here, in place of {card.miniature_of}" if card.made_by else source,
    }
    items = "".join(f"<li>{html.escape(stage)}</li>" for stage in card.training_stages or [])
    stages = f'<ol style="min-width:min(32em,50vw);margin:0">{items}</ol>' if items else ""
    return {name: html.escape(text or "") for name, text in texts.items()} | {"training stages": stages}


def gibibytes(card: ModelCard) -> str:
    """The memory of the weights; empty where their number or precision is not known."""
    count = parameters_of(card)
    return f"{count * BYTES[card.precision] / 2**30:.1f} GiB" if card.precision and count else ""


def parameters_of(card: ModelCard) -> int | None:
    """As the card says, or counted in the headers of the weights where they lie in a folder; None: not known."""
    weights = _folder(card).glob("*.safetensors")
    return card.parameters or sum(sum(tensor_sizes(file).values()) for file in weights) or None


def _folder(card: ModelCard) -> Path:
    """Where the weights lie, if they are in a folder; of a hub id a folder that does not exist."""
    return (artefacts.OUTPUTS if card.made_by else artefacts.ROOT) / Path(card.source).expanduser()
