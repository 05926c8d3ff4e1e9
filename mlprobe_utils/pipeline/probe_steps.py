"""The steps after the features: probes, layer transfer and controls. What is current is skipped."""

from functools import partial

import numpy as np
import pandas as pd
from filelock import FileLock

from mlprobe_utils.common.processes import processes
from mlprobe_utils.datasets.controls import ROWS, TASK, write_image_controls
from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.points import POOLINGS, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, image_rows, write_rows
from mlprobe_utils.pipeline.places import SEEDED
from mlprobe_utils.pipeline.probe_controls import probed_rows, text_only_rows
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import FEATURES, load_features
from mlprobe_utils.probing.probes import fit_probes, read_elsewhere, share_of_each_class


def make_probes(work: Work) -> None:
    """`probes.parquet`: the main recipe, one seed a run, and its variants of the first run, as far as it is SEEDED.

    `seeds.parquet`: the main recipe in the states of SEEDED, all `probe_seeds`, test images.
    """
    if not processes().is_main_process:
        return
    if (own := work.probes()).is_current():
        return
    recipes, seeds = work.recipes(), range(work.protocol.probe_seeds)
    images, options = work.images("train", "validation", "test"), work.image_set.card.options
    labels = images["option"].map(options.index).to_numpy(copy=True)
    training, tested = np.flatnonzero(images["part"] == "train"), images["part"] == "test"
    with own.making() as temporary:
        pooled = {state: load_features(work.features(state).folder / FEATURES) for state in work.states()}
        runs = [(state, run) for state in work.states() for run in (work.runs() if state is None else [state])]
        again = [(state, seed) for state in SEEDED if state in pooled for seed in seeds]
        frames, of_seeds = [], []
        for name, probe in recipes.items():
            main = name == MAIN_PROBE
            told = runs if main else [(state, CONTROL_RUN) for state in SEEDED]
            chosen = dict.fromkeys([*told, *(again if main else [])])  # one that is both is fitted once
            features = {(*place, key): tensor for place in chosen for key, tensor in pooled[place[0]].items()}
            targets, numbers = dict.fromkeys(features, labels), {key: key[1] for key in features}
            drawn = training[share_of_each_class(labels[training], probe.training_fraction)]
            fitted = fit_probes(features, targets, drawn, len(options), probe, numbers)
            for (state, seed, key), probabilities in fitted.items():
                row = partial(_probe_rows, work, images, probabilities, state, seed=seed, probe=name, key=key)
                if (state, seed) in told:
                    frames.append(row(images["part"] != "train", run=seed))
                if main and (state, seed) in again:
                    of_seeds.append(row(tested))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "probes.parquet")
        write_rows(pd.concat(of_seeds, ignore_index=True), temporary / "seeds.parquet")


def _probe_rows(
    work: Work,
    images: pd.DataFrame,
    probabilities: np.ndarray,
    state: int | None,
    chosen: pd.Series,
    key: str,
    **constants,
) -> pd.DataFrame:
    point, pooling = key.split("/")
    constants = work.constants(state) | {"point": point, "pooling": pooling} | constants
    return image_rows(images[chosen], work.image_set.card.options, probabilities[chosen.to_numpy()], **constants)


def make_controls(work: Work) -> None:
    if not processes().is_main_process:
        return
    card, protocol = work.image_set.card, work.protocol
    make_image_controls(work)
    if (own := work.controls()).is_current():
        return
    task = work.image_controls().folder
    images = work.images("train", "validation", "test")
    images["control"] = pd.read_parquet(task / TASK).set_index("image").loc[images["image"], "control"].to_numpy()
    with own.making() as temporary:
        upstream = (work.features(CONTROL_RUN), work.random_features())
        pooled = [load_features(source.folder / FEATURES) for source in upstream]
        constants, tested = work.constants(CONTROL_RUN), images[images["part"] == "test"]
        probed = probed_rows(*pooled, images, card.options, protocol.probe, constants)
        with work.state(CONTROL_RUN):
            told = text_only_rows(work.loaded, card, protocol, tested, constants)
        rows = pd.concat([probed, told], ignore_index=True)
        write_rows(rows, temporary / ROWS)


def make_image_controls(work: Work) -> None:
    """The image set's own controls; of several processes, each with a model, the first makes them."""
    own = work.image_controls()
    own.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(own.folder.with_name(f".{own.folder.name}.lock")):
        if not own.is_current():
            with own.making() as temporary:
                write_image_controls(work.image_set, work.split, temporary)


def make_transfer(work: Work) -> None:
    """`transfer.parquet`: rows of the test images of every pair of LLM points, of the states SEEDED; one seed.

    Whether a probe that is fitted at one layer can read the others: a class can be there at two layers and lie in other
    directions; then each layer's own probe finds it, and the other's does not.
    """
    if not processes().is_main_process:
        return
    if (own := work.transfer()).is_current():
        return
    images, options = work.images("train", "validation", "test"), work.image_set.card.options
    labels = images["option"].map(options.index).to_numpy(copy=True)
    training, tested = np.flatnonzero(images["part"] == "train"), (images["part"] == "test").to_numpy()
    frames = []
    with own.making() as temporary:
        for run in SEEDED:
            pooled = load_features(work.features(run).folder / FEATURES)
            for pooling in POOLINGS.values():
                points = sorted(
                    (k.split("/")[0] for k in pooled if k[0] == "L" and k.endswith(pooling)), key=flow_order
                )
                features = {point: pooled[f"{point}/{pooling}"] for point in points}
                read = read_elsewhere(features, labels, training, len(options), work.protocol.probe, seed=0)
                for (fitted_at, point), said in read.items():
                    place = {"point": point, "pooling": pooling, "probe": fitted_at, "seed": 0}
                    frames.append(image_rows(images[tested], options, said[tested], **work.constants(run) | place))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "transfer.parquet")
