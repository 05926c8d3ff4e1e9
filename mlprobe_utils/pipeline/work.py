"""One model on one data set, with the model loaded: what the steps of the pipeline share."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate.utils import broadcast_object_list

from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.evaluation.rows import image_rows
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import LoadedModel, load, load_processor, load_random
from mlprobe_utils.pipeline.artefacts import Artefact, partial_folder
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.places import Place, places


@dataclass
class Work(Place):
    """A place, and the model, which is loaded at its first use."""

    _models: dict[Callable, LoadedModel] = field(default_factory=dict)  # by what loads; shared by a process's data sets
    _questions: dict[str, Questions] = field(default_factory=dict)  # by order; shared by what a model goes through

    def _model(self, loader: Callable[[ModelCard, str], LoadedModel]) -> LoadedModel:
        if loader not in self._models:
            self._models[loader] = loader(self.card, self.precision)
        return self._models[loader]

    @property
    def loaded(self) -> LoadedModel:
        return self._model(load)

    @property
    def random(self) -> LoadedModel:
        return self._model(load_random)

    @property
    def options(self) -> list[str]:
        return self.image_set.card.options

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(load_processor(self.card), self.image_set.card.template, self.protocol.order, self.card)

    @property
    def questions(self) -> Questions:
        """Of all images of the data set."""
        if (order := self.protocol.order) not in self._questions:
            self._questions[order] = Questions(self.encoder, self.image_set.pixels, self.image_set.names)
        return self._questions[order]

    def forget(self) -> None:
        """Releases the model: FSDP has spread it over the processes, or another needs its memory."""
        self._models.clear()

    def step(self, what: str) -> AbstractContextManager[None]:
        """Announces the end of a step, once for all processes."""
        names = self.card.slug, self.image_set.card.slug, what
        return step(*names) if processes().is_main_process else nullcontext()

    def state(self, run: int | None) -> AbstractContextManager[None]:
        """While it lasts, the model is in this state."""
        return adapter(self.loaded, None if run is None else self.adapter(run).folder)

    def constants(self, run: int | None) -> dict:
        """The columns that all rows of a state of the model share."""
        found = {"model": self.card.slug, "dataset": self.image_set.card.slug, "data_hash": self.image_set.data_hash}
        found |= {"split_rule": self.split_rule, "stage": "pretrained" if run is None else "finetuned"}
        found |= {"order": self.protocol.order, "run": run}
        return found | ({"model": self.planted.slug, "fault": self.planted.fault.slug} if self.planted else {})

    def rows(self, run: int | None, images: pd.DataFrame, probabilities: np.ndarray | None, /, **more) -> pd.DataFrame:
        """As `image_rows`, of a state of the model."""
        return image_rows(images, self.options, probabilities, **self.constants(run) | more)

    def images(self, *splits: str) -> pd.DataFrame:
        """The images of some splits (none given: of all), index = position in the image set, with `split`."""
        splits = splits or ("train", "validation", "test")
        return pd.concat([self.image_set.rows_of(self.split_rule, split).assign(split=split) for split in splits])


def works(model: str, datasets: list[str], protocol_slug: str, split_rule: str) -> list[Work]:
    """`places`, with a model that is loaded once for all of them. Raises InputError as `places`."""
    models, found = {}, places(model, datasets, protocol_slug, split_rule)
    return [Work(**vars(place), _models=models) for place in found]


def make(own: Artefact, fill: Callable[[Path], None]) -> None:
    """`Artefact.make` for all processes of a run, which fill one temporary folder; the main one moves it."""
    state = processes()

    def agreed(due: bool | None = None) -> bool:
        return broadcast_object_list([due])[0]

    def together(folder: Path) -> None:
        agreed(True)
        fill(folder)
        state.wait_for_everyone()

    if state.is_main_process:
        if not own.make(together):
            agreed(False)
    elif agreed():
        fill(partial_folder(own.folder))
        state.wait_for_everyone()
    state.wait_for_everyone()


def makes(artefact_of: Callable[..., Artefact], each: Callable[[Work], Iterable] | None = None, alone: bool = False):
    """Turns a function that fills a folder into one that makes an artefact of a work (or one of `each` run), where it
    is not current: by all processes together, or by the main one `alone`. What else is given goes to both."""

    def decorate(fill: Callable[..., None]) -> Callable[..., None]:
        @wraps(fill)
        def make_them(work: Work, *given) -> None:
            if alone and not processes().is_main_process:
                return
            for own in [(run,) for run in each(work)] if each else [given]:
                (Artefact.make if alone else make)(artefact_of(work, *own), partial(fill, work, *own))

        return make_them

    return decorate
