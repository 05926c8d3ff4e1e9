"""What is predicted for phantoms that nothing else is made from: the front page is tested on them once more."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from mlprobe_utils.common.files import file_hash, hash_of, write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.datasets.controls import reference_rows
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.names import PROBED_SITES
from mlprobe_utils.evaluation.rows import MAIN_PROBE, image_rows, write_rows
from mlprobe_utils.pipeline.artefacts import read_rows
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.model_steps import Features
from mlprobe_utils.pipeline.places import SEEDED
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import FEATURES, features_of, load_features
from mlprobe_utils.probing.probes import fit_probes, share_of_each_class
from mlprobe_utils.synthetic.faults.calibration import batched, fresh_images
from mlprobe_utils.training.prediction import answer_batch

IMAGES, REFERENCE, PIXELS = "images.parquet", "reference.parquet", "pixels.bin"


def make_replication(work: Work) -> None:
    """Rows of the fresh phantoms: of the reference, the final output, and probes of every seed at the modules' ends."""
    if processes().is_main_process:
        (fresh := work.healthy.fresh()).make(partial(_draw, work))
        work.replication().make(partial(_write, work, fresh.folder))


def _draw(work: Work, folder: Path) -> None:
    """Phantoms of the test images' classes, and the rows of the reference, which is fitted on the train images."""
    tested = work.images("test")[["label", "option"]].reset_index(drop=True)
    given = work.image_set.card, work.protocol.images, tested["label"], load_book().replication
    images = fresh_images(*given, stream="replication")
    (folder / PIXELS).write_bytes(b"".join(image.tobytes() for image in images))
    sizes = pd.DataFrame([image.shape[:2] for image in images], columns=["stored_height", "stored_width"])
    bytes_before = np.cumsum([0, *(image.nbytes for image in images[:-1])])
    named = {"image": [f"fresh-{number:04d}" for number in tested.index], "offset": bytes_before}
    write_parquet(tested.join(sizes).assign(**named, split_paper="test", split_clean="test"), folder / IMAGES)
    write_rows(reference_rows(work.image_set, work.split_rule, _load(work, folder)), folder / REFERENCE)


def _load(work: Work, folder: Path) -> ImageSet:
    drawn = hash_of([file_hash(folder / PIXELS), work.image_set.card.template])
    return ImageSet(work.image_set.card, read_rows(folder / IMAGES), drawn, {}, folder)


def _write(work: Work, drawn: Path, folder: Path) -> None:
    fresh = replace(work, image_set=_load(work, drawn))
    images, options, train = fresh.images("test"), work.options, work.images("train")
    features, rows, encoder = {}, [], work.encoder
    batches = batched([*map(fresh.image_set.pixels, images.index)], work.protocol.extraction.batch_size)
    batches = [*map(encoder.questions, batches)]
    for run in (run for run in SEEDED if run in work.states()):
        saved = module_ends(load_features(work.features(run).folder / FEATURES))
        parts = [{site: own[: len(train)] for site, own in saved.items()}]  # train images come first
        answered = []
        with work.state(run):
            for questions in batches:
                parts.append(module_ends(features_of(work.loaded, questions)))
                answered.append(answer_batch(work.loaded, questions, encoder, options, work.answering.max_new_tokens))
        features |= {(run, site): torch.cat([part[site] for part in parts]) for site in parts[0]}
        whole = pd.concat(answered, ignore_index=True)
        answers = [encoder.answer(text, options, work.image_set.card.synonyms) for text in whole["text"]]
        own = image_rows(images, options, softmax(whole[options].to_numpy(), axis=1), **fresh.constants(run))
        rows.append(own.assign(**pd.DataFrame(answers)))
    write_rows(pd.concat(rows, ignore_index=True), folder / "predictions.parquet")
    labels = pd.concat([train, images])["option"].map(options.index).to_numpy(copy=True)
    seeded = {(*key, seed): own for key, own in features.items() for seed in range(work.protocol.probe_seeds)}
    training = share_of_each_class(labels[: len(train)], work.protocol.probe.training_fraction)
    given = training, len(options), work.protocol.probe, {key: key[-1] for key in seeded}
    rows = []
    for (run, site, seed), found in fit_probes(seeded, dict.fromkeys(seeded, labels), *given).items():
        point, pooling = site.split("/")
        of = fresh.constants(run) | {"probe": MAIN_PROBE, "seed": seed, "point": point, "pooling": pooling}
        rows.append(image_rows(images, options, found[len(train) :], **of))
    write_rows(pd.concat(rows, ignore_index=True), folder / "probes.parquet")
    write_rows(read_rows(drawn / REFERENCE), folder / REFERENCE)


def module_ends(features: Features) -> Features:
    """Those of the ends of the modules, which the diagnosis reads."""
    last = {(key[0], key.split("/")[1]): key for key in features}  # in the order the data flows
    return {last[place]: features[last[place]] for place in PROBED_SITES.values()}
