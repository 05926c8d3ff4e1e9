"""The heavy work for one model, on all its data sets, in one process: adapter, predictions, features, lens, probes.

Every step is an artefact that is skipped where it is current, so that a killed run goes on where it was. `python -m
mlprobe_utils probe MODEL --datasets D ... --protocol P`, or the same behind `accelerate-launch -m` on several devices.
"""

from dataclasses import replace

import pandas as pd

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.evaluation.rows import image_rows, write_rows
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.probe_steps import make_controls, make_probes, make_transfer
from mlprobe_utils.pipeline.results import PROMPT, RANDOM_FEATURES
from mlprobe_utils.pipeline.stages import STEPS
from mlprobe_utils.pipeline.work import Work, shared, works
from mlprobe_utils.probing.extraction import FEATURES, load_features, write_features
from mlprobe_utils.probing.logit_lens import first_tokens, lens_rows
from mlprobe_utils.training.fine_tuning import train_adapter
from mlprobe_utils.training.prediction import predict


def run_model(model: str, datasets: list[str], protocol_slug: str, split_rule: str) -> None:
    """Makes every artefact of a model on some data sets that is not there and current. Raises InputError as `works`."""
    make_model(works(model, datasets, protocol_slug, split_rule))


def make_model(everything: list[Work]) -> None:
    """Makes every artefact of a model's works that is not there and current."""
    first, *steps = STEPS
    for work in everything:
        with work.step(first):
            make_random_features(work)
    everything[0].forget()
    actions = (make_adapters, make_predictions, make_features, make_lens, make_probes, make_transfer, make_controls)
    for work in everything:
        for name, action in zip(steps, actions, strict=True):
            with work.step(name):
                action(work)


def make_random_features(work: Work) -> None:
    """Features of the model with random weights: those of another model, where one of the same shape has them."""
    own = work.random_features()
    if own.is_current():
        return
    for other in work.folder.parent.glob(f"*/{RANDOM_FEATURES}"):
        if replace(own, folder=other).is_current():
            if processes().is_main_process:
                artefacts.link(other, own)
            return
    with shared(own) as temporary:
        write_features(work.random, work.questions, list(work.images().index), work.protocol.extraction, temporary)


def make_adapters(work: Work) -> None:
    recipe = work.protocol.fine_tuning.model_copy(update={"precision": work.precision})
    for run in work.runs():
        if not (own := work.adapter(run)).is_current():
            with shared(own) as temporary:
                train_adapter(work.loaded, work.questions, work.images("train", "validation"), recipe, run, temporary)
            if sharded():
                work.forget()


def make_predictions(work: Work) -> None:
    images, settings = work.images("validation", "test"), work.protocol.answering
    for run in work.states():
        if (own := work.predictions(run)).is_current():
            continue
        with shared(own) as temporary, work.state(run):
            given = work.options, list(images.index), settings, temporary
            answers, probabilities = predict(work.loaded, work.questions, *given)
            if processes().is_main_process:
                rows = image_rows(images, work.options, probabilities, **work.constants(run))
                write_rows(rows.assign(**answers), temporary / "predictions.parquet")


def make_features(work: Work) -> None:
    """Of each state the features at every point, and the question as the model reads it, `prompt.txt`."""
    for run in work.states():
        if (own := work.features(run)).is_current():
            continue
        with shared(own) as temporary, work.state(run):
            write_features(work.loaded, work.questions, list(work.images().index), work.protocol.extraction, temporary)
            if processes().is_main_process:
                atomic_write(temporary / PROMPT, work.encoder.prompt)


def make_lens(work: Work) -> None:
    own = work.lens()
    if not processes().is_main_process or own.is_current():
        return
    given = work.images(), work.options, first_tokens(work.encoder, work.options), work.protocol.extraction.batch_size
    with own.making() as temporary:
        frames = []
        for run in work.states():
            features = load_features(work.features(run).folder / FEATURES)
            with work.state(run):
                frames.append(lens_rows(work.loaded, features, *given, work.constants(run)))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "lens.parquet")
