"""Abdominal ultrasound phantoms whose class is the sense in which a whirl turns. Mesentery and its vein wound clockwise
round the artery are a sign of volvulus of the midgut, counterclockwise they are not (Shimanuki et al. 1996, of moving
pictures). Both whirls are mirror images, and nothing else depends on the class: every statistic that a reflection keeps
(grey levels, their changes, spectra) has one distribution in both."""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas, ultrasound

LABELS = ("clockwise", "counterclockwise")
CONTRAST = (7.5, 1.5)  # dB of the bands against their mean: that where the classes' gap is 1, and spread


def brightness(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    level, attenuation = ultrasound.tissue(parameters, rng)
    dx, dy = (own - parameters[name] for own, name in zip(canvas.grid(ultrasound.BEAMS), "xy", strict=True))
    radius, angle = np.hypot(dx, dy) / parameters["size"], np.arctan2(dy, dx)  # y points down: angles grow clockwise
    sense = 1 if parameters["looks_like"] == "clockwise" else -1  # of a band on its way from the rim to the middle
    wound = sense * parameters["bands"] * angle + 2 * np.pi * parameters["turns"] * radius + parameters["phase"]
    level = level + canvas.inside(radius - 1, 0.3) * (parameters["contrast"] * np.cos(wound) - 0.8 * level)
    return ultrasound.scan(level, attenuation, parameters, rng, side)


def nuisance(rng: np.random.Generator) -> dict:
    found = ultrasound.nuisance(rng) | {"y": rng.uniform(-0.5, 0.5), "bands": int(rng.integers(1, 4))}
    return found | {"turns": rng.uniform(1.4, 2.4), "phase": rng.uniform(0, 2 * np.pi)}


def findings(label: str, parameters: dict, difficulty: float, rng: np.random.Generator) -> dict:
    contrast = max(rng.normal(CONTRAST[0] * canvas.gap(difficulty), CONTRAST[1]), 1.0)
    return {"looks_like": canvas.looks_like(label, LABELS, rng), "contrast": float(contrast), "darkness": None}
