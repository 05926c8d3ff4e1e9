"""Chest X-ray phantoms: rib cage, heart, diaphragm and lungs, clear or with opacities."""

import numpy as np

from mlprobe_utils.errors import unknown
from mlprobe_utils.phantoms import canvas

LABELS = ("PNEUMONIA", "NORMAL")
LUNGS = {"right": -1, "left": 1}  # the patient's sides, who faces the viewer: the right lung is on the image's left
ZONES = {"upper": -0.45, "middle": -0.05, "lower": 0.3}  # height of a zone's centre


def draw(label: str, rng: np.random.Generator, side: int) -> tuple[np.ndarray, dict]:
    """One image and the parameters that made it.

    Args:
        label: "PNEUMONIA" (one or two focal opacities, or diffuse haze in both lungs) or "NORMAL" (clear lungs).
        rng: consumed.
        side: pixels.

    Returns:
        Image uint8 [side, side], parameters (JSON-able; lengths in half image sides, `opacities` a list with the lung,
        zone, place, radii and strength of each).

    Raises:
        InputError: no such label.
    """
    if label not in LABELS:
        raise unknown("class of X-ray phantoms", label, LABELS)
    parameters = _nuisance(rng) | _findings(label, rng)
    return canvas.to_bytes(_render(parameters, rng, side)), parameters


def _nuisance(rng: np.random.Generator) -> dict:
    """What differs between examinations and has nothing to do with the class: drawn first, whatever the class."""
    return canvas.random_pose(rng, shift=0.07, rotation=5, scale=0.07) | {
        "gain": float(rng.normal(0.0, 0.045)),
        "contrast": float(rng.uniform(0.8, 1.2)),
        "noise": float(rng.uniform(0.01, 0.03)),
        "lung_density": float(rng.uniform(0.26, 0.38)),
        "markings": float(rng.uniform(0.015, 0.04)),
        "rib_strength": float(rng.uniform(0.04, 0.08)),
        "rib_phase": float(rng.uniform(-1, 1)),
        "heart": float(rng.uniform(0.8, 1.2)),
        "diaphragm": float(rng.uniform(0.5, 0.66)),
    }


def _findings(label: str, rng: np.random.Generator) -> dict:
    if label == "NORMAL":
        return {"pattern": "clear", "haze": 0.0, "opacities": []}
    if rng.random() < 0.25:
        return {"pattern": "diffuse", "haze": float(rng.uniform(0.07, 0.20)), "opacities": []}
    places = [(lung, zone) for lung in LUNGS for zone in ZONES]
    chosen = rng.choice(len(places), size=1 + int(rng.random() < 0.5), replace=False)
    return {"pattern": "focal", "haze": 0.0, "opacities": [_opacity(*places[i], rng) for i in chosen]}


def _opacity(lung: str, zone: str, rng: np.random.Generator) -> dict:
    return {
        "lung": lung,
        "zone": zone,
        "x": float(LUNGS[lung] * rng.uniform(0.32, 0.52)),
        "y": float(ZONES[zone] + rng.uniform(-0.08, 0.08)),
        "width": float(rng.uniform(0.18, 0.32)),
        "height": float(rng.uniform(0.17, 0.30)),
        "strength": float(rng.uniform(0.13, 0.44)),
    }


def _render(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    x, y = canvas.posed_grid(side, parameters)
    bend = canvas.smooth_noise(rng, 5, 5, side)
    lungs = _lungs(parameters, x, y, bend)
    chest = canvas.inside(np.abs(x) - 0.86 - 0.10 * np.clip(y, -1, 1) + 0.02 * bend, 0.12)
    shoulder = canvas.inside(0.30 * np.abs(x) - 0.95 - y, 0.1)
    tissue = 0.62 + 0.12 * canvas.inside(np.abs(x) - 0.10, 0.1) + 0.14 * canvas.inside(parameters["diaphragm"] - y, 0.3)

    air = parameters["lung_density"] + 0.05 * y + parameters["markings"] * canvas.smooth_noise(rng, 28, 28, side)
    hila = np.exp(-(((np.abs(x) - 0.2) / 0.10) ** 2) - ((y + 0.05) / 0.2) ** 2)
    air = air + 0.12 * hila * (1 + 0.5 * canvas.smooth_noise(rng, 16, 16, side))
    if parameters["pattern"] == "diffuse":
        texture = canvas.smooth_noise(rng, 24, 24, side)
        air = air + parameters["haze"] * np.clip(1 + 0.5 * texture, 0.2, 1.8)
    for opacity in parameters["opacities"]:
        distance = canvas.ellipse(x, y, (opacity["x"], opacity["y"]), (opacity["width"], opacity["height"]))
        texture = canvas.smooth_noise(rng, 12, 12, side)
        air = air + opacity["strength"] * canvas.inside(distance + 0.2 * texture, 0.9)
    picture = lungs * np.minimum(air, 0.75) + (1 - lungs) * tissue
    picture = picture + parameters["rib_strength"] * _bones(parameters, x, y)
    picture = 0.06 + chest * shoulder * (picture - 0.06) + parameters["noise"] * rng.standard_normal((side, side))
    return 0.5 + parameters["gain"] + parameters["contrast"] * (picture - 0.5)


def _lungs(parameters: dict, x: np.ndarray, y: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Both lungs less heart, mediastinum and what lies below the diaphragm's domes; 0..1."""
    lung = np.zeros_like(x)
    for sign in LUNGS.values():
        width = 0.34 + 0.06 * np.clip(y, -1, 1)
        across = (x - sign * 0.42) / width
        lung = np.maximum(lung, canvas.inside(np.sqrt(across**2 + ((y - 0.05) / 0.82) ** 4) - 1 + 0.04 * bend, 0.14))
    dome = y - parameters["diaphragm"] - 0.5 * (np.abs(x) - 0.38) ** 2 - 0.05 * np.sign(x)
    size = parameters["heart"]
    heart = canvas.ellipse(x - 0.2 * y, y, (0.08, 0.25), (0.30 * size, 0.36 * size))
    return lung * canvas.inside(dome, 0.08) * (1 - canvas.inside(heart, 0.15))


def _bones(parameters: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ribs that arch down to the sides, and the clavicles; about 0..2."""
    arch = y - 0.55 * (np.abs(x) - 0.1) ** 2 - 0.12 * np.abs(x)
    ribs = np.clip(np.sin(arch * 23 + parameters["rib_phase"]), 0, 1) * canvas.inside(np.abs(x) - 0.8, 0.1)
    ribs = ribs * canvas.inside(0.12 - np.abs(x), 0.1) * canvas.inside(y - 0.7, 0.2)
    clavicle = np.exp(-(((y + 0.72 + 0.18 * (np.abs(x) - 0.2)) / 0.045) ** 2)) * canvas.inside(np.abs(x) - 0.7, 0.1)
    return ribs + 1.6 * clavicle
