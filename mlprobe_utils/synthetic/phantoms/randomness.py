"""What phantoms draw at random: streams that never meet, and signs that tell two classes apart."""

import numpy as np

STREAMS = {
    "dataset": 1,  # files of a phantom set
    "captions": 2,
    "shapes": 3,
    "questions": 4,
    "shape questions": 5,
    "sentences": 6,
    "oracle": 7,  # what planted faults are measured on
}
MEDIUM = 0.5  # difficulty, 0 (easy) to 1 (hard): a good classifier reaches about 95 %, a weak one about 70 %
ATYPICAL = 0.03  # share of images that look like the other class, at every difficulty: no classifier gets these right


def generator(stream: str, seed: int, *place: int) -> np.random.Generator:
    """The generator of one image or text, by its place: e.g. class index, split index, running number.

    The same seed and place give unrelated numbers in different STREAMS.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[stream], *place)))


def gap(difficulty: float) -> float:
    """What the distance between the classes is multiplied with: 1.6 at MEDIUM, 2.2 at 0, 1 at 1."""
    return 2.2 - 1.2 * difficulty


def looks_like(label: str, classes: tuple[str, str], rng: np.random.Generator) -> str:
    """The class whose signs an image shows: its own, but the other of the two in atypical cases."""
    return classes[label == classes[0]] if rng.random() < ATYPICAL else label


def sign(
    rng: np.random.Generator, law: tuple[float, float, float], first: bool, difficulty: float, floor: float = -np.inf
) -> float:
    """A sign's value in one image of the first or the second class, not below `floor`; one number is drawn.

    `law` holds the means of both classes where their gap is 1, and the standard deviation at every difficulty.
    """
    *means, spread = law
    middle = sum(means) / 2
    return float(max(rng.normal(middle + gap(difficulty) * (means[not first] - middle), spread), floor))
