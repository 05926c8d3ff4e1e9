"""Chest CT phantoms: an axial slice in a lung window, clear or with hazy patches, a nodule or a focal opacity."""

import numpy as np

from mlprobe_utils.errors import unknown
from mlprobe_utils.phantoms import canvas

LABELS = ("COVID", "NonCOVID")
LUNGS = {"right": -1, "left": 1}  # the patient's sides, seen from the feet: the right lung is on the image's left
LUNG_X, LUNG_Y, LUNG_WIDTH, LUNG_HEIGHT = 0.43, 0.0, 0.36, 0.56


def draw(label: str, rng: np.random.Generator, side: int) -> tuple[np.ndarray, dict]:
    """One image and the parameters that made it.

    Args:
        label: "COVID" (ground-glass patches) or "NonCOVID" (clear lungs, a nodule or a focal opacity).
        rng: consumed.
        side: pixels.

    Returns:
        Image uint8 [side, side], parameters (JSON-able; lengths in half image sides, `opacities` a list with the lung,
        place, radius and strength of each).

    Raises:
        InputError: no such label.
    """
    if label not in LABELS:
        raise unknown("class of CT phantoms", label, LABELS)
    parameters = _nuisance(rng) | _findings(label, rng)
    return canvas.to_bytes(_render(parameters, rng, side)), parameters


def _nuisance(rng: np.random.Generator) -> dict:
    """What differs between examinations and has nothing to do with the class: drawn first, whatever the class."""
    return canvas.random_pose(rng, shift=0.06, rotation=6, scale=0.07) | {
        "gain": float(rng.normal(0.0, 0.04)),
        "contrast": float(rng.uniform(0.85, 1.15)),
        "noise": float(rng.uniform(0.01, 0.035)),
        "lung_density": float(rng.uniform(0.14, 0.26)),
        "dependent_density": float(rng.uniform(0.0, 0.16)),
        "vessels": int(rng.integers(6, 11)),
        "heart": float(rng.uniform(0.7, 1.25)),
        "lung_size": float(rng.uniform(0.88, 1.06)),
    }


def _findings(label: str, rng: np.random.Generator) -> dict:
    if label == "COVID":
        sides = list(LUNGS) if rng.random() < 0.7 else [str(rng.choice(list(LUNGS)))]
        strength = float(rng.uniform(0.12, 0.42))
        patches = [_patch(side, strength, rng) for side in sides for _ in range(rng.integers(1, 4))]
        return {"finding": "hazy patches", "opacities": patches}
    finding = str(rng.choice(["clear", "nodule", "focal"], p=[0.5, 0.25, 0.25]))
    if finding == "clear":
        return {"finding": finding, "opacities": []}
    place = {
        "lung": str(rng.choice(list(LUNGS))),
        "angle": float(rng.uniform(-np.pi, np.pi)),
        "reach": float(rng.uniform(0.15, 0.65)),
        "radius": float(rng.uniform(0.05, 0.09) if finding == "nodule" else rng.uniform(0.13, 0.24)),
        "strength": float(rng.uniform(0.4, 0.7) if finding == "nodule" else rng.uniform(0.25, 0.6)),
    }
    return {"finding": finding, "opacities": [place]}


def _patch(side: str, strength: float, rng: np.random.Generator) -> dict:
    """A ground-glass patch at the lung's rim; angle 0 is lateral, pi/2 posterior."""
    return {
        "lung": side,
        "angle": float(rng.normal(0.5, 0.7)),
        "reach": float(rng.uniform(0.6, 0.85)),
        "radius": float(rng.uniform(0.12, 0.27)),
        "strength": float(np.clip(strength + rng.normal(0, 0.05), 0.08, 0.5)),
    }


def _render(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    x, y = canvas.posed_grid(side, parameters)
    bend = 0.05 * canvas.smooth_noise(rng, 5, 5, side)
    body = canvas.inside(canvas.ellipse(x, y, (0, 0.02), (0.95, 0.78)) + 0.3 * bend, 0.06)
    size = parameters["lung_size"]
    distances = [
        canvas.ellipse(x + 0.10 * sign * y, y, (sign * LUNG_X, LUNG_Y), (LUNG_WIDTH * size, LUNG_HEIGHT * size))
        for sign in LUNGS.values()
    ]
    lungs = canvas.inside(np.minimum(*distances) + bend, 0.12)
    heart = canvas.ellipse(x, y, (0.10, -0.20), (0.20 * parameters["heart"], 0.25 * parameters["heart"]))
    spine = canvas.ellipse(x, y, (0, 0.50), (0.12, 0.13))
    lungs = lungs * (1 - canvas.inside(heart, 0.15)) * (1 - canvas.inside(spine, 0.15))

    air = parameters["lung_density"] + parameters["dependent_density"] * np.clip(y / LUNG_HEIGHT, 0, 1)
    air = air + 0.02 * canvas.smooth_noise(rng, 24, 24, side)
    tissue = 0.82 + 0.04 * bend / 0.05 - 0.10 * canvas.inside(-canvas.ellipse(x, y, (0, 0.02), (0.88, 0.71)), 0.1)
    air = air + (0.70 - air) * 0.65 * canvas.strokes(_vessels(parameters, rng), side)
    for opacity in parameters["opacities"]:
        air = _with_opacity(air, opacity, parameters, x, y, rng)
    tissue = tissue + 0.18 * canvas.inside(spine, 0.3) + 0.16 * _ribs(x, y)
    slice_ = body * (lungs * np.minimum(air, 0.85) + (1 - lungs) * tissue) + 0.02
    slice_ = slice_ + parameters["noise"] * rng.standard_normal((side, side))
    return 0.45 + parameters["gain"] + parameters["contrast"] * (slice_ - 0.45)


def _centre(opacity: dict, size: float) -> tuple[float, float]:
    sign = LUNGS[opacity["lung"]]
    lateral, posterior = np.cos(opacity["angle"]), np.sin(opacity["angle"])
    y = LUNG_Y + opacity["reach"] * LUNG_HEIGHT * size * posterior
    return sign * (LUNG_X + opacity["reach"] * LUNG_WIDTH * size * lateral) - 0.10 * sign * y, y


def _with_opacity(air, opacity: dict, parameters: dict, x, y, rng: np.random.Generator) -> np.ndarray:
    """Brightens the air of a lung: sharply for a nodule, hazily and unevenly for a patch."""
    centre, radius = _centre(opacity, parameters["lung_size"]), opacity["radius"]
    distance = canvas.ellipse(x, y, centre, (radius, radius))
    if parameters["finding"] == "nodule":
        return air + opacity["strength"] * canvas.inside(distance, 0.4)
    texture = canvas.smooth_noise(rng, 12, 12, x.shape[0])
    uneven, soft = (0.45, 0.8) if parameters["finding"] == "hazy patches" else (0.12, 0.7)
    haze = canvas.inside(distance + 0.25 * texture, soft) * np.clip(1 + uneven * texture, 0.3, 1.7)
    return air + opacity["strength"] * haze


def _vessels(parameters: dict, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Branches from each hilum outwards, each forking once."""
    lines = []
    for sign in LUNGS.values():
        hilum = np.array([sign * 0.20, 0.05])
        for angle in np.linspace(-1.35, 1.35, parameters["vessels"]) + rng.normal(0, 0.12, parameters["vessels"]):
            reach, start = rng.uniform(0.22, 0.4), rng.uniform(0.0, 0.12)
            way = np.array([sign * np.cos(angle) * 0.8, np.sin(angle) * 1.2])
            root, fork = hilum + start * way, hilum + reach * way
            lines.append((canvas.posed_points(np.array([root, fork]), parameters), 0.02))
            for turn in (-0.35, 0.3):
                step = rng.uniform(0.08, 0.2) * np.array(
                    [sign * np.cos(angle + turn) * 0.8, np.sin(angle + turn) * 1.2]
                )
                lines.append((canvas.posed_points(np.array([fork, fork + step]), parameters), 0.012))
    return lines


def _ribs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cut ribs: bright dashes in the chest wall."""
    wall = canvas.inside(np.abs(canvas.ellipse(x, y, (0, 0.02), (0.84, 0.67))) - 0.03, 0.06)
    return wall * (np.sin(9 * np.arctan2(y, x)) > 0.35)
