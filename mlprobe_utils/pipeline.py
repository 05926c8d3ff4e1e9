"""The heavy work for one model, on all its data sets, in one process: adapter, predictions, features, probes.

Every step is an artefact that is skipped where it is current: a rerun redoes exactly what changed, and a killed run
goes on where it was. `python -m mlprobe_utils.pipeline MODEL --datasets D ... --protocol P`, or the same behind
`accelerate launch -m` in several processes on several devices.
"""

import argparse
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from mlprobe_utils import artefacts
from mlprobe_utils.artefacts import write_parquet
from mlprobe_utils.cards import ModelCard, Protocol, load_model_card, load_protocol
from mlprobe_utils.claims import CONTROL_RUN
from mlprobe_utils.controls import ROWS, SCORES, TASK, control_scores, write_image_controls
from mlprobe_utils.datasets.image_set import SPLITS, ImageSet, load_image_set
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.errors import run_command
from mlprobe_utils.extraction import FEATURES, extract, load_features
from mlprobe_utils.fine_tuning import adapter, fine_tune
from mlprobe_utils.loading import RANDOM_SEED, LoadedModel, identity_of, load, load_processor, load_random, reading_of
from mlprobe_utils.metrics import output_scores, probe_scores
from mlprobe_utils.pipeline_steps import STEPS
from mlprobe_utils.prediction import predict
from mlprobe_utils.probe_controls import probed_rows, text_only_rows
from mlprobe_utils.probes import fit_probes
from mlprobe_utils.processes import processes, sharded, shared_artefact
from mlprobe_utils.progress import step
from mlprobe_utils.results import CONTROLS, RANDOM_FEATURES, Selection, image_controls, state_name
from mlprobe_utils.rows import image_rows, write_rows


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


def run_model(model: str, datasets: list[str], protocol_slug: str, split: str) -> None:
    """Makes every artefact of a model on some data sets that is not there and current.

    Raises:
        InputError: an unknown slug, a data set whose manifest or a model whose weights are not there.
    """
    everything = list(works(model, datasets, protocol_slug, split))
    first, *steps = STEPS
    for work in everything:
        with work.step(first):
            make_random_features(work)
    everything[0].forget()
    actions = (make_adapters, make_predictions, make_features, make_probes, make_scores, make_controls)
    for work in everything:
        for name, action in zip(steps, actions, strict=True):
            with work.step(name):
                action(work)


def works(model: str, datasets: list[str], protocol_slug: str, split: str) -> Iterator[Work]:
    """A model on each of some data sets; it is loaded once. Raises InputError as `run_model`."""
    card, protocol = load_model_card(model), load_protocol(protocol_slug)
    selection = Selection((model,), tuple(datasets), protocol_slug, split)
    identity, models = identity_of(card), {}
    for dataset in datasets:
        image_set = load_image_set(dataset, protocol_slug)
        yield Work(card, protocol, split, image_set, selection.folder(model, dataset), identity, models)


def make_random_features(work: Work) -> None:
    code = [artefacts.code_hash("mlprobe_utils.extraction"), artefacts.source_hash(Work, make_random_features)]
    made_from = work.made_from("random features", seed=RANDOM_SEED, code=code) | {"prompt": work.encoder.prompt}
    folder = work.folder / RANDOM_FEATURES
    if artefacts.is_current(folder, made_from):
        return
    positions = list(work.images("train", "validation", "test").index)
    with shared_artefact(folder, made_from) as temporary:
        extract(work.random, work.encoder, work.image_set, positions, work.protocol.extraction, temporary)


def make_adapters(work: Work) -> None:
    recipe = work.protocol.fine_tuning.model_copy(update={"precision": work.precision})
    code = [artefacts.code_hash("mlprobe_utils.fine_tuning"), artefacts.source_hash(Work, make_adapters)]
    for run in work.runs():
        made_from = work.made_from("adapter", run, recipe=recipe.model_dump(), code=code)
        folder = work.adapter_folder(run)
        if not artefacts.is_current(folder, made_from):
            with shared_artefact(folder, made_from) as temporary:
                fine_tune(work.loaded, work.encoder, work.image_set, work.split, recipe, run, temporary)
            if sharded():
                work.forget()


def make_predictions(work: Work) -> None:
    settings = work.protocol.answering
    code = [artefacts.code_hash("mlprobe_utils.prediction"), artefacts.source_hash(Work, make_predictions)]
    for run in work.states():
        recipe = {"max_new_tokens": settings.max_new_tokens}  # the sizes of batches and shards change no answer
        made_from = work.made_from("predictions", run, work.adapter_folder(run), **recipe, code=code)
        folder = work.folder / state_name("predictions", run)
        if artefacts.is_current(folder, made_from):
            continue
        images = work.images("validation", "test")
        positions = list(images.index)
        with shared_artefact(folder, made_from) as temporary, work.state(run):
            answers, chances = predict(work.loaded, work.encoder, work.image_set, positions, settings, temporary)
            if processes().is_main_process:
                rows = image_rows(images, work.image_set.card.options, chances, **work.constants(run))
                rows = rows.assign(text=answers["text"], parsed=answers["parsed"])
                write_rows(rows, temporary / "predictions.parquet")


def make_features(work: Work) -> None:
    settings = work.protocol.extraction
    code = [artefacts.code_hash("mlprobe_utils.extraction"), artefacts.source_hash(Work, make_features)]
    for run in work.states():
        prompt = work.encoder.prompt
        made_from = work.made_from("features", run, work.adapter_folder(run), code=code) | {"prompt": prompt}
        folder = work.folder / state_name("features", run)
        if artefacts.is_current(folder, made_from):
            continue
        positions = list(work.images("train", "validation", "test").index)
        with shared_artefact(folder, made_from) as temporary, work.state(run):
            extract(work.loaded, work.encoder, work.image_set, positions, settings, temporary)


def make_probes(work: Work) -> None:
    if not processes().is_main_process:
        return
    recipes = work.protocol.probes
    folders = {run: work.folder / state_name("features", run) for run in work.states()}
    upstream = {str(run): artefacts.record_hash(f) for run, f in folders.items()}
    code = [artefacts.code_hash("mlprobe_utils.probes"), artefacts.source_hash(Work, make_probes)]
    recipe = {name: probe.model_dump() for name, probe in recipes.items()}
    made_from = work.made_from("probes", recipes=recipe, features=upstream, code=code)
    folder = work.folder / "probes"
    if artefacts.is_current(folder, made_from):
        return
    images, options = work.images("train", "validation", "test"), work.image_set.card.options
    labels = images["option"].map(options.index).to_numpy(copy=True)
    training = np.flatnonzero(images["part"] == "train")
    tested = np.flatnonzero(images["part"] != "train")
    with artefacts.artefact(folder, made_from) as temporary:
        features, seeds = {}, {}
        for state in work.states():
            pooled = load_features(folders[state] / FEATURES)
            for run in work.runs() if state is None else [state]:
                for key, tensor in pooled.items():
                    features[state, run, key], seeds[state, run, key] = tensor, run
        frames, targets = [], dict.fromkeys(features, labels)
        device = processes().device if processes().device.type == "cuda" else "cpu"
        for name, probe in recipes.items():
            fitted = fit_probes(features, targets, training, len(options), probe, seeds, device)
            for (state, run, key), probabilities in fitted.items():
                point, pooling = key.split("/")
                constants = work.constants(state) | {"run": run, "probe": name, "point": point, "pooling": pooling}
                frames.append(image_rows(images.iloc[tested], options, probabilities[tested], **constants))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "probes.parquet")


def make_scores(work: Work) -> None:
    if not processes().is_main_process:
        return
    positives = {work.image_set.card.slug: work.image_set.card.positive}
    predicted = [work.folder / state_name("predictions", run) for run in work.states()]
    upstream = [artefacts.record_hash(f) for f in (work.folder / "probes", *predicted)]
    code = [artefacts.code_hash("mlprobe_utils.metrics"), artefacts.source_hash(Work, make_scores)]
    made_from = work.made_from("scores", rows=upstream, positives=positives, code=code)
    folder = work.folder / "scores"
    if artefacts.is_current(folder, made_from):
        return
    with artefacts.artefact(folder, made_from) as temporary:
        probed = pd.read_parquet(work.folder / "probes" / "probes.parquet")
        write_parquet(probe_scores(probed, positives), temporary / "probe_scores.parquet")
        answered = pd.concat([pd.read_parquet(f / "predictions.parquet") for f in predicted], ignore_index=True)
        write_parquet(output_scores(answered, positives), temporary / "output_scores.parquet")


def make_controls(work: Work) -> None:
    if not processes().is_main_process:
        return
    card, protocol = work.image_set.card, work.protocol
    tuned, random = work.folder / state_name("features", CONTROL_RUN), work.folder / RANDOM_FEATURES
    task = make_image_controls(work)
    upstream = [artefacts.record_hash(made) for made in (tuned, random, task)]
    code = [artefacts.code_hash("mlprobe_utils.probe_controls"), artefacts.source_hash(Work, make_controls)]
    recipe = {"probe": protocol.probe.model_dump(), "max_new_tokens": protocol.answering.max_new_tokens}
    made_from = work.made_from("controls", made_of=upstream, positive=card.positive, code=code, **recipe)
    folder = work.folder / CONTROLS
    if artefacts.is_current(folder, made_from):
        return
    images = work.images("train", "validation", "test")
    images["control"] = pd.read_parquet(task / TASK).set_index("image").loc[images["image"], "control"].to_numpy()
    with artefacts.artefact(folder, made_from) as temporary:
        pooled = [load_features(folder / FEATURES) for folder in (tuned, random)]
        constants, tested = work.constants(CONTROL_RUN), images[images["part"] == "test"]
        probed = probed_rows(*pooled, images, card.options, protocol.probe, constants)
        with work.state(CONTROL_RUN):
            told = text_only_rows(work.loaded, card, protocol, tested, constants)
        rows = pd.concat([probed, told], ignore_index=True)
        write_rows(rows, temporary / ROWS)
        write_parquet(control_scores(rows, {card.slug: card.positive}), temporary / SCORES)


def make_image_controls(work: Work) -> Path:
    """The folder of the image set's own controls; of several processes, each with a model, the first makes them."""
    folder = image_controls(work.folder.parents[1], work.split)
    made_from = {"data": work.image_set.data_hash, "split": work.split}
    made_from["code"] = artefacts.code_hash("mlprobe_utils.controls")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not artefacts.is_current(folder, made_from):
            with artefacts.artefact(folder, made_from) as temporary:
                write_image_controls(work.image_set, work.split, temporary)
    return folder


def command(module: str, description: str, run: Callable[[str, list[str], str, str], None]) -> None:
    """The command of a module that works on one model and some data sets: arguments as of `run_model`."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("model", help="slug of a model card in data/models")
    parser.add_argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets")
    parser.add_argument("--protocol", default="miniature", help="slug of a protocol in data/protocols")
    parser.add_argument("--split", default="paper", choices=SPLITS)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    gc.freeze()  # what is imported stays: every training would look through it for garbage, a fifth of a second each
    run(arguments.model, arguments.datasets, arguments.protocol, arguments.split)


if __name__ == "__main__":
    run_command(lambda: command("mlprobe_utils.pipeline", __doc__, run_model))
