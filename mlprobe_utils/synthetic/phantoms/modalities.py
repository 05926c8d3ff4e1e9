"""The modalities of phantoms. A module has its classes in `LABELS`; what is drawn first, `nuisance`, which differs
between examinations whatever the class; `findings`, what the class shows; and `brightness`, float [side, side] from 0
black to 1 white."""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas, ct, ultrasound, whirlpool, xray
from mlprobe_utils.synthetic.phantoms.canvas import MEDIUM, Shortcut

MODALITIES = {"ultrasound": ultrasound, "ct": ct, "xray": xray}  # which miniatures are taught
DRAWN = MODALITIES | {"whirlpool": whirlpool}


def random_parameters(
    modality: str, label: str, rng: np.random.Generator, difficulty: float = MEDIUM, shortcut: Shortcut | None = None
) -> dict:
    """The parameters of one image of a class, JSON-able, nuisance first."""
    parameters = DRAWN[modality].nuisance(rng)
    agreed = shortcut and (shortcut.agreement if label == shortcut.label else 1 - shortcut.agreement)
    parameters["shortcut"] = shortcut is not None and parameters["shortcut_draw"] < agreed
    return parameters | DRAWN[modality].findings(label, parameters, difficulty, rng)


def picture(modality: str, parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    """The image that parameters describe, uint8 [side, side]; `rng` is consumed for noise and unevenness."""
    return canvas.burnt_in(DRAWN[modality].brightness(parameters, rng, side), parameters)


def draw(modality: str, label: str, rng: np.random.Generator, side: int, **options) -> tuple[np.ndarray, dict]:
    """One image, uint8 [side, side], and the parameters that made it; options of `random_parameters`."""
    parameters = random_parameters(modality, label, rng, **options)
    return picture(modality, parameters, rng, side), parameters
