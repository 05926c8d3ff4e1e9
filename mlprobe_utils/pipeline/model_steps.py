"""The work for one model on all its data sets, in one process: its pipeline, and what discussions need beyond that.
Steps skip what is current. Several processes share what the model computes; the main one fits probes."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.datasets.controls import ROWS, TASK, shuffled, write_image_controls
from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.names import CONTROL_RUN, CONTROL_TASK, MEMORISATION, RANDOM_WEIGHTS, TEXT_ONLY
from mlprobe_utils.evaluation.points import MODULES, PLACES, POOLINGS
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.evaluation.rows import MAIN_PROBE, write_rows
from mlprobe_utils.models.encoding import Encoder, Questions, Reworded
from mlprobe_utils.pipeline.artefacts import read_rows
from mlprobe_utils.pipeline.places import SEEDED
from mlprobe_utils.pipeline.results import ORDER, PROMPT
from mlprobe_utils.pipeline.stages import STEPS
from mlprobe_utils.pipeline.variants import TRAINABLE, Discussion, discussed_on, variants
from mlprobe_utils.pipeline.work import Work, makes
from mlprobe_utils.probing.extraction import FEATURES, load_features, write_features
from mlprobe_utils.probing.logit_lens import first_tokens, lens_rows
from mlprobe_utils.probing.probes import fit_probes, share_of_each_class
from mlprobe_utils.training.fine_tuning import train_adapter
from mlprobe_utils.training.prediction import answer_batch, predict
from mlprobe_utils.training.vision_classifier import classify, tower_end

Features = Mapping[str, torch.Tensor]  # point/pooling -> float32 [images, width]


def make_model(everything: list[Work]) -> None:
    for work in everything:
        with work.step(STEPS[0]):
            make_random_features(work)
    everything[0].forget()
    actions = (make_adapters, make_predictions, make_prompts, make_features)
    actions += (make_lens, make_probes, make_transfer, make_controls)
    for work, (name, action) in itertools.product(everything, zip(STEPS[1:], actions, strict=True)):
        with work.step(name):
            action(work)


@makes(Work.random_features)
def make_random_features(work: Work, folder: Path) -> None:
    """Features of the model with random weights, once for all models of its shape."""
    write_features(work.random, work.questions, list(work.images().index), work.protocol.extraction, folder)


@makes(Work.adapter, each=Work.runs)
def make_adapters(work: Work, run: int, folder: Path) -> None:
    recipe = work.protocol.fine_tuning.model_copy(update={"precision": work.precision})
    train_adapter(work.loaded, work.questions, work.images("train", "validation"), recipe, run, folder)
    if sharded():
        work.forget()


@makes(Work.predictions, each=Work.states)
def make_predictions(work: Work, run: int | None, folder: Path) -> None:
    rows = answer_rows(work, run, work.questions, work.images("validation", "test"), folder)
    if processes().is_main_process:
        write_rows(rows, folder / "predictions.parquet")


def answer_rows(work: Work, run: int | None, questions: Questions, images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """What a state answers to the questions at the places of `images`, its index."""
    given = work.options, list(images.index), work.answering, folder, work.image_set.card.synonyms
    with work.state(run):
        answers, probabilities = predict(work.loaded, questions, *given)
    return work.rows(run, images, probabilities).assign(**answers)


@makes(Work.prompts)
def make_prompts(work: Work, folder: Path) -> None:
    """Of the test images the rows of the predictions, and the same run's answers to other wordings of the question."""
    images, texts = work.images("test"), work.image_set.card.other_prompts
    own = work.predictions(CONTROL_RUN).folder / "predictions.parquet"
    rows = read_rows(own, filters=[("split", "==", "test")]).assign(control=OWN_PROMPT)
    if texts:
        asked, given = pd.concat(dict.fromkeys(texts, images)), (work.protocol.order, work.card)
        encoders = {name: Encoder(work.loaded.processor, text, *given) for name, text in texts.items()}
        questions = Reworded(work.encoder, work.image_set.pixels, other=work.questions, encoders=encoders)
        answered = answer_rows(work, CONTROL_RUN, questions, asked, folder)
        rows = pd.concat([rows, answered.assign(control=asked.index.get_level_values(0))], ignore_index=True)
    if processes().is_main_process:
        write_rows(rows, folder / "prompts.parquet")


@makes(Work.features, each=Work.states)
def make_features(work: Work, run: int | None, folder: Path) -> None:
    """Of each state the features at every point, and the question as the model reads it, `prompt.txt`."""
    with work.state(run):
        write_features(work.loaded, work.questions, list(work.images().index), work.protocol.extraction, folder)
    if processes().is_main_process:
        atomic_write(folder / PROMPT, work.encoder.prompt)


@makes(Work.lens, alone=True)
def make_lens(work: Work, folder: Path) -> None:
    batch_size, frames = work.protocol.extraction.batch_size, []
    for run in work.states():
        features = load_features(work.features(run).folder / FEATURES)
        given = work.images(), work.options, first_tokens(work.encoder, work.options), batch_size
        with work.state(run):
            frames.append(lens_rows(work.loaded, features, *given, work.constants(run)))
    write_rows(pd.concat(frames, ignore_index=True), folder / "lens.parquet")


@makes(Work.probes, alone=True)
def make_probes(work: Work, folder: Path) -> None:
    """`probes.parquet`: the main recipe, one seed a run, and its variants of the first run, as far as it is SEEDED.
    `seeds.parquet`: the main recipe in SEEDED, all seeds, test images; of places only the sites of the diagnosis."""
    images, labels, training = _targets(work)
    shown, tested = (images["split"] != "train").to_numpy(), (images["split"] == "test").to_numpy()
    pooled = {state: load_features(work.features(state).folder / FEATURES) for state in work.states()}
    runs = [(state, run) for state in work.states() for run in (work.runs() if state is None else [state])]
    again = [(state, seed) for state in SEEDED if state in pooled for seed in range(work.protocol.probe_seeds)]
    sites, frames, of_seeds = features_of_sites(pooled[runs[0][0]]), [], []
    for name, probe in work.recipes().items():
        main = name == MAIN_PROBE
        first = runs if main else [(state, CONTROL_RUN) for state in SEEDED]
        chosen = dict.fromkeys([*first, *(again if main else [])])  # one that is both is fitted once
        features = {(*place, key): own for place in chosen for key, own in pooled[place[0]].items()}
        in_curve = {key for key in features if key[:2] in first and (main or PLACES not in key[2])}
        seeded = {key for key in features if main and key[:2] in again and (PLACES not in key[2] or key[2] in sites)}
        features = {key: own for key, own in features.items() if key in in_curve | seeded}
        targets, numbers = dict.fromkeys(features, labels), {key: key[1] for key in features}
        drawn = training[share_of_each_class(labels[training], probe.training_fraction)]
        fitted = fit_probes(features, targets, drawn, len(work.options), probe, numbers)
        for (state, seed, key), probabilities in fitted.items():
            of = _place(key) | {"seed": seed, "probe": name}
            if (state, seed, key) in in_curve:
                frames.append(work.rows(state, images[shown], probabilities[shown], **of, run=seed))
            if (state, seed, key) in seeded:
                of_seeds.append(work.rows(state, images[tested], probabilities[tested], **of))
    write_rows(pd.concat(frames, ignore_index=True), folder / "probes.parquet")
    write_rows(pd.concat(of_seeds, ignore_index=True), folder / "seeds.parquet")


def features_of_sites(features: Features) -> Features:
    """Those of the sites that the diagnosis reads."""
    places = names.places_of_sites({key.split("/")[0] for key in features})
    return {key: features[key] for key in map("/".join, places)}


def _targets(work: Work) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """All images, the number of each one's option, int [images], and the positions of the train images."""
    images = work.images()
    labels = images["option"].map(work.options.index).to_numpy(copy=True)
    return images, labels, np.flatnonzero(images["split"] == "train")


def _place(key: str) -> dict[str, str]:
    return dict(zip(("point", "pooling"), key.split("/"), strict=True))


@makes(Work.transfer, alone=True)
def make_transfer(work: Work, folder: Path) -> None:
    """`transfer.parquet`: of the states SEEDED, probes fitted at each LLM point applied at every other, test images."""
    images, labels, training = _targets(work)
    tested, frames = (images["split"] == "test").to_numpy(), []
    for run in SEEDED:
        pooled = load_features(work.features(run).folder / FEATURES)
        for pooling in POOLINGS.values():
            features = {key: own for key, own in pooled.items() if key[0] == "L" and key.endswith(pooling)}
            targets, seeds = dict.fromkeys(features, labels), dict.fromkeys(features, 0)
            given = targets, training, len(work.options), work.protocol.probe, seeds
            for (fitted_at, key), probabilities in fit_probes(features, *given, at=features).items():
                of = _place(key) | {"probe": _place(fitted_at)["point"], "seed": 0}
                frames.append(work.rows(run, images[tested], probabilities[tested], **of))
    write_rows(pd.concat(frames, ignore_index=True), folder / "transfer.parquet")


def make_controls(work: Work) -> None:
    make_image_controls(work)
    make_model_controls(work)


@makes(Work.image_controls, alone=True)
def make_image_controls(work: Work, folder: Path) -> None:
    """The image set's own controls, once for all models."""
    write_image_controls(work.image_set, work.split_rule, folder)


@makes(Work.controls, alone=True)
def make_model_controls(work: Work, folder: Path) -> None:
    images, upstream = work.images(), (work.features(CONTROL_RUN), work.random_features())
    controls = read_rows(work.image_controls().folder / TASK).set_index("image")["control"]
    images["control"] = controls.loc[images["image"]].to_numpy()
    probed = probed_rows(work, *(load_features(source.folder / FEATURES) for source in upstream), images)
    with work.state(CONTROL_RUN):
        answered = text_only_rows(work, images[images["split"] == "test"])
    write_rows(pd.concat([probed, answered], ignore_index=True), folder / ROWS)


def probed_rows(work: Work, tuned: Features, random: Features, images: pd.DataFrame) -> pd.DataFrame:
    """Controls by probes of the means of image tokens: control task and random weights at every point, memorisation
    (train images) at each module's end. `tuned` and `random` are of the fine-tuned model and of that with random
    weights; `images` has a row for each row of theirs: image, split, option, control (of the control task)."""
    training, tested = (np.flatnonzero(images["split"] == split) for split in ("train", "test"))
    memorised = images["option"].to_numpy(copy=True)
    memorised[training] = shuffled(memorised[training])
    labels = {CONTROL_TASK: images["control"], MEMORISATION: memorised, RANDOM_WEIGHTS: images["option"]}
    of_image = f"/{POOLINGS['comprehension']}"
    keys = [key for key in tuned if key.endswith(of_image)]
    features = {(CONTROL_TASK, key): tuned[key] for key in keys}
    ends = [[key for key in keys if key[0] == module][-1] for module in MODULES]
    features |= {(MEMORISATION, key): tuned[key] for key in ends}
    features |= {(RANDOM_WEIGHTS, key): random[key] for key in random if key.endswith(of_image)}
    codes = {control: pd.Categorical(own, work.options).codes.astype(int) for control, own in labels.items()}
    targets, seeds = {key: codes[key[0]] for key in features}, dict.fromkeys(features, CONTROL_RUN)
    fitted, frames = fit_probes(features, targets, training, len(work.options), work.protocol.probe, seeds), []
    for (control, key), probabilities in fitted.items():
        shown = training if control == MEMORISATION else tested
        own = images.assign(option=labels[control]).iloc[shown]
        of = _place(key) | {"seed": CONTROL_RUN, "probe": MAIN_PROBE, "control": control}
        of |= {"stage": None} if control == RANDOM_WEIGHTS else {}
        frames.append(work.rows(CONTROL_RUN, own, probabilities[shown], **of))
    return pd.concat(frames, ignore_index=True)


def text_only_rows(work: Work, images: pd.DataFrame) -> pd.DataFrame:
    """Rows of the answer to the question without an image, which counts for all `images`."""
    card, options = work.image_set.card, work.options
    encoder = Encoder(work.loaded.processor, card.template.replace("<image>", ""), work.protocol.order, work.card)
    answered = answer_batch(work.loaded, encoder.questions([None]), encoder, options, work.answering.max_new_tokens)
    probabilities = softmax(answered[options].to_numpy(), axis=1).repeat(len(images), axis=0)
    rows = work.rows(CONTROL_RUN, images, probabilities, control=TEXT_ONLY)
    return rows.assign(**encoder.answer(answered["text"].iloc[0], options, card.synonyms))


def make_discussions(everything: list[Work], cards: list[Discussion]) -> None:
    """Makes every artefact of some discussions, of a model's works, that is not current."""
    for card in cards:
        about = discussed_on(card, [work.image_set.card.slug for work in everything])
        for work in (work for work in everything if work.image_set.card.slug in about):
            with work.step(card.slug):
                if card.varies == "training":
                    for own in itertools.product(TRAINABLE, range(work.protocol.vision_training.runs)):
                        make_classifier(work, *own)
                for own in (work.of_variant(variant) for variant in variants(card.varies, work.protocol)):
                    make_adapters(own)
                    make_predictions(own)
                    if card.varies == ORDER:
                        make_features(own)
                        make_probes(own)


@makes(Work.classifier)
def make_classifier(work: Work, trainable: str, run: int, folder: Path) -> None:
    """Rows and learning curves of the vision tower trained alone: `trainable` weights, of TRAINABLE."""
    images, rate = work.images(), getattr(work.protocol.vision_training, f"learning_rate_{trainable}")
    recipe = work.protocol.fine_tuning.model_copy(update={"precision": work.precision, "learning_rate": rate})
    shown, batch_size = images[images["split"] != "train"], work.protocol.extraction.batch_size
    given = images, work.options, list(shown.index), trainable, recipe, run, batch_size, folder
    probabilities = classify(work.loaded, work.questions, *given)
    if processes().is_main_process:
        of = {"point": tower_end(work.loaded).name, "pooling": "image_mean", "probe": trainable, "seed": run}
        write_rows(work.rows(run, shown, probabilities, **of), folder / "predictions.parquet")
