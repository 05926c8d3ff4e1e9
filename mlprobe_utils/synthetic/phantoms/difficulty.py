"""How far apart the classes are: one number for all modalities, 0 (easy) to 1 (hard)."""

import numpy as np

DIFFICULTY = 0.5  # where the sets are calibrated: a good classifier reaches about 95 %, a weak one about 70 %
ATYPICAL = 0.03  # share of images that look like the other class, at every difficulty: no classifier gets these right


def gap(difficulty: float) -> float:
    """What the distance between the classes is multiplied with: 1.6 at `DIFFICULTY`, 2.2 at 0, 1 at 1."""
    return 2.2 - 1.2 * difficulty


def looks_like(label: str, other: str, rng: np.random.Generator) -> str:
    """The class whose signs an image shows: its own, but in atypical cases the other."""
    return other if rng.random() < ATYPICAL else label


def sign(
    rng: np.random.Generator, typical: float, opposite: float, spread: float, difficulty: float, floor: float = -np.inf
) -> float:
    """A sign's value in one image: normally distributed about what is typical of the class.

    Args:
        rng: one number is drawn, whatever the difficulty.
        typical: the mean in this class where the gap is 1.
        opposite: the mean in the class that it is told from; the more difficult, the nearer both are to their middle.
        spread: standard deviation, the same at every difficulty.
        difficulty: 0 to 1.
        floor: the least value possible.
    """
    middle = (typical + opposite) / 2
    return float(max(rng.normal(middle + gap(difficulty) * (typical - middle), spread), floor))
