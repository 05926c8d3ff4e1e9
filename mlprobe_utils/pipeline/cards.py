"""Cards: validated YAML files that describe models, data sets and protocols; a file's name is the slug."""

import difflib
import functools
import json
import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar, get_args

import pandas as pd
import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.files import atomic_write, hash_of, read_record
from mlprobe_utils.common.settings import Count, Fraction, Health, Part, Rate, Words
from mlprobe_utils.datasets.settings import NOT_STATED, Images, Release, Splits
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.models.settings import Checkpoint
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import ROOT, Artefact, relative
from mlprobe_utils.probing.settings import Extraction, Interventions, Probe
from mlprobe_utils.training.settings import Answering, FineTuning, VisionTraining

CARDS = Path(os.environ.get("MLPROBE_CARDS", ROOT / "data"))
IMPORTED = "imported"  # the folder in outputs/ of models' results that came as a file
PUBLISHED = CARDS / "published"  # the paper's tables


class Card(Part):
    folder: ClassVar[str]  # of data/, where cards of this kind are
    in_words: ClassVar[str]
    slug: str

    @property
    def content_hash(self) -> str:
        return hash_of(self.model_dump(mode="json"))


class DataCard(Card, Release):
    """A data set: where it comes from, what it should hold, the question about its images."""

    folder, in_words = "datasets", "data set"
    licence: str
    source: str = NOT_STATED
    citation: str | None = None
    root: Words | None = None  # the folder or zip of the images; relative to the project's root. None: DATA
    made_by: str | None = None  # the command that makes a synthetic set
    recipe: dict | None = None  # what that command needs to know; validated there

    @property
    def synthetic(self) -> bool:
        return self.made_by is not None


class ModelCard(Card, Checkpoint):
    """A model: where its weights are, what it is (paper, Table S1), and for a miniature how it is made."""

    folder, in_words = "models", "model"
    name: str = Field(description="its name on pages")
    parameters: Count | None = Field(None, description="how many; counted if the weights are in a folder")
    architecture: Words | None = Field(None, description="file in data/architectures: its shape, without the weights")
    series: Words | None = Field(None, description="models that differ in size; a miniature has its original's")
    table1: Words | None = Field(None, description="its spelling in the paper's Table 1, if it is there")
    base: str | None = Field(None, description="the general model it was adapted from: a card's slug, or a hub id")
    vision_tower: Words | None = Field(None, description="its kind; a miniature's is given by the recipe")
    connector: Words | None = Field(None, description="its kind; a miniature without one has its base's")
    llm: Words | None = Field(None, description="the language model; a miniature's is given by the recipe")
    training_stages: list[Words] | None = Field(None, min_length=1, description="in order")
    licence: Words | None = Field(None, description="of the weights")
    notes: list[Words] | None = Field(None, min_length=1, description="what else a user should know before running it")
    miniature_of: str | None = Field(None, description="hub id of the model that this one stands in for")
    made_by: str | None = Field(None, description="module that makes a miniature")
    recipe: dict | None = Field(None, description="arguments of that module; validated there")

    @model_validator(mode="after")
    def _base_of_a_miniature_is_a_card(self):
        if self.made_by and "/" in (self.base or ""):
            raise ValueError(f"base is {self.base!r}, a hub id: miniatures are based on miniatures, give its slug")
        return self

    @property
    def called(self) -> str:
        return f"model card '{self.slug}'"

    @property
    def is_miniature(self) -> bool:
        return self.miniature_of is not None

    @property
    def is_untrained(self) -> bool:
        """Whether it is a miniature whose weights are random."""
        return self.recipe is not None and not self.recipe.get("stages")

    def located(self) -> str:
        if not self.made_by:
            return super().located()
        folder = artefacts.OUTPUTS / self.source
        if not (folder / "config.json").is_file():
            command = f"python -m mlprobe_utils {self.made_by} {self.slug}"
            raise InputError(f"{folder} does not exist: make it with `{command}`")
        return str(folder)

    @property
    def root(self) -> Path:
        return artefacts.ROOT


class Baselines(Part):
    """Training of the traditional classifiers (paper section 3.2, which follows Ren et al. 2025)."""

    variant: Literal["small", "full"] = Field(description="of each baseline's card; cards without it are left out")
    left_out: list[str] = Field(description="slugs of baselines that are not trained")
    pretrained: bool = Field(description="starts from hub weights instead of random ones (timm's models only)")
    side: Count = Field(description="pixels of the square input")
    crop_from: Rate = Field(description="minimum area share of random crops in training; 1: no crops")
    flip: Annotated[float, Field(ge=0, le=1)] = Field(description="probability of mirroring a training image")
    shorter_side: Count | None = Field(description="others are reduced to this before a centre crop; null: no crop")
    learning_rate: Rate = Field(description="peak rate of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW; 0: Adam")
    warmup_ratio: Fraction = Field(description="share of the steps with a rising rate; a cosine decay follows")
    max_gradient_norm: Annotated[float, Field(ge=0)] = Field(description="gradients are clipped to this norm; 0: never")
    epochs: Count = Field(description="passes over the training images")
    batch_size: Count = Field(description="images per step; the rest of an epoch is carried over to the next")
    chosen: Literal["last", "validation"] = Field(description="the epoch shown: the last, or the best on validation")
    runs: Count = Field(description="trainings that differ only in their seed")

    @model_validator(mode="after")
    def _middle_lies_inside(self):
        if self.shorter_side is not None and self.shorter_side < self.side:
            raise ValueError(f"shorter_side {self.shorter_side} is less than the side cut out of it, {self.side}")
        return self


class Protocol(Card):
    """All hyperparameters of a run."""

    folder, in_words = "protocols", "protocol"
    title: str
    order: Literal["image_first", "question_first"]
    images: Images
    splits: Splits
    fine_tuning: FineTuning
    vision_training: VisionTraining
    answering: Answering
    extraction: Extraction
    probe: Probe
    probe_seeds: int = Field(ge=5, description="of the main probes in states of `places.SEEDED`: fewer show no spread")
    probe_variants: dict[str, Probe] = Field({})  # name -> settings shown beside it; files hold changes to `probe`
    interventions: Interventions
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
        except ValidationError:  # which `probe` itself raises again
            return content | {"probe_variants": {}}
        complete = {name: probe | own if isinstance(own, dict) else own for name, own in variants.items()}
        return content | {"probe_variants": complete}

    @model_validator(mode="after")
    def _consistent(self):
        alone, tuned = self.vision_training.runs, self.fine_tuning.runs
        if alone > tuned:
            why = "a run is compared with the fine-tuning of its seed"
            raise ValueError(f"vision_training.runs {alone} is more than fine_tuning.runs {tuned}: {why}")
        if MAIN_PROBE in self.probe_variants:
            raise ValueError(f"probe_variants: {MAIN_PROBE!r} is reserved for `probe` itself, choose another name")
        return self

    @property
    def probes(self) -> dict[str, Probe]:
        """All probe settings by name, the one of scores and diagnosis first."""
        return {MAIN_PROBE: self.probe} | self.probe_variants


def recorded(part: BaseModel, exclude: set[str] | None = None) -> dict:
    """A block of settings as a record keeps it: without defaults, so that a new field makes nothing stale."""
    return part.model_dump(mode="json", exclude_defaults=True, exclude=exclude)


OfKind = TypeVar("OfKind", bound=Card)


class _OneKeyOnce(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """A YAML loader that refuses a key given twice, of which YAML itself keeps the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' is given twice (line {node.start_mark.line + 1} and below)")
        return super().construct_mapping(node, deep)


def parse_card(card_class: type[OfKind], path: Path, text: str | None = None) -> OfKind:
    """A card, from its file or a `text` for it. InputError: not YAML, a key unknown or missing, a wrong value."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8") if text is None else text, _OneKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{relative(path)} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{relative(path)} must hold keys and values, found {type(content).__name__}")
    if "slug" in content:
        raise InputError(f"{relative(path)}: remove the key 'slug', the file's name is the slug")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", path.stem):
        raise InputError(f"{relative(path)}: rename it to letters, digits and '._-': files and links have its name")
    try:
        # JSON, so that a whole number is valid as a fraction, and text never as a number
        return card_class.model_validate_json(json.dumps({"slug": path.stem} | content, default=str))
    except ValidationError as error:
        problems = "; ".join(_problem(card_class, problem) for problem in error.errors())
        raise InputError(f"{relative(path)}: {problems}") from error


def write_card(card_class: type[OfKind], path: Path, text: str) -> None:
    """Writes a card's file, once it is valid. Raises InputError as `parse_card`."""
    parse_card(card_class, path, text)
    atomic_write(path, text)


def _problem(card_class: type[BaseModel], problem: dict) -> str:
    """One validation problem in words: the field, what is wrong, the mend."""
    *parents, key = problem["loc"] or ("",)
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"the key '{place}' is missing: add it"
    if problem["type"] != "extra_forbidden":
        return f"{place + ': ' if place else ''}{problem['msg']} (found {problem['input']!r:.80})"
    model = card_class  # of the block that the key is in
    for part in parents:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        kinds = (annotation, *get_args(annotation))
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    fields = [name for name in model.model_fields if name != "slug"]
    near = difflib.get_close_matches(str(key), fields, n=1)
    return f"unknown key '{place}'" + (f", did you mean '{near[0]}'?" if near else f"; known: {', '.join(fields)}")


def _files(card_class: type[Card]) -> dict[str, Path]:
    """Slug -> file, of a class of cards: in data/, and of models whose results were imported in outputs/."""
    folders = [CARDS / card_class.folder, *([artefacts.OUTPUTS / IMPORTED] if card_class is ModelCard else [])]
    return {path.stem: path for folder in folders for path in folder.glob("*.yml")}


def slugs(card_class: type[Card]) -> list[str]:
    return sorted(_files(card_class))


def imported(slug: str) -> dict | None:
    """The record of a model whose results were imported (`exchange`); None for any other. InputError if damaged."""
    file = artefacts.OUTPUTS / IMPORTED / f"{slug}.json"
    if (record := read_record(file)) is None and file.is_file():
        raise InputError(f"{artefacts.relative(file)} is damaged: delete it, and import the results of '{slug}' again")
    return record


def check_named(card_class: type[Card], named: Iterable[str], mend: str) -> None:
    known = slugs(card_class)
    if missing := [slug for slug in named if slug not in known]:
        raise unknown(card_class.in_words, missing[0], known, mend)


def card_path(card_class: type[Card], slug: str) -> Path:
    return _files(card_class).get(slug, CARDS / card_class.folder / f"{slug}.yml")


@functools.cache
def load_card(card_class: type[OfKind], slug: str) -> OfKind:
    """A card of any kind, by slug. Raises InputError if there is none, or as `parse_card`."""
    check_named(card_class, [slug], f"A card of your own goes to data/{card_class.folder}/.")  # a name, never a path
    return parse_card(card_class, card_path(card_class, slug))


load_data_card = functools.partial(load_card, DataCard)  # by slug, as the others
load_model_card = functools.partial(load_card, ModelCard)
load_protocol = functools.partial(load_card, Protocol)


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


def sizes(models: Mapping[str, ModelCard]) -> pd.DataFrame:
    """series and parameters (of the original), by name, where its card has both."""
    cards = {name: original(card) for name, card in models.items()}
    known = {name: (card.series, card.parameters) for name, card in cards.items() if card.series and card.parameters}
    return pd.DataFrame.from_dict(known, orient="index", columns=["series", "parameters"])


def paper_sizes() -> pd.DataFrame:
    """As `sizes`, of the models of Table 1, by their names there."""
    return sizes({card.table1: card for card in map(load_model_card, slugs(ModelCard)) if card.table1})
