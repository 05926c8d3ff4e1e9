"""Abdominal ultrasound phantoms whose class is the sense in which a whirl turns: clockwise or not.

The whirlpool sign is mesentery and its vein wound round the artery; clockwise it is a sign of volvulus of the midgut,
counterclockwise it is not (Shimanuki et al. 1996, who judged it in moving pictures). The two whirls are mirror images
of each other, of which tissue, gain, speckle, place and phase know nothing, so that every statistic that a reflection
leaves as it is has the same distribution in both classes: grey levels, their changes, and spectra. Of miniatures' own
training no such image is part."""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas, ultrasound
from mlprobe_utils.synthetic.phantoms.canvas import gap, looks_like

LABELS = ("clockwise", "counterclockwise")
CONTRAST = (7.5, 1.5)  # dB of the bands against their mean where the gap is 1, and spread: all that difficulty changes


def brightness(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    level, attenuation = ultrasound.tissue(parameters, rng)
    x, y = canvas.grid(ultrasound.BEAMS)
    dx, dy = ((own - parameters[name]) / parameters["size"] for own, name in ((x, "x"), (y, "y")))
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)  # as y points down, angles grow clockwise
    sense = 1 if parameters["looks_like"] == "clockwise" else -1  # of a band on its way from the rim to the middle
    wound = sense * parameters["bands"] * angle + 2 * np.pi * parameters["turns"] * radius + parameters["phase"]
    level = level + canvas.inside(radius - 1, 0.3) * (parameters["contrast"] * np.cos(wound) - 0.8 * level)
    return ultrasound.scan(level, attenuation, parameters, rng, side)


def nuisance(rng: np.random.Generator) -> dict:
    return ultrasound.nuisance(rng) | {
        "y": float(rng.uniform(-0.5, 0.5)),
        "bands": int(rng.integers(1, 4)),  # bright ones, one beside the other
        "turns": float(rng.uniform(1.4, 2.4)),  # bands that a radius crosses
        "phase": float(rng.uniform(0, 2 * np.pi)),
    }


def findings(label: str, parameters: dict, difficulty: float, rng: np.random.Generator) -> dict:
    """`looks_like`, the sense of the whirl, and `contrast` (dB); there is no lesion."""
    mean, spread = CONTRAST
    contrast = float(max(rng.normal(mean * gap(difficulty), spread), 1.0))
    return {"looks_like": looks_like(label, LABELS, rng), "contrast": contrast, "darkness": None}
