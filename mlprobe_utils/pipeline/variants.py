"""The paper's discussions: which setting is varied in which models, and the rows of such variants. A variant is a model
once more, with one setting of the protocol changed: what differs is due to that, or to chance."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import pandas as pd
from pydantic import Field

from mlprobe_utils.common.settings import Words
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.pipeline import cards, results
from mlprobe_utils.pipeline.cards import Card, DataCard, ModelCard, Protocol, load_data_card, load_protocol, original
from mlprobe_utils.pipeline.results import ORDER, VISION_TOWER, Selection, Variant

SETTINGS = {ORDER: tuple(ORDERS), VISION_TOWER: ("lora", "frozen")}  # setting -> the values it can have
STATES = "states"  # what a discussion varies by interventions
TRAINABLE = ("all", "lora")  # what is trained of a vision tower alone: all of its weights, or LoRA


class Discussion(Card):
    """What is varied, and the models that it is varied in."""

    folder, in_words = "discussions", "discussion"
    title: Words
    # whether the vision tower is adapted, what it is trained by, the order of image and question, or states
    varies: Literal["vision_tower", "training", "order", "states"]
    models: list[Words] = Field(min_length=1, description="slugs of model cards; miniatures of them are included")
    datasets: list[Words] | None = Field(None, min_length=1, description="slugs; phantoms of them, too. None: all")


def load_discussion(slug: str) -> Discussion:
    """A discussion, by slug. Raises InputError as `load_card`, and for a model or data set that has no card."""
    card = cards.load_card(Discussion, slug)
    for kind, named in ((ModelCard, card.models), (DataCard, card.datasets or [])):
        cards.check_named(kind, named, f"It is one of the {kind.in_words}s in data/{Discussion.folder}/{slug}.yml.")
    return card


def discussions() -> list[Discussion]:
    """All discussions that have a card. Raises InputError as `load_discussion`."""
    return [load_discussion(slug) for slug in cards.slugs(Discussion)]


def taking_part(discussion: Discussion, models: Iterable[str]) -> list[str]:
    """Those of a run's models that take part: the discussion's and their miniatures; imported ones if they have it."""
    own = {slug: cards.imported(slug) for slug in models}
    own = [slug for slug, record in own.items() if not record or discussion.slug in record["discussions"]]
    return [slug for slug in own if original(cards.load_model_card(slug)).slug in discussion.models]


def discussed_on(discussion: Discussion, datasets: Iterable[str]) -> list[str]:
    """The data sets of a run that a discussion is about: all where it names none, the first where the run has none."""
    datasets = list(datasets)
    if discussion.datasets is None:
        return datasets
    layouts = {load_data_card(slug).layout for slug in discussion.datasets}
    return [slug for slug in datasets if load_data_card(slug).layout in layouts] or datasets[:1]


def variants(setting: str, protocol: Protocol) -> list[Variant]:
    """One of each value of a setting that is not the protocol's own."""
    return [Variant(setting, value) for value in SETTINGS.get(setting, ()) if value != _own(setting, protocol)]


def _own(setting: str, protocol: Protocol) -> str:
    return getattr(protocol if setting == ORDER else protocol.fine_tuning, setting)


def of_value(selection: Selection, setting: str, value: str) -> Selection:
    """The results under a value of a setting: a variant's, or the selection's own where the protocol has that value."""
    if value == _own(setting, load_protocol(selection.protocol)):
        return selection
    return replace(selection, variant=Variant(setting, value))


def tower_rows(selection: Selection, vision_tower: str) -> pd.DataFrame:
    """The final outputs' rows after fine-tuning with the vision tower adapted (`lora`) or `frozen`, same seeds."""
    rows, runs = results.prediction_rows(of_value(selection, VISION_TOWER, vision_tower)), _tower_runs(selection)
    return rows[(rows["stage"] == "finetuned") & rows["run"].isin(runs)].reset_index(drop=True)


def classifier_rows(selection: Selection) -> pd.DataFrame:
    """The rows of vision towers trained alone, validation and test images: `probe` is one of TRAINABLE."""
    names = [classifier_name(trainable, run) for trainable in TRAINABLE for run in _tower_runs(selection)]
    return results.gather(selection, names, "predictions.parquet", discussed=True)


def _tower_runs(selection: Selection) -> range:
    return range(load_protocol(selection.protocol).vision_training.runs)


def classifier_name(trainable: str, run: int) -> str:
    return f"classifier-{trainable}-{run}"
