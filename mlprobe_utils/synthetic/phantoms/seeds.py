"""Random streams that never meet: an image's generator depends on its stream, seed and place, on nothing else."""

import numpy as np

STREAMS = {
    "dataset": 1,
    "captions": 2,
    "shapes": 3,
    "questions": 4,
    "shape questions": 5,
    "sentences": 6,
    "oracle": 7,
}


def generator(stream: str, seed: int, *place: int) -> np.random.Generator:
    """The generator of one image or text.

    Args:
        stream: "dataset" (files of a phantom set), "oracle" (what planted faults are measured on), or one of those that
            miniatures are trained on; the same seed and place give unrelated numbers in different streams.
        seed: not negative.
        place: where the image stands, e.g. class index, split index, running number.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[stream], *place)))
