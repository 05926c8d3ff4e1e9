"""Chest CT phantoms: an axial slice in a lung window, clear or with ground-glass patches or denser opacities.

The signs follow the RSNA consensus on COVID-19 (Simpson 2020): ground glass, in both lungs, several, at the rim; other
opacities are denser, sharper, fewer, on one side. Physics: Hounsfield 1973 (a unit is a thousandth of the attenuation
of water, which is 0; air is -1000); Riederer, Pelc and Chesler 1978 (noise power of filtered back-projection: the ramp
times the apodisation, hence band-passed)."""

import functools

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas
from mlprobe_utils.synthetic.phantoms.canvas import LUNGS, gap, looks_like, sign

LABELS = ("COVID", "NonCOVID")
AIR, FAT, WATER, SOFT_TISSUE, BLOOD, BONE = -1000, -100, 0, 45, 40, 450  # Hounsfield units
WINDOW_LEVEL = -550  # Hounsfield units: of the lung window
CELLS = 64  # of the noise, across and down: the detector's resolution is the same whatever the image's side
LUNG_X, LUNG_WIDTH, LUNG_HEIGHT = 0.44, 0.36, 0.58
FAINTEST = -620  # Hounsfield units: what is fainter would be lost beside the dependent lung
CLEAR = 0.4  # share of NonCOVID slices without any opacity

# Means (COVID, other opacities) and spread of what tells the opacities apart.
SIGNS = {
    "density": (-440, -20, 140),  # Hounsfield units in the middle of an opacity
    "softness": (0.75, 0.35, 0.22),  # width of the edge, relative to the radius
    "reach": (0.78, 0.48, 0.17),  # distance from the lung's middle, relative to its radius
    "radius": (0.31, 0.21, 0.045),
    "both": (0.8, 0.2, 0.45),  # in both lungs from 0.5
    "number": (3.3, 1.6, 0.95),  # of opacities, rounded
}


def brightness(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    noise = parameters["noise"] * reconstruction_noise(rng, side)
    units = hounsfield(parameters, rng, side) + noise
    return np.clip((units - (WINDOW_LEVEL - parameters["gain"])) / parameters["window"] + 0.5, 0, 1)


def nuisance(rng: np.random.Generator) -> dict:
    return {
        **canvas.random_view(rng, shift=0.06, rotation=8, scale=0.08, highest=-0.4),
        "gain": float(rng.normal(0, 40)),  # Hounsfield units that the window is shifted by
        "window": float(rng.uniform(1300, 1700)),  # Hounsfield units, width
        "noise": float(rng.uniform(20, 55)),  # Hounsfield units, standard deviation
        "lung_density": float(rng.uniform(-890, -825)),  # depends on how deeply the patient breathes
        "dependent_density": float(rng.uniform(0, 110)),  # Hounsfield units more where blood pools, at the back
        "vessels": int(rng.integers(5, 9)),
        "heart": float(rng.uniform(0.75, 1.25)),
        "lung_size": float(rng.uniform(0.88, 1.06)),
        "fat": float(rng.uniform(0.04, 0.12)),  # thickness under the skin
    }


def findings(label: str, parameters: dict, difficulty: float, rng: np.random.Generator) -> dict:
    """`opacities`, a list with the lung, place and radius of each; `density` (Hounsfield units) and `softness` of all,
    None where the lungs are clear."""
    shown = looks_like(label, LABELS, rng)
    if shown == "NonCOVID" and rng.random() < CLEAR:
        return {"looks_like": shown, "density": None, "softness": None, "opacities": []}
    drawn = {name: sign(rng, law, shown == "COVID", difficulty) for name, law in SIGNS.items()}
    radius = max(drawn["radius"] * (0.5 + 0.5 * gap(difficulty)), 0.1)  # the smaller, the nearer to clear
    first = str(rng.choice(list(LUNGS)))
    second, both = next(lung for lung in LUNGS if lung != first), drawn["both"] > 0.5
    opacities = [
        {
            "lung": second if both and i % 2 else first,
            "angle": float(rng.normal(0.5, 0.8)),  # 0 is lateral, pi/2 posterior
            "reach": float(np.clip(drawn["reach"] + rng.normal(0, 0.08), 0.1, 0.95)),
            "radius": float(radius * rng.uniform(0.8, 1.2)),
        }
        for i in range(int(np.clip(round(drawn["number"]), 1 + both, 5)))
    ]
    density = float(np.clip(drawn["density"], FAINTEST, SOFT_TISSUE))
    softness = float(np.clip(drawn["softness"], 0.15, 1))
    return {"looks_like": shown, "density": density, "softness": softness, "opacities": opacities}


def hounsfield(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    """The slice without noise, Hounsfield units, float32 [side, side]; `rng` is consumed for vessels and unevenness."""
    x, y = canvas.posed_grid(side, parameters)
    bend = 0.05 * canvas.smooth_noise(rng, 5, 5, side)
    wall = canvas.ellipse(x, y, (0, 0.02), (0.96, 0.76)) + 0.3 * bend
    muscle = wall + parameters["fat"]
    size, heart = parameters["lung_size"], parameters["heart"]
    radii = LUNG_WIDTH * size, LUNG_HEIGHT * size
    lungs = [canvas.ellipse(x + 0.10 * lung * y, y, (lung * LUNG_X, 0), radii) for lung in LUNGS.values()]
    covered = np.maximum(
        canvas.inside(canvas.ellipse(x, y, (0.10, -0.18), (0.24 * heart, 0.27 * heart)), 0.15),
        canvas.inside(canvas.ellipse(x, y, (0.14, 0.34), (0.08, 0.08)), 0.3),  # the aorta
    )
    ribs = canvas.inside(np.abs(muscle + 0.06) - 0.03, 0.06) * (np.sin(9 * np.arctan2(y, x)) > 0.35)  # cut: dashes
    layers = [
        (0.5 * canvas.inside(np.abs(y - 0.9 + 0.12 * x**2) - 0.02, 0.03), WATER),  # the table
        (canvas.inside(wall, 0.06), FAT),
        (canvas.inside(muscle, 0.06), SOFT_TISSUE),
        (ribs, BONE),
        (canvas.inside(np.minimum(*lungs) + bend, 0.12) * (1 - covered), _air_spaces(parameters, rng, x, y)),
        (canvas.inside(canvas.ellipse(x, y, (0, 0.46), (0.13, 0.12)), 0.3), BONE),  # the spine
        (canvas.inside(canvas.ellipse(x, y, (0.0, 0.1), (0.07, 0.06)), 0.5), AIR),  # the trachea
    ]
    units = np.full((side, side), AIR, np.float32)
    for share, tissue in layers:
        units = units + share * (tissue - units)  # partial volume: a pixel with two tissues shows the mean
    return units


def _air_spaces(parameters: dict, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Hounsfield units of the lungs: air, opacities, vessels (which stay visible in ground glass)."""
    side = len(x)
    air = parameters["lung_density"] + parameters["dependent_density"] * np.clip(y / LUNG_HEIGHT, 0, 1)
    air = air + 15 * canvas.smooth_noise(rng, 24, 24, side)
    if parameters["opacities"]:
        texture = canvas.smooth_noise(rng, 14, 14, side)
        hazy = np.zeros_like(air)
        for opacity in parameters["opacities"]:
            lung, reach = LUNGS[opacity["lung"]], opacity["reach"]
            down = reach * LUNG_HEIGHT * parameters["lung_size"] * np.sin(opacity["angle"])
            across = LUNG_X + reach * LUNG_WIDTH * parameters["lung_size"] * np.cos(opacity["angle"])
            centre = lung * across - 0.10 * lung * down, down
            distance = canvas.ellipse(x, y, centre, (opacity["radius"],) * 2)
            hazy = np.maximum(hazy, canvas.inside(distance + 0.15 * texture, parameters["softness"]))
        air = air + hazy * (parameters["density"] + 50 * texture - air)
    vessels = 0.65 * canvas.strokes(_vessels(parameters, rng), side)
    return air + vessels * (np.maximum(air, BLOOD) - air)


def _vessels(parameters: dict, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Branches from each hilum outwards, each forking once: (points [n, 2], width)."""
    n = parameters["vessels"]
    sides = np.repeat(list(LUNGS.values()), n)
    angles = np.tile(np.linspace(-1.35, 1.35, n), 2) + rng.normal(0, 0.12, 2 * n)
    reach, start = rng.uniform(0.15, 0.34, (2 * n, 1)), rng.uniform(0.0, 0.1, (2 * n, 1))
    hilum = np.stack([sides * 0.2, np.full(2 * n, 0.05)], axis=1)

    def directions(turn: float) -> np.ndarray:
        return np.stack([sides * np.cos(angles + turn) * 0.8, np.sin(angles + turn) * 1.2], axis=1)

    fork = hilum + reach * directions(0)
    tips = [fork + rng.uniform(0.08, 0.2, (2 * n, 1)) * directions(turn) for turn in (-0.35, 0.3)]
    points = np.stack([hilum + start * directions(0), fork, *tips]).reshape(-1, 2)
    cos, sin = np.cos(np.radians(parameters["rotation"])), np.sin(np.radians(parameters["rotation"]))
    points = points @ np.array([[cos, sin], [-sin, cos]])  # the inverse of `posed_grid`
    points = points * parameters["scale"] + [parameters["shift_x"], parameters["shift_y"]]
    root, fork, *tips = points.reshape(4, -1, 2)
    lines = [(line, 0.018) for line in np.stack([root, fork], axis=1)]
    return lines + [(line, 0.011) for tip in tips for line in np.stack([fork, tip], axis=1)]


@functools.cache
def noise_spectrum() -> np.ndarray:
    """Amplitude of the noise at each frequency of `numpy.fft.rfft2`, unit variance: ramp times Hann apodisation."""
    down, across = np.fft.fftfreq(CELLS)[:, None], np.fft.rfftfreq(CELLS)
    frequency = np.hypot(down, across)
    power = frequency * np.cos(np.pi * np.minimum(frequency, 0.5)) ** 2
    both_halves = np.where((across > 0) & (across < 0.5), 2, 1)  # rfft2 leaves out the mirrored half
    return np.sqrt(power / (power * both_halves).sum() * CELLS**2)


def reconstruction_noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of filtered back-projection, float32 [side, side], of standard deviation 1 before interpolation to it."""
    white = np.fft.rfft2(rng.standard_normal((CELLS, CELLS)))
    return canvas.enlarge(np.fft.irfft2(white * noise_spectrum(), (CELLS, CELLS)), side)
