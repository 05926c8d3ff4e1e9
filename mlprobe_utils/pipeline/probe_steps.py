"""The steps after the features: probes, layer transfer and controls. What is current is skipped."""

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
from mlprobe_utils.probing.probes import fit_and_transfer, fit_probes, share_of_each_class


def make_probes(work: Work) -> None:
    """`probes.parquet`: the main recipe, one seed a run, and its variants of the first run, as far as it is SEEDED.

    `seeds.parquet`: the main recipe in the states of SEEDED, all `probe_seeds`, test images.
    """
    own = work.probes()
    if not processes().is_main_process or own.is_current():
        return
    images, labels, training = _targets(work)
    shown, tested = (images["split"] != "train").to_numpy(), (images["split"] == "test").to_numpy()
    with own.making() as temporary:
        pooled = {state: load_features(work.features(state).folder / FEATURES) for state in work.states()}
        runs = [(state, run) for state in work.states() for run in (work.runs() if state is None else [state])]
        again = [(state, seed) for state in SEEDED if state in pooled for seed in range(work.protocol.probe_seeds)]
        frames, of_seeds = [], []
        for name, probe in work.recipes().items():
            main = name == MAIN_PROBE
            first = runs if main else [(state, CONTROL_RUN) for state in SEEDED]
            chosen = dict.fromkeys([*first, *(again if main else [])])  # one that is both is fitted once
            features = {(*place, key): tensor for place in chosen for key, tensor in pooled[place[0]].items()}
            targets, numbers = dict.fromkeys(features, labels), {key: key[1] for key in features}
            drawn = training[share_of_each_class(labels[training], probe.training_fraction)]
            fitted = fit_probes(features, targets, drawn, len(work.options), probe, numbers)
            for (state, seed, key), probabilities in fitted.items():
                constants = work.constants(state) | _place(key) | {"seed": seed, "probe": name}
                if (state, seed) in first:
                    own = constants | {"run": seed}
                    frames.append(image_rows(images[shown], work.options, probabilities[shown], **own))
                if main and (state, seed) in again:
                    of_seeds.append(image_rows(images[tested], work.options, probabilities[tested], **constants))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "probes.parquet")
        write_rows(pd.concat(of_seeds, ignore_index=True), temporary / "seeds.parquet")


def _targets(work: Work) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """All images, the place of each one's option, int [images], and the places of the train images."""
    images = work.images()
    labels = images["option"].map(work.options.index).to_numpy(copy=True)
    return images, labels, np.flatnonzero(images["split"] == "train")


def _place(key: str) -> dict[str, str]:
    return dict(zip(("point", "pooling"), key.split("/"), strict=True))


def make_controls(work: Work) -> None:
    if not processes().is_main_process:
        return
    make_image_controls(work)
    if (own := work.controls()).is_current():
        return
    images, constants = work.images(), work.constants(CONTROL_RUN)
    controls = pd.read_parquet(work.image_controls().folder / TASK).set_index("image")["control"]
    images["control"] = controls.loc[images["image"]].to_numpy()
    with own.making() as temporary:
        upstream = work.features(CONTROL_RUN), work.random_features()
        pooled = [load_features(source.folder / FEATURES) for source in upstream]
        probed = probed_rows(*pooled, images, work.options, work.protocol.probe, constants)
        with work.state(CONTROL_RUN):
            tested = images[images["split"] == "test"]
            answered = text_only_rows(work.loaded, work.image_set.card, work.protocol, tested, constants)
        write_rows(pd.concat([probed, answered], ignore_index=True), temporary / ROWS)


def make_image_controls(work: Work) -> None:
    """The image set's own controls; of several processes, each with a model, the first makes them."""
    own = work.image_controls()
    own.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(own.folder.with_name(f".{own.folder.name}.lock")):
        if not own.is_current():
            with own.making() as temporary:
                write_image_controls(work.image_set, work.split_rule, temporary)


def make_transfer(work: Work) -> None:
    """`transfer.parquet`: rows of the test images of every pair of LLM points, of the states SEEDED; one seed.

    A class can be encoded at two layers in different directions: then each layer's own probe finds it, and the probe
    that was fitted at the other does not.
    """
    own = work.transfer()
    if not processes().is_main_process or own.is_current():
        return
    images, labels, training = _targets(work)
    tested, frames = (images["split"] == "test").to_numpy(), []
    with own.making() as temporary:
        for run in SEEDED:
            pooled = load_features(work.features(run).folder / FEATURES)
            for pooling in POOLINGS.values():
                keys = [key for key in pooled if key[0] == "L" and key.endswith(pooling)]
                features = {key: pooled[key] for key in sorted(keys, key=lambda key: flow_order(_place(key)["point"]))}
                applied = fit_and_transfer(features, labels, training, len(work.options), work.protocol.probe, seed=0)
                for (fitted_at, key), probabilities in applied.items():
                    constants = work.constants(run) | _place(key) | {"probe": _place(fitted_at)["point"], "seed": 0}
                    frames.append(image_rows(images[tested], work.options, probabilities[tested], **constants))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "transfer.parquet")
