"""Paediatric chest X-ray phantoms: rib cage, heart, diaphragm and lungs, clear or partly filled with fluid.

The signs are those of the WHO's reading of children's radiographs (Cherian 2005): consolidation, dense and focal, or
diffuse haze in both lungs. Kermany 2018 calls the first bacterial and the second viral pneumonia.
Physics: Beer and Lambert (intensity falls exponentially with coefficient times thickness); attenuation coefficients of
NIST (Hubbell and Seltzer) at 50 keV, about the mean energy of a child's chest radiograph; Dance, Diagnostic Radiology
Physics, IAEA 2014 (scatter, photon noise)."""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas
from mlprobe_utils.synthetic.phantoms.canvas import LUNGS, looks_like, sign

LABELS = ("PNEUMONIA", "NORMAL")
SOFT_TISSUE, LUNG, BONE = 0.23, 0.06, 0.60  # per cm; the lung is a quarter tissue, the rest air; bone of a child
PHOTONS = 20_000  # that would reach one of 64 x 64 pixels through air
SCATTER = 0.25  # scattered over primary photons behind the grid
ZONES = {"upper": -0.45, "middle": -0.05, "lower": 0.3}  # height of a zone's centre
THICKNESS, LUNG_THICKNESS = 13.0, 9.0  # cm, of a child's chest from front to back, and of a lung
RIB_SPACING, RIB_RADIUS, RIB_CENTIMETRES = 0.18, 0.045, 0.8  # half image sides twice; bone along the ray, cm
DIFFUSE = 0.3  # share of pneumonias with haze in both lungs

# Means (PNEUMONIA, NORMAL) and spread, cm of lung filled with fluid; normal lungs have shadows where vessels cross.
SIGNS = {"consolidation": (4.8, 0.3, 0.9), "haze": (3.0, 0.1, 0.5)}


def brightness(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    exposed = film(integral(parameters, rng, side), rng)
    # the display spans what a chest attenuates: from 0.7 (lung at the rim) to 3.5 (spine before the liver)
    return 0.5 + parameters["contrast"] * ((exposed - 0.7) / 2.8 - 0.5) + parameters["gain"]


def nuisance(rng: np.random.Generator) -> dict:
    return {
        **canvas.random_view(rng, shift=0.07, rotation=6, scale=0.07, highest=-0.6),
        "gain": float(rng.normal(0.0, 0.06)),  # brightness
        "contrast": float(rng.uniform(0.85, 1.15)),
        "stature": float(rng.uniform(0.85, 1.15)),  # thickness of the chest against the typical child's
        "inspiration": float(rng.uniform(0.85, 1.1)),  # thickness of the lungs, likewise
        "markings": float(rng.uniform(0.15, 0.4)),  # cm, vessels of the lung
        "hila": float(rng.uniform(0.6, 1.8)),  # cm, vessels where they enter the lung
        "rib_phase": float(rng.uniform(0, RIB_SPACING)),
        "rib_bone": float(rng.uniform(0.7, 1.3)),
        "heart": float(rng.uniform(0.8, 1.2)),
        "diaphragm": float(rng.uniform(0.48, 0.66)),
        "stomach": float(max(rng.normal(0, 2), 0)),  # cm of air below the left diaphragm
    }


def findings(label: str, parameters: dict, difficulty: float, rng: np.random.Generator) -> dict:
    """`pattern` ("focal": consolidation in one or two places; "diffuse": haze in both lungs; "clear"), `haze` (cm of
    fluid in the ray) and `opacities`, a list with the lung, zone, place, radii and strength (cm of fluid) of each."""
    diffuse, shown = rng.random() < DIFFUSE, looks_like(label, LABELS, rng)
    ill = shown == "PNEUMONIA"
    drawn = {name: sign(rng, law, ill and diffuse == (name == "haze"), difficulty, 0) for name, law in SIGNS.items()}
    places = [(lung, zone) for lung in LUNGS for zone in ZONES]
    chosen = rng.choice(len(places), size=1 + int(rng.random() < 0.5), replace=False)
    opacities = [
        {
            "lung": lung,
            "zone": zone,
            "x": float(LUNGS[lung] * rng.uniform(0.34, 0.54)),
            "y": float(ZONES[zone] + rng.uniform(-0.08, 0.08)),
            "width": float(rng.uniform(0.26, 0.36)),
            "height": float(rng.uniform(0.26, 0.40)),
            "strength": float(drawn["consolidation"] * rng.uniform(0.9, 1.1)),
        }
        for lung, zone in (places[i] for i in chosen)
    ]
    pattern = "clear" if label == "NORMAL" else "diffuse" if diffuse else "focal"
    return {"looks_like": shown, "pattern": pattern, "haze": drawn["haze"], "opacities": opacities}


def integral(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    """Coefficient times thickness along every ray, float [side, side]; `rng` is consumed for unevenness."""
    x, y = canvas.posed_grid(side, parameters)
    bend = canvas.smooth_noise(rng, 5, 5, side)
    lung = parameters["inspiration"] * LUNG_THICKNESS * _lungs(parameters, x, y, bend)
    width = 0.84 + 0.06 * y + 0.01 * bend + 0.4 * canvas.inside(y + 0.62, 0.45)  # the shoulders are wider
    trunk = np.sqrt(np.clip(1 - np.square(x / width) ** 2, 0, 1)) * canvas.inside(0.42 * np.abs(x) - 0.98 - y, 0.2)
    neck = 0.6 * canvas.inside(np.abs(x) - 0.26, 0.12) * canvas.inside(y + 0.6, 0.2)
    belly = 0.12 * canvas.inside(parameters["diaphragm"] - y, 0.3)
    body = parameters["stature"] * (THICKNESS * np.maximum(trunk * (0.94 + belly), neck))
    body -= parameters["stomach"] * canvas.inside(canvas.ellipse(x, y, (0.36, 0.78), (0.2, 0.12)), 0.6)

    marking = np.abs(canvas.smooth_noise(rng, 28, 28, side))
    hila = np.exp(-(((np.abs(x) - 0.2) / 0.12) ** 2) - ((y + 0.05) / 0.22) ** 2)
    filled = (parameters["markings"] + parameters["hila"] * hila) * marking
    texture = canvas.smooth_noise(rng, 14, 14, side)
    filled = filled + parameters["haze"] * np.clip(1 + 0.4 * texture, 0.2, 1.8)
    for opacity in parameters["opacities"]:
        distance = canvas.ellipse(x, y, (opacity["x"], opacity["y"]), (opacity["width"], opacity["height"]))
        filled = filled + opacity["strength"] * canvas.inside(distance + 0.15 * texture, 0.8)
    return line_integral(body, lung, _bones(parameters, x, y), np.minimum(filled, lung))


def _lungs(parameters: dict, x: np.ndarray, y: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Thickness of lung relative to its greatest, 0..1: less heart, mediastinum and what the diaphragm covers."""
    across = (np.abs(x) - 0.42) / (0.35 + 0.06 * np.clip(y, -1, 1))
    distance = across**2 + np.square((y - 0.05) / 0.84) ** 2 + 0.05 * bend
    lung = np.sqrt(np.clip(1.6 * (1 - distance), 0, 1))
    dome = y - parameters["diaphragm"] - 0.5 * (np.abs(x) - 0.38) ** 2 - 0.05 * np.sign(x)
    size = parameters["heart"]
    heart = canvas.ellipse(x - 0.2 * y, y, (0.08, 0.25), (0.32 * size, 0.38 * size))
    # the heart takes the place of most of the lung in front of and behind it
    return lung * canvas.inside(dome, 0.08) * (1 - 0.85 * canvas.inside(heart, 0.2))


def _bones(parameters: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Thickness of bone along the ray, cm: ribs as curved tubes, clavicles, spine."""
    away = np.abs(x)
    arch = y - 0.55 * (away - 0.1) ** 2 - 0.10 * away + parameters["rib_phase"]
    offset = (arch % RIB_SPACING) - RIB_SPACING / 2  # from the middle line of the nearest rib
    ribs = RIB_CENTIMETRES * np.sqrt(np.clip(1 - (offset / RIB_RADIUS) ** 2, 0, 1))
    ribs = ribs * canvas.inside(away - 0.82, 0.08) * canvas.inside(0.1 - away, 0.1)
    ribs = ribs * canvas.inside(y - 0.75, 0.2) * canvas.inside(-0.8 - y, 0.1)
    # a tube crosses the ray longer where it turns towards it, at the side of the chest
    ribs = parameters["rib_bone"] * ribs * (1 + 0.8 * np.square(x) ** 2)
    clavicle = np.exp(-(((y + 0.72 + 0.2 * (away - 0.2)) / 0.04) ** 2)) * canvas.inside(away - 0.72, 0.1)
    disc = 0.85 + 0.15 * np.cos(2 * np.pi * y / RIB_SPACING)
    return ribs + 0.8 * clavicle * canvas.inside(0.08 - away, 0.1) + 0.9 * disc * canvas.inside(away - 0.09, 0.08)


def line_integral(body: np.ndarray, lung: np.ndarray, bone: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Coefficient times thickness, summed along every ray, from cm [side, side] of body; lung, bone and lung that fluid
    has filled are parts of it."""
    aerated = np.maximum(lung - filled, 0)
    return SOFT_TISSUE * (body - aerated) + LUNG * aerated + (BONE - SOFT_TISSUE) * bone


def film(integral: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The negative logarithm of what the detector counts, float [side, side]: the integral, with scatter and noise."""
    side = len(integral)
    primary = np.exp(-integral)  # the share of the photons that pass without any interaction
    # scattered photons come from all around: the primary image, blurred to an eighth of its side
    coarse = canvas.enlarge(canvas.enlarge(primary, 8), side)
    photons = PHOTONS * (64 / side) ** 2
    counted = rng.poisson(photons * (primary + SCATTER * np.maximum(coarse, 0)))
    return -np.log(np.maximum(counted, 1) / (photons * (1 + SCATTER)))
