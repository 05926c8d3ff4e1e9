"""Whether a probe that is fitted at one LLM layer can read the others: the step that fits, and what it leaves behind.

A class can be there at two layers and lie in other directions: then each layer's own probe finds it, and the other's
does not.
"""

import numpy as np
import pandas as pd

from mlprobe_utils import artefacts
from mlprobe_utils.extraction import FEATURES, load_features
from mlprobe_utils.points import flow_order
from mlprobe_utils.probe_steps import SEEDED
from mlprobe_utils.probes import read_elsewhere
from mlprobe_utils.processes import processes
from mlprobe_utils.results import TRANSFER, state_name
from mlprobe_utils.rows import image_rows, write_rows
from mlprobe_utils.work import Work

POOLINGS = ("image_mean", "last_token")


def make_transfer(work: Work) -> None:
    """`transfer.parquet`: rows of the test images of every pair of LLM points, of the states SEEDED; one seed."""
    if not processes().is_main_process:
        return
    folders = {run: work.folder / state_name("features", run) for run in SEEDED}
    upstream = {str(run): artefacts.record_hash(folder) for run, folder in folders.items()}
    code = [artefacts.code_hash("mlprobe_utils.probes"), artefacts.source_hash(Work, make_transfer)]
    made_from = work.made_from("layer transfer", features=upstream, probe=work.protocol.probe.model_dump(), code=code)
    folder = work.folder / TRANSFER
    if artefacts.is_current(folder, made_from):
        return
    images, options = work.images("train", "validation", "test"), work.image_set.card.options
    labels = images["option"].map(options.index).to_numpy(copy=True)
    training, tested = np.flatnonzero(images["part"] == "train"), (images["part"] == "test").to_numpy()
    frames = []
    with artefacts.artefact(folder, made_from) as temporary:
        for run, of_state in folders.items():
            pooled = load_features(of_state / FEATURES)
            for pooling in POOLINGS:
                points = sorted(
                    (k.split("/")[0] for k in pooled if k[0] == "L" and k.endswith(pooling)), key=flow_order
                )
                features = {point: pooled[f"{point}/{pooling}"] for point in points}
                read = read_elsewhere(features, labels, training, len(options), work.protocol.probe, seed=0)
                for (fitted_at, point), said in read.items():
                    place = {"point": point, "pooling": pooling, "probe": fitted_at, "seed": 0}
                    frames.append(image_rows(images[tested], options, said[tested], **work.constants(run) | place))
        write_rows(pd.concat(frames, ignore_index=True), temporary / "transfer.parquet")
