"""Variants: a model once more, with one setting of the protocol changed, in a folder of its own.

Everything else is as in the protocol, so that what differs is due to the setting, or to chance.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlprobe_utils.evaluation.orders import ORDERS
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import Protocol, load_protocol
from mlprobe_utils.pipeline.results import CLASSIFIER, ORDER, VARIANT_RUNS, VISION_TOWER, Selection, made

SETTINGS = {ORDER: tuple(ORDERS), VISION_TOWER: ("lora", "frozen")}  # setting -> the values it can have
WAYS = ("all", "lora")  # of training a vision tower alone: all of its weights, or LoRA
COMMAND = "discuss"  # that makes variants


@dataclass(frozen=True)
class Variant:
    """One setting of SETTINGS, and its value."""

    setting: str
    value: str

    def changed(self, protocol: Protocol) -> Protocol:
        """The protocol with this setting. An order has one run, and the main probe alone, with all of its seeds."""
        if self.setting == VISION_TOWER:
            tuning, whole = {VISION_TOWER: self.value, "runs": protocol.vision_training.runs}, {}
        else:
            tuning, whole = {"runs": len(VARIANT_RUNS)}, {ORDER: self.value, "probe_variants": {}}
        return protocol.model_copy(update={"fine_tuning": protocol.fine_tuning.model_copy(update=tuning)} | whole)

    def states(self, protocol: Protocol) -> list[int | None]:
        """None for the pretrained model, then the runs; before it is trained, a tower that is frozen is none other."""
        return [*([None] if self.setting == ORDER else []), *range(self.changed(protocol).fine_tuning.runs)]

    def folder(self, of_model: Path) -> Path:
        return of_model / self.setting / self.value


def variants(setting: str, protocol: Protocol) -> list[Variant]:
    """One of each value of a setting that is not the protocol's own."""
    return [Variant(setting, value) for value in SETTINGS.get(setting, ()) if value != _own(setting, protocol)]


def of_value(selection: Selection, setting: str, value: str) -> Selection:
    """The results under a value of a setting: a variant's, or the selection's own where the protocol has that value."""
    if value == _own(setting, load_protocol(selection.protocol)):
        return selection
    plain = (selection.models, selection.datasets, selection.protocol, selection.split_rule)
    return VariantSelection(*plain, Variant(setting, value))


def _own(setting: str, protocol: Protocol) -> str:
    return getattr(protocol if setting == ORDER else protocol.fine_tuning, setting)


@dataclass(frozen=True)
class VariantSelection(Selection):
    """The results of a variant of each of the models."""

    variant: Variant
    made_by = COMMAND

    @property
    def states(self) -> list[int | None]:
        return self.variant.states(load_protocol(self.protocol))

    @property
    def runs(self) -> range:
        return range(len(self.states) - self.states.count(None))

    def folder(self, model: str, dataset: str) -> Path:
        return self.variant.folder(super().folder(model, dataset))


def tower_rows(selection: Selection, vision_tower: str) -> pd.DataFrame:
    """The final outputs' rows after fine-tuning with the vision tower adapted (`lora`) or `frozen`, of the same seeds.

    Raises InputError for a model and data set that was not run.
    """
    rows, runs = results.prediction_rows(of_value(selection, VISION_TOWER, vision_tower)), tower_runs(selection)
    return rows[(rows["stage"] == "finetuned") & rows["run"].isin(runs)].reset_index(drop=True)


def tower_runs(selection: Selection) -> range:
    """The runs of what is trained of a vision tower beyond the model's own fine-tuning."""
    return range(load_protocol(selection.protocol).vision_training.runs)


def classifier_rows(selection: Selection) -> pd.DataFrame:
    """The rows of vision towers trained alone, validation and test images, of all runs: `probe` is one of WAYS.

    Raises InputError for a model and data set that was not run.
    """
    names = [classifier_name(way, run) for way in WAYS for run in tower_runs(selection)]
    found = [(*place, name) for place in selection.folders() for name in names]
    places = [made(selection, model, dataset, folder / name, COMMAND) for model, dataset, folder, name in found]
    return pd.concat([pd.read_parquet(place / "predictions.parquet") for place in places], ignore_index=True)


def classifier_name(way: str, run: int) -> str:
    """The folder of a vision tower that was trained alone."""
    return f"{CLASSIFIER}-{way}-{run}"


def order_prompts(selection: Selection) -> pd.DataFrame:
    """order, model, dataset, prompt: the question exactly as each model read it, in every order of ORDERS.

    Raises InputError for a model and data set that was not run.
    """
    frames = [results.prompts(of_value(selection, ORDER, order)).assign(order=order) for order in ORDERS]
    return pd.concat(frames, ignore_index=True)[["order", "model", "dataset", "prompt"]]
