"""The heavy work for one model, on all its data sets, in one process: adapter, predictions, features, lens, probes.

Every step is an artefact that is skipped where it is current: a rerun redoes exactly what changed, and a killed run
goes on where it was. `python -m mlprobe_utils probe MODEL --datasets D ... --protocol P`, or the same behind
`accelerate-launch -m` in several processes on several devices.
"""

import pandas as pd

from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.evaluation.rows import image_rows, write_rows
from mlprobe_utils.models.loading import RANDOM_SEED, shape_of
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.probe_steps import make_controls, make_probes, make_transfer
from mlprobe_utils.pipeline.results import LENS, RANDOM_FEATURES, state_name
from mlprobe_utils.pipeline.step_names import STEPS
from mlprobe_utils.pipeline.work import Work, shared_artefact, works
from mlprobe_utils.probing.extraction import FEATURES, load_features, write_features
from mlprobe_utils.probing.logit_lens import first_tokens, lens_rows
from mlprobe_utils.training.fine_tuning import train_adapter
from mlprobe_utils.training.prediction import predict


def run_model(model: str, datasets: list[str], protocol_slug: str, split: str) -> None:
    """Makes every artefact of a model on some data sets that is not there and current.

    Raises:
        InputError: an unknown slug, a data set whose manifest or a model whose weights are not there.
    """
    make_model(list(works(model, datasets, protocol_slug, split)))


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
    code = [artefacts.code_hash("mlprobe_utils.probing.extraction"), artefacts.source_hash(Work, make_random_features)]
    read = {"model": shape_of(work.card), "prompt": work.encoder.prompt, "prompt_ids": work.encoder.prompt_ids}
    made_from = work.made_from("random features", seed=RANDOM_SEED, code=code) | read
    folder = work.folder / RANDOM_FEATURES
    if artefacts.is_current(folder, made_from):
        return
    for other in work.folder.parent.glob(f"*/{RANDOM_FEATURES}"):
        if artefacts.is_current(other, made_from):
            if processes().is_main_process:
                artefacts.link(other, folder, made_from)
            return
    positions = list(work.images("train", "validation", "test").index)
    with shared_artefact(folder, made_from) as temporary:
        write_features(work.random, work.questions, positions, work.protocol.extraction, temporary)


def make_adapters(work: Work) -> None:
    recipe = work.protocol.fine_tuning.model_copy(update={"precision": work.precision})
    code = [artefacts.code_hash("mlprobe_utils.training.fine_tuning"), artefacts.source_hash(Work, make_adapters)]
    for run in work.runs():
        made_from = work.made_from("adapter", run, recipe=recipe.model_dump(), code=code)
        folder = work.adapter_folder(run)
        if not artefacts.is_current(folder, made_from):
            with shared_artefact(folder, made_from) as temporary:
                images = work.images("train", "validation")
                train_adapter(work.loaded, work.questions, images, recipe, run, temporary)
            if sharded():
                work.forget()


def make_predictions(work: Work) -> None:
    settings = work.protocol.answering
    code = [artefacts.code_hash("mlprobe_utils.training.prediction"), artefacts.source_hash(Work, make_predictions)]
    for run in work.states():
        recipe = {"max_new_tokens": settings.max_new_tokens}  # the sizes of batches and shards change no answer
        made_from = work.made_from("predictions", run, work.adapter_folder(run), **recipe, code=code)
        folder = work.folder / state_name("predictions", run)
        if artefacts.is_current(folder, made_from):
            continue
        images, options = work.images("validation", "test"), work.image_set.card.options
        positions = list(images.index)
        with shared_artefact(folder, made_from) as temporary, work.state(run):
            answers, chances = predict(work.loaded, work.questions, options, positions, settings, temporary)
            if processes().is_main_process:
                rows = image_rows(images, options, chances, **work.constants(run))
                rows = rows.assign(text=answers["text"], parsed=answers["parsed"])
                write_rows(rows, temporary / "predictions.parquet")


def make_features(work: Work) -> None:
    settings = work.protocol.extraction
    code = [artefacts.code_hash("mlprobe_utils.probing.extraction"), artefacts.source_hash(Work, make_features)]
    for run in work.states():
        prompt = work.encoder.prompt
        made_from = work.made_from("features", run, work.adapter_folder(run), code=code) | {"prompt": prompt}
        folder = work.folder / state_name("features", run)
        if artefacts.is_current(folder, made_from):
            continue
        positions = list(work.images("train", "validation", "test").index)
        with shared_artefact(folder, made_from) as temporary, work.state(run):
            write_features(work.loaded, work.questions, positions, settings, temporary)


def make_lens(work: Work) -> None:
    if not processes().is_main_process:
        return
    options = work.image_set.card.options
    tokens = first_tokens(work.encoder, options)
    folders = {run: work.folder / state_name("features", run) for run in work.states()}
    upstream = [artefacts.record_hash(features) for features in folders.values()]
    code = [artefacts.code_hash("mlprobe_utils.probing.logit_lens"), artefacts.source_hash(Work, make_lens)]
    # the tokens that options begin with: those that share one look the same through the lens
    recipe = {"first_tokens": dict(zip(options, tokens, strict=True))}
    made_from = work.made_from("logit lens", features=upstream, code=code, **recipe)
    folder = work.folder / LENS
    if artefacts.is_current(folder, made_from):
        return
    images, batch_size = work.images("train", "validation", "test"), work.protocol.extraction.batch_size
    with artefacts.artefact(folder, made_from) as temporary:
        frames = []
        for run in work.states():
            features = load_features(folders[run] / FEATURES)
            with work.state(run):
                of_state = lens_rows(work.loaded, features, images, options, tokens, batch_size, work.constants(run))
            frames.append(of_state)
        write_rows(pd.concat(frames, ignore_index=True), temporary / "lens.parquet")
