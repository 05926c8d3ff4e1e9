"""The card of a traditional classifier, and its artefact: predictions after every epoch, and the network's size. The
paper names none of its 23 in a table: a card's `status` says how sure it is that its architecture is one of them."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Part, Words
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.names import CATEGORIES
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.pipeline.cards import Card, Protocol, check_named, load_card, recorded, slugs

STATUSES = {
    "cited": "the paper's text cites it",
    "likely": "the code of Ren et al., whose comparison the paper follows, imports it",
    "inferred": "a candidate for its category: the paper counts more methods than it cites",
}
STEP = "baselines"  # in which they are trained
FOLDER = "baselines-"  # and the split; beside the results of models
EPOCHS, NETWORK = "epochs.parquet", "network.json"


class Variant(Part):
    """One size of an architecture, and the call that builds it."""

    library: Literal["timm", "fastervit", "own"] = Field(description="own: a network of mlprobe_utils/baselines")
    name: Words = Field(description="of the model in its library (timm also: module.Class)")
    arguments: dict[str, Any] = Field({}, description="replace the library's defaults")
    sized: bool = Field(False, description="is built for one image size, given as img_size")


class BaselineCard(Card):
    """A traditional classifier in the size of its original (`full`), and in one that trains in seconds (`small`)."""

    folder, in_words = "baselines", "baseline"
    name: Words = Field(description="its name on pages")
    category: Literal["CNN", "MLP", "ViT", "hybrid"] = Field(description="of the paper's figure 1")
    status: Literal["cited", "likely", "inferred"] = Field(description="how certain it is that the paper includes it")
    source: Words = Field(description="who described it")
    note: Words | None = Field(None, description="special features: a licence, or a different build")
    full: Variant
    small: Variant | None = None

    def variant(self, which: str) -> Variant:
        if (variant := getattr(self, which)) is None:
            raise InputError(f"data/baselines/{self.slug}.yml has no {which} variant: add one, or choose 'full'")
        return variant


load_baseline = partial(load_card, BaselineCard)  # by slug


def all_baselines() -> list[BaselineCard]:
    """Every baseline that has a card, by category, status and name."""
    categories, statuses = [*CATEGORIES], [*STATUSES]
    cards = map(load_baseline, slugs(BaselineCard))
    return sorted(cards, key=lambda c: (categories.index(c.category), statuses.index(c.status), c.name))


def baselines_of(protocol: Protocol) -> list[BaselineCard]:
    """Those that a protocol trains. Raises InputError where it leaves out an unknown one, or a package is missing."""
    which, left_out = protocol.baselines.variant, protocol.baselines.left_out
    check_named(BaselineCard, left_out, f"See baselines.left_out of data/protocols/{protocol.slug}.yml.")
    chosen = [card for card in all_baselines() if getattr(card, which) and card.slug not in left_out]
    for card in chosen:
        check_installed(card, which)
    return chosen


def check_installed(card: BaselineCard, which: str) -> None:
    if card.variant(which).library == "fastervit" and find_spec("fastervit") is None:
        licence = f" ({card.note})" if card.note else ""
        mend = f"`pip install -e .[fastervit]`{licence}, or name it in baselines.left_out of the protocol"
        raise InputError(f"baseline '{card.slug}' needs the package fastervit, which is not installed: {mend}")


def baseline_folder(protocol: str, dataset: str, split_rule: str, slug: str = "") -> Path:
    """The folder of one baseline on one data set; without slug, of all of them."""
    return artefacts.OUTPUTS / protocol / dataset / f"{FOLDER}{split_rule}" / slug


def baseline_artefact(card: BaselineCard, protocol: Protocol, image_set: ImageSet, split_rule: str) -> Artefact:
    recipe = recorded(protocol.baselines, {"variant", "left_out", "chosen"})
    network = recorded(card.variant(protocol.baselines.variant))
    inputs = {"network": network, "data": image_set.data_hash, "split_rule": split_rule, "recipe": recipe}
    return Artefact(baseline_folder(protocol.slug, image_set.card.slug, split_rule, card.slug), "baseline", inputs)
