"""Breast ultrasound phantoms: layered tissue with speckle, and a lesion that is dark, smooth or irregular."""

import numpy as np

from mlprobe_utils.errors import unknown
from mlprobe_utils.phantoms import canvas

LABELS = ("normal", "benign", "malignant")
HARMONICS = np.arange(2, 11)  # waves round the lesion's contour: lobes to spicules

# Mean and spread of what tells the lesions apart; they overlap, so that no classifier can be perfect.
LESIONS = {
    "benign": {"log_aspect": (-0.48, 0.22), "irregularity": (0.05, 0.05), "posterior": (0.30, 0.20)},
    "malignant": {"log_aspect": (0.30, 0.24), "irregularity": (0.20, 0.08), "posterior": (-0.50, 0.22)},
}


def draw(label: str, rng: np.random.Generator, side: int) -> tuple[np.ndarray, dict]:
    """One image and the parameters that made it.

    Args:
        label: "normal", "benign" or "malignant".
        rng: consumed.
        side: pixels.

    Returns:
        Image uint8 [side, side], parameters (JSON-able; lengths in half image sides, brightness in 0..1; lesion
        parameters are None where there is no lesion).

    Raises:
        InputError: no such label.
    """
    if label not in LABELS:
        raise unknown("class of ultrasound phantoms", label, LABELS)
    parameters = _nuisance(rng) | _lesion(label, rng)
    return canvas.to_bytes(_render(parameters, rng, side)), parameters


def lesion_mask(parameters: dict, side: int) -> np.ndarray:
    """Where the lesion is, bool [side, side]; all False where there is none."""
    if parameters["darkness"] is None:
        return np.zeros((side, side), dtype=bool)
    return _lesion_distance(parameters, *canvas.grid(side)) < 0


def _nuisance(rng: np.random.Generator) -> dict:
    """What differs between examinations and has nothing to do with the class: drawn first, whatever the class."""
    return {
        "gain": float(rng.normal(0.46, 0.05)),
        "contrast": float(rng.uniform(0.8, 1.2)),
        "attenuation": float(rng.uniform(0.0, 0.22)),
        "speckle": float(rng.uniform(0.08, 0.14)),
        "tilt": float(rng.uniform(-0.12, 0.12)),
        "fat_depth": float(rng.uniform(-0.65, -0.35)),
        "muscle_depth": float(rng.uniform(0.4, 0.75)),
    }


def _lesion(label: str, rng: np.random.Generator) -> dict:
    names = ["darkness", "x", "y", "size", "log_aspect", "irregularity", "posterior", "softness", "phases"]
    if label == "normal":
        return dict.fromkeys(names)
    kind = LESIONS[label]
    return {
        "darkness": float(rng.uniform(0.12, 0.40)),
        "x": float(rng.uniform(-0.4, 0.4)),
        "y": float(rng.uniform(-0.3, 0.2)),
        "size": float(rng.uniform(0.23, 0.40)),
        "log_aspect": float(rng.normal(*kind["log_aspect"])),
        "irregularity": float(np.clip(rng.normal(*kind["irregularity"]), 0.0, 0.4)),
        "posterior": float(np.clip(rng.normal(*kind["posterior"]), -0.85, 0.6)),
        "softness": float(rng.uniform(0.1, 0.35)),
        "phases": [float(phase) for phase in rng.uniform(0, 2 * np.pi, len(HARMONICS))],
    }


def _radii(parameters: dict) -> tuple[float, float]:
    """Half width and half height; their product is the same for every aspect."""
    root = np.exp(parameters["log_aspect"] / 2)
    return parameters["size"] / root, parameters["size"] * root


def _lesion_distance(parameters: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Relative distance to the lesion's wavy contour, negative inside."""
    width, height = _radii(parameters)
    dx, dy = (x - parameters["x"]) / width, (y - parameters["y"]) / height
    angle = np.linspace(-np.pi, np.pi, 256)
    weights = 1 / np.sqrt(HARMONICS)  # the finer, the lower; scaled to a standard deviation of one
    waves = np.cos(np.outer(angle, HARMONICS) + parameters["phases"]) @ (weights * np.sqrt(2 / (weights**2).sum()))
    contour = np.clip(1 + parameters["irregularity"] * waves, 0.5, 1.7)
    return np.sqrt(dx**2 + dy**2) / np.interp(np.arctan2(dy, dx), angle, contour) - 1


def _render(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    """Log-compressed echo: factors of the echo (speckle, attenuation, shadow) are sums here."""
    x, y = canvas.grid(side)
    depth = y + parameters["tilt"] * x + 0.06 * canvas.smooth_noise(rng, 3, 4, side)
    fat, muscle = parameters["fat_depth"], parameters["muscle_depth"]
    echo = np.where(depth < fat, -0.06, np.where(depth < muscle, 0.05, -0.10)).astype(np.float32)
    streaks = canvas.smooth_noise(rng, 20, 5, side)
    lobules = canvas.smooth_noise(rng, 6, 5, side)
    echo += 0.07 * streaks + 0.04 * lobules + 0.10 * np.maximum(streaks - 1.0, 0)
    for border, brightness in ((-0.95, 0.30), (fat, 0.12), (muscle, 0.22)):  # skin and fasciae
        echo += brightness * np.exp(-(((depth - border) / 0.045) ** 2))
    if parameters["darkness"] is not None:
        echo = _with_lesion(echo, parameters, x, y)
    echo -= parameters["attenuation"] * (y + 1) / 2
    rayleigh = np.hypot(canvas.smooth_noise(rng, 56, 40, side), canvas.smooth_noise(rng, 56, 40, side))
    echo += parameters["speckle"] * np.log(rayleigh + 0.15)
    return parameters["gain"] + parameters["contrast"] * echo


def _with_lesion(echo: np.ndarray, parameters: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Darkens the lesion, evens its texture, and shadows or enhances what lies behind it."""
    width, height = _radii(parameters)
    lesion = canvas.inside(_lesion_distance(parameters, x, y), parameters["softness"])
    below = y - parameters["y"] - 0.6 * height
    column = canvas.inside(np.abs(x - parameters["x"]) / width - 0.85, 0.5) * np.clip(below / 0.2, 0, 1)
    behind = 0.5 * parameters["posterior"] * column * np.exp(-np.maximum(below, 0) / 0.9) * (1 - lesion)
    return echo * (1 - 0.8 * lesion) - parameters["darkness"] * lesion + behind
