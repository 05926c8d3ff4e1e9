"""Cards: validated YAML files that describe models, data sets and protocols. The file's name is the slug.

Nothing in code repeats a value that a card holds.
"""

import functools
import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.common.settings import Count, Fraction, Part, Rate, Words
from mlprobe_utils.datasets.settings import Images, Release, Splits
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.evaluation.settings import Health
from mlprobe_utils.models.settings import Checkpoint
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.card_files import parse_card
from mlprobe_utils.probing.settings import Extraction, Probe
from mlprobe_utils.training.settings import Answering, FineTuning, VisionTraining

CARDS = Path(os.environ.get("MLPROBE_CARDS", ROOT / "data"))
PUBLISHED = CARDS / "published"  # the paper's tables


class Card(BaseModel):
    """What all cards share: unknown keys refused, types exact, immutable, hashable by content."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    folder: ClassVar[str]  # of data/, where cards of this kind are
    kind: ClassVar[str]  # in words
    slug: str

    @property
    def content_hash(self) -> str:
        return hash_of(self.model_dump(mode="json"))


class DataCard(Card, Release):
    """A data set: where it comes from, what it should hold, how the model is asked about it."""

    folder, kind = "datasets", "data set"
    licence: str
    source: str
    citation: str
    made_by: str | None = None  # the command that makes a synthetic set
    recipe: dict | None = None  # what that command needs to know; validated there

    @property
    def synthetic(self) -> bool:
        return self.made_by is not None


class ModelCard(Card, Checkpoint):
    """A model: where its weights are, what it is (paper, Table S1), and for a miniature how it is made."""

    folder, kind = "models", "model"
    name: str = Field(description="as pages call it")
    parameters: Count | None = Field(None, description="how many; counted where the weights lie in a folder")
    architecture: Words | None = Field(None, description="file in data/architectures: its shape, without the weights")
    series: Words | None = Field(
        None, description="models of one name that differ in size; of a miniature its original's"
    )
    table1: Words | None = Field(None, description="how the paper's Table 1 spells it, if it stands there")
    base: str | None = Field(None, description="the general model it was adapted from: a card's slug, or a hub id")
    vision_tower: Words | None = Field(None, description="its kind; of a miniature the recipe says it")
    connector: Words | None = Field(None, description="its kind; a miniature without one has its base's")
    llm: Words | None = Field(None, description="the language model; of a miniature the recipe says it")
    training_stages: list[Words] | None = Field(None, min_length=1, description="what was taught, in order")
    licence: Words | None = Field(None, description="of the weights")
    miniature_of: str | None = Field(None, description="hub id of the model that this one stands in for")
    made_by: str | None = Field(None, description="module that makes a miniature")
    recipe: dict | None = Field(None, description="what that module needs to know; validated there")

    @model_validator(mode="after")
    def _base_of_a_miniature_is_a_card(self):
        if self.made_by and "/" in (self.base or ""):
            raise ValueError(f"base is {self.base!r}, a hub id: a miniature is made from another, give its card's slug")
        return self

    @property
    def called(self) -> str:
        return f"model card '{self.slug}'"

    @property
    def is_miniature(self) -> bool:
        return self.miniature_of is not None

    @property
    def is_untrained(self) -> bool:
        """A miniature whose recipe names no training: its weights are random."""
        return self.recipe is not None and not self.recipe.get("stages")

    def located(self) -> str:
        if not self.made_by:
            return super().located()
        folder = artefacts.OUTPUTS / self.source
        if not (folder / "config.json").is_file():
            command = f"python -m mlprobe_utils {self.made_by} {self.slug}"
            raise InputError(f"{folder} is not there: make it with `{command}`")
        return str(folder)

    @property
    def root(self) -> Path:
        return artefacts.ROOT


class Baselines(Part):
    """Training of the traditional classifiers (paper section 3.2, which follows Ren et al. 2025)."""

    variant: Literal["small", "full"] = Field(description="of each baseline's card; who has none is left out")
    left_out: list[str] = Field(description="baselines, by slug, that are not trained although they have the variant")
    pretrained: bool = Field(description="begins with weights from the hub instead of random ones (timm's models only)")
    side: Count = Field(description="pixels of the square that networks read")
    crop_from: Rate = Field(description="a training image is a piece of at least this share of its area; 1: all of it")
    flip: Annotated[float, Field(ge=0, le=1)] = Field(description="how often a training image is mirrored")
    shorter_side: Count | None = Field(
        description="pixels that other images are reduced to before their middle is cut out; null: all of it is read"
    )
    learning_rate: Rate = Field(description="of AdamW at its highest")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW, which without any is Adam")
    warmup_ratio: Fraction = Field(description="share of the steps in which the rate rises; it falls as a cosine then")
    max_gradient_norm: Annotated[float, Field(ge=0)] = Field(description="longer gradients are cut to it; 0: none is")
    epochs: Count = Field(description="passes over the training images")
    batch_size: Count = Field(description="images a step; what is left over at the end of an epoch waits for the next")
    chosen: Literal["last", "validation"] = Field(description="the epoch shown: the last, or the best on validation")
    runs: Count = Field(description="trainings with nothing but another seed")

    @model_validator(mode="after")
    def _middle_lies_inside(self):
        if self.shorter_side is not None and self.shorter_side < self.side:
            raise ValueError(f"shorter_side {self.shorter_side} is less than the side cut out of it, {self.side}")
        return self


class Protocol(Card):
    """All hyperparameters of a run."""

    folder, kind = "protocols", "protocol"
    title: str
    order: Literal["image_first", "question_first"]
    images: Images
    splits: Splits
    fine_tuning: FineTuning
    vision_training: VisionTraining
    answering: Answering
    extraction: Extraction
    probe: Probe
    probe_seeds: Annotated[int, Field(ge=5)] = Field(
        description="of the main recipe, at every point of the states whose recipe is asked for: fewer tell no spread"
    )
    probe_variants: dict[str, Probe] = {}  # name -> recipe shown beside it; in the file only what differs from `probe`
    baselines: Baselines
    health: Health

    @model_validator(mode="before")
    @classmethod
    def _complete_variants(cls, content):
        probe, variants = content.get("probe"), content.get("probe_variants")
        if not isinstance(probe, dict) or not isinstance(variants, dict):
            return content
        try:
            Probe.model_validate(probe)
        except ValidationError:  # is said of `probe` itself, once
            return content | {"probe_variants": {}}
        complete = {name: probe | own if isinstance(own, dict) else own for name, own in variants.items()}
        return content | {"probe_variants": complete}

    @model_validator(mode="after")
    def _what_is_frozen_has_its_like(self):
        if self.vision_training.runs > self.fine_tuning.runs:
            raise ValueError(
                f"vision_training.runs {self.vision_training.runs} is more than fine_tuning.runs "
                f"{self.fine_tuning.runs}: a run is compared with the fine-tuning of its seed"
            )
        return self

    @model_validator(mode="after")
    def _main_probe_is_no_variant(self):
        if MAIN_PROBE in self.probe_variants:
            raise ValueError(f"probe_variants: {MAIN_PROBE!r} is the name of `probe` itself, choose another")
        return self

    @property
    def probes(self) -> dict[str, Probe]:
        """All probe recipes by name: the one of scores and diagnosis first, then those shown beside it."""
        return {MAIN_PROBE: self.probe} | self.probe_variants


def recorded(part: BaseModel, exclude: set[str] | None = None) -> dict:
    """A block of settings as a record keeps it: a field that is new changes nothing as long as it has its default."""
    return part.model_dump(mode="json", exclude_defaults=True, exclude=exclude)


OfKind = TypeVar("OfKind", bound=Card)


def slugs(card_class: type[Card]) -> list[str]:
    """The slugs of all cards of a kind, sorted."""
    return sorted(path.stem for path in (CARDS / card_class.folder).glob("*.yml"))


def card_path(card_class: type[Card], slug: str) -> Path:
    return CARDS / card_class.folder / f"{slug}.yml"


@functools.cache
def load_card(card_class: type[OfKind], slug: str) -> OfKind:
    """A card of any kind, by slug.

    Raises:
        InputError: no such card, or the card is not valid; the message says which field and how to mend it.
    """
    known = slugs(card_class)
    if slug not in known:  # a slug is a name, never a path
        raise unknown(card_class.kind, slug, known, f"A card of your own goes to data/{card_class.folder}/.")
    return parse_card(card_class, card_path(card_class, slug))


def load_data_card(slug: str) -> DataCard:
    """The card of a data set, by slug. Raises InputError as `load_card` does."""
    return load_card(DataCard, slug)


def load_model_card(slug: str) -> ModelCard:
    """The card of a model, by slug. Raises InputError as `load_card` does."""
    return load_card(ModelCard, slug)


def load_protocol(slug: str) -> Protocol:
    """A protocol, by slug. Raises InputError as `load_card` does."""
    return load_card(Protocol, slug)
