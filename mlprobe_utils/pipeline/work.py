"""One model on one data set: what the steps of the pipeline share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import LoadedModel, identity_of, load, load_processor, load_random, reading_of
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import ModelCard, Protocol, load_model_card, load_protocol
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.results import Selection


@dataclass
class Work:
    """One model on one data set: what its artefacts are made from, and the model once it is needed."""

    card: ModelCard
    protocol: Protocol
    split: str
    image_set: ImageSet
    folder: Path
    identity: str
    _models: dict[Callable, LoadedModel] = field(default_factory=dict)  # by what loads; shared by a process's data sets
    _questions: dict[str, Questions] = field(default_factory=dict)  # by order; shared by what a model goes through

    @property
    def precision(self) -> str:
        """Of the model's weights, in every stage."""
        return self.card.precision or self.protocol.fine_tuning.precision

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

    def runs(self) -> range:
        return range(self.protocol.fine_tuning.runs)

    def states(self) -> list[int | None]:
        """None for the pretrained model, then the runs."""
        return [None, *self.runs()]

    def adapter_folder(self, run: int | None) -> Path | None:
        return None if run is None else self.folder / f"adapter-{run}"

    def step(self, what: str) -> AbstractContextManager[None]:
        """Announces the end of a step, once however many processes share it."""
        own = (self.card.slug, self.image_set.card.slug, what)
        return step(*own) if processes().is_main_process else nullcontext()

    def state(self, run: int | None) -> AbstractContextManager[None]:
        """While it lasts, the model is in this state."""
        return adapter(self.loaded, self.adapter_folder(run))

    def made_from(self, stage: str, run: int | None = None, upstream: Path | None = None, **recipe) -> dict:
        """Everything an artefact depends on; `upstream` is an artefact that it reads."""
        return {
            "stage": stage,
            "run": run,
            "model": self.identity,
            "reading": reading_of(self.card) | {"precision": self.precision},
            "data": self.image_set.data_hash,
            "split": self.split,
            "order": self.protocol.order,
            "upstream": artefacts.record_hash(upstream) if upstream else None,
            "recipe": recipe,
        }

    def constants(self, run: int | None) -> dict:
        """The columns that all rows of a state of the model share."""
        return {
            "model": self.card.slug,
            "dataset": self.image_set.card.slug,
            "data_hash": self.image_set.data_hash,
            "split": self.split,
            "stage": "pretrained" if run is None else "finetuned",
            "order": self.protocol.order,
            "run": run,
        }

    def images(self, *parts: str) -> pd.DataFrame:
        """The images of the named parts, in that order, index = position in the image set, with a column `part`."""
        return pd.concat([self.image_set.part(self.split, part).assign(part=part) for part in parts])


def works(model: str, datasets: list[str], protocol_slug: str, split: str) -> Iterator[Work]:
    """A model on each of some data sets; it is loaded once. Raises InputError as `run_model`."""
    card, protocol = load_model_card(model), load_protocol(protocol_slug)
    selection = Selection((model,), tuple(datasets), protocol_slug, split)
    identity, models = identity_of(card), {}
    for dataset in datasets:
        image_set = load_image_set(dataset, protocol_slug)
        yield Work(card, protocol, split, image_set, selection.folder(model, dataset), identity, models)


@contextmanager
def shared_artefact(folder: Path, made_from: dict) -> Iterator[Path]:
    """`artefacts.artefact` for all processes of a run: each fills the same temporary folder, the main one moves it."""
    state = processes()
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(artefacts.artefact(folder, made_from))
        state.wait_for_everyone()
        yield artefacts.partial_folder(folder)
        state.wait_for_everyone()
    state.wait_for_everyone()
