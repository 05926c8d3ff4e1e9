"""One model on one data set: what the steps of the pipeline share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import LoadedModel, load, load_processor, load_random
from mlprobe_utils.pipeline.artefacts import Artefact, partial_folder
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.places import Place, places


@dataclass
class Work(Place):
    """A place, and the model once it is needed."""

    _models: dict[Callable, LoadedModel] = field(default_factory=dict)  # by what loads; shared by a process's data sets
    _questions: dict[str, Questions] = field(default_factory=dict)  # by order; shared by what a model goes through

    @property
    def loaded(self) -> LoadedModel:
        return self._model(load)

    @property
    def random(self) -> LoadedModel:
        """The same model with random weights."""
        return self._model(load_random)

    def _model(self, loader: Callable[[ModelCard, str], LoadedModel]) -> LoadedModel:
        if loader not in self._models:
            self._models[loader] = loader(self.card, self.precision)
        return self._models[loader]

    @property
    def options(self) -> list[str]:
        """The answers that the question offers, in the data card's order."""
        return self.image_set.card.options

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(load_processor(self.card), self.image_set.card.template, self.protocol.order)

    @property
    def questions(self) -> Questions:
        """Of all images of the data set."""
        if self.protocol.order not in self._questions:
            self._questions[self.protocol.order] = Questions(self.encoder, self.image_set.pixels)
        return self._questions[self.protocol.order]

    def forget(self) -> None:
        """Lets go of the model: training under FSDP has spread it over the processes, or another needs its place."""
        self._models.clear()

    def step(self, what: str) -> AbstractContextManager[None]:
        """Announces the end of a step, once however many processes share it."""
        names = self.card.slug, self.image_set.card.slug, what
        return step(*names) if processes().is_main_process else nullcontext()

    def state(self, run: int | None) -> AbstractContextManager[None]:
        """While it lasts, the model is in this state."""
        return adapter(self.loaded, self.adapter_folder(run))

    def constants(self, run: int | None) -> dict:
        """The columns that all rows of a state of the model share."""
        planted = {"model": self.planted.slug, "fault": self.planted.fault.slug} if self.planted else {}
        return {
            "model": self.card.slug,
            "dataset": self.image_set.card.slug,
            "data_hash": self.image_set.data_hash,
            "split_rule": self.split_rule,
            "stage": "pretrained" if run is None else "finetuned",
            "order": self.protocol.order,
            "run": run,
        } | planted

    def images(self, *splits: str) -> pd.DataFrame:
        """The images of some splits (none given: of all), index = position in the image set, with `split`."""
        splits = splits or ("train", "validation", "test")
        return pd.concat([self.image_set.rows_of(self.split_rule, split).assign(split=split) for split in splits])


def works(model: str, datasets: list[str], protocol_slug: str, split_rule: str) -> list[Work]:
    """`places`, with one model that is loaded once."""
    models = {}
    found = places(model, datasets, protocol_slug, split_rule)
    return [Work(*(getattr(place, own.name) for own in fields(Place)), models) for place in found]


@contextmanager
def shared(artefact: Artefact) -> Iterator[Path]:
    """`Artefact.making` for all processes of a run: each fills the same temporary folder, the main one moves it."""
    state = processes()
    with artefact.making() if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        yield partial_folder(artefact.folder)
        state.wait_for_everyone()
    state.wait_for_everyone()
