"""Breast ultrasound phantoms: skin, fat, glandular tissue and muscle, and a lesion with shape, margin and attenuation.

The signs are those of the ACR BI-RADS atlas: orientation (wider or taller), margin (smooth or irregular), posterior
features (enhancement or shadow), which follow here from how much the lesion attenuates. Physics, from maps [SAMPLES,
BEAMS] of scatterers and attenuation, the probe on top: Wagner, Smith, Sandrik and Lopez 1983 (statistics of speckle);
Szabo, Diagnostic Ultrasound Imaging (attenuation about linear in frequency, time-gain compensation, compounding, log
compression)."""

import functools

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas
from mlprobe_utils.synthetic.phantoms.canvas import gap, looks_like, sign

LABELS = ("normal", "benign", "malignant")
SAMPLES = BEAMS = 64
DEPTH = 4.0  # cm, also the width
FREQUENCY = 8.0  # MHz
DYNAMIC_RANGE = 60.0  # dB between black and white
ZONES = 8  # of depth, each with a beam width of its own, as scanners stitch pictures from focal zones
LOOKS = 3  # directions that the beam is steered in: spatial compounding averages their intensities
AXIAL_WIDTH = 0.6  # samples, standard deviation of the pulse: a wavelength or two
FOCUS, LATERAL_WIDTH, SPREADING = 0.35, 0.7, 0.9  # depth (share) of the focus; beams; beams more a share of depth
HARMONICS = np.arange(3, 9)  # waves round the lesion's contour: lobes to spicules, each several pixels wide
CENTIMETRES = DEPTH / 2  # in half an image side
SKIN = 0.12  # half image sides, thickness
TISSUE = 0.65  # dB per cm and MHz: what breast tissue attenuates

# Means (benign, malignant) and spread of what tells the lesions apart.
SIGNS = {
    "log_aspect": (-0.50, 0.36, 0.34),  # logarithm of height over width
    "irregularity": (0.04, 0.20, 0.07),  # standard deviation of the contour's radius, relative
    "attenuation": (0.25, 1.05, 0.40),  # dB per cm and MHz
    "softness": (0.12, 0.34, 0.14),  # width of the margin, relative to the radius
}


def brightness(parameters: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    return scan(*tissue(parameters, rng), parameters, rng, side)


def scan(level: np.ndarray, attenuation: np.ndarray, parameters: dict, rng: np.random.Generator, side: int):
    """What is seen of maps as of `tissue`, as `brightness`."""
    shown = b_mode(echo(10 ** (level / 20), rng), loss(attenuation), parameters["compensation"], parameters["gain"])
    return canvas.enlarge(shown, side)


def lesion_mask(parameters: dict, side: int) -> np.ndarray:
    """Where the lesion is, bool [side, side]; all False where there is none."""
    if parameters["darkness"] is None:
        return np.zeros((side, side), dtype=bool)
    return _lesion_distance(parameters, *canvas.grid(side)) < 0


def nuisance(rng: np.random.Generator) -> dict:
    return {
        **canvas.random_marks(rng),
        "gain": float(rng.normal(-27.0, 3.5)),  # dB
        "compensation": float(rng.uniform(0.42, 0.66)),  # dB per cm and MHz: how well the depth is evened out
        "rotation": float(rng.uniform(-10, 10)),  # degrees, of the layers against the probe
        "fat_depth": float(rng.uniform(-0.75, -0.3)),
        "muscle_depth": float(rng.uniform(0.45, 0.85)),
        "fat_level": float(rng.uniform(-18, -4)),  # dB against glandular tissue
        "lobules": float(rng.uniform(2.5, 6.0)),  # dB, spread between lobules of the tissue
        "contact": float(rng.uniform(0, 9)),  # dB, spread between beams of what is lost at the skin
        "x": float(rng.uniform(-0.55, 0.55)),
        "y": float(rng.uniform(-0.4, 0.15)),
        "size": float(rng.uniform(0.30, 0.42)),
    }


def findings(label: str, parameters: dict, difficulty: float, rng: np.random.Generator) -> dict:
    """The signs of the lesion, None where there is none; `posterior` is the gain behind it from its attenuation, dB."""
    if label == "normal":
        return {"looks_like": label} | dict.fromkeys(["darkness", *SIGNS, "posterior", "phases"])
    drawn, shown = {}, looks_like(label, LABELS[1:], rng)
    for name, law in SIGNS.items():
        drawn[name] = sign(rng, law, shown == "benign", difficulty, -1.0 if name == "log_aspect" else 0.02)
    height = parameters["size"] * np.exp(drawn["log_aspect"] / 2) * CENTIMETRES
    return drawn | {
        "looks_like": shown,
        "darkness": float(max(rng.normal(20 * gap(difficulty), 4.0), 4.0)),  # dB below the tissue around
        "posterior": float(2 * FREQUENCY * (TISSUE - drawn["attenuation"]) * 2 * height),
        "phases": [float(phase) for phase in rng.uniform(0, 2 * np.pi, len(HARMONICS))],
    }


def _lesion_distance(parameters: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Relative distance to the lesion's wavy contour, negative inside."""
    root = np.exp(parameters["log_aspect"] / 2)  # width times height is the same for every aspect
    dx, dy = (x - parameters["x"]) / (parameters["size"] / root), (y - parameters["y"]) / (parameters["size"] * root)
    angle = np.linspace(-np.pi, np.pi, 128)
    weights = 1 / np.sqrt(HARMONICS)  # the finer, the lower; scaled to a standard deviation of one
    waves = np.cos(np.outer(angle, HARMONICS) + parameters["phases"]) @ (weights * np.sqrt(2 / (weights**2).sum()))
    contour = np.clip(1 + parameters["irregularity"] * waves, 0.5, 1.7)
    return np.sqrt(dx**2 + dy**2) / np.interp(np.arctan2(dy, dx), angle, contour) - 1


def tissue(parameters: dict, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Maps of echogenicity (dB against glandular tissue) and of attenuation (dB per cm and MHz), [SAMPLES, BEAMS]."""
    x, y = canvas.grid(BEAMS)
    depth = y + np.tan(np.radians(parameters["rotation"])) * x + 0.07 * canvas.smooth_noise(rng, 3, 4, BEAMS)
    fat, muscle = parameters["fat_depth"], parameters["muscle_depth"]
    streaks = canvas.smooth_noise(rng, 24, 5, BEAMS)  # fibres run along the layers
    lobules = canvas.smooth_noise(rng, 7, 5, BEAMS)
    level = np.where(depth < fat, parameters["fat_level"], np.where(depth < muscle, 0, -10)).astype(np.float32)
    level += parameters["lobules"] * lobules + 5 * streaks + 5 * np.maximum(streaks - 0.8, 0)
    for border, above in ((-0.97, 16), (fat, 6), (muscle, 12)):  # skin and fasciae reflect
        level += above * np.exp(-(((depth - border) / 0.04) ** 2))
    attenuation = TISSUE + 0.06 * lobules
    # where the probe touches the skin badly, less gets in: shadows that no lesion throws
    columns = np.maximum(canvas.smooth_noise(rng, 1, 9, BEAMS), 0)
    skin = 1.0 - np.clip((y + 1) / SKIN, 0, 1)
    attenuation += skin * columns * parameters["contact"] / (FREQUENCY * SKIN * CENTIMETRES)
    if parameters["darkness"] is not None:
        lesion = canvas.inside(_lesion_distance(parameters, x, y), parameters["softness"])
        level += lesion * (2.0 * streaks - parameters["darkness"] - level)
        attenuation = attenuation + lesion * (parameters["attenuation"] - attenuation)
    return level, attenuation


@functools.cache
def point_spread() -> tuple[np.ndarray, np.ndarray]:
    """The blur of the pulse [SAMPLES, SAMPLES] and of the beam [ZONES, BEAMS, BEAMS], each of unit energy."""

    def gaussian(n: int, width: np.ndarray) -> np.ndarray:
        offset = np.arange(n)[:, None] - np.arange(n)
        kernel = np.exp(-((offset / width) ** 2) / 2)
        kernel[kernel < 1e-6] = 0  # numbers too small for float32's full precision make products slow
        return (kernel / np.sqrt((kernel**2).sum(-2, keepdims=True))).astype(np.float32)

    depth = (np.arange(ZONES) + 0.5) / ZONES
    width = LATERAL_WIDTH + SPREADING * np.maximum(depth - FOCUS, 0.4 * (FOCUS - depth))
    return gaussian(SAMPLES, np.float64(AXIAL_WIDTH)).T.copy(), gaussian(BEAMS, width[:, None, None])


def echo(echogenicity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The echo before attenuation, real and imaginary parts of every look, float32 [SAMPLES, 2 * LOOKS, BEAMS]: fully
    developed speckle. Scatterers of random phase add up to a circular complex normal number in each cell, which the
    point-spread function blurs; an envelope is Rayleigh distributed (Wagner 1983), the mean intensity twice the square
    of `echogenicity` [SAMPLES, BEAMS]."""
    along, across = point_spread()
    scatterers = rng.standard_normal((SAMPLES, 2 * LOOKS, BEAMS), dtype=np.float32)
    scatterers *= echogenicity[:, None].astype(np.float32)
    pulsed = along @ scatterers.reshape(SAMPLES, -1)
    return (pulsed.reshape(ZONES, -1, BEAMS) @ across).reshape(SAMPLES, 2 * LOOKS, BEAMS)


def loss(attenuation: np.ndarray) -> np.ndarray:
    """What an echo has lost when it is back at the probe, dB at every sample's middle, float [SAMPLES, BEAMS]: the
    integral of `attenuation` (dB per cm and MHz), of which shadow and enhancement are differences."""
    step = 2 * FREQUENCY * DEPTH / SAMPLES * attenuation
    return np.cumsum(step, axis=0) - step / 2


def b_mode(received: np.ndarray, lost: np.ndarray, compensated: float, gain: float) -> np.ndarray:
    """Brightness, float [SAMPLES, BEAMS]: 1 for an echo of amplitude 1 (and no gain, dB), 0 for DYNAMIC_RANGE less; the
    time-gain compensation takes all tissue to attenuate `compensated` dB per cm and MHz."""
    depth = (np.arange(SAMPLES, dtype=np.float32)[:, None] + 0.5) / SAMPLES * DEPTH
    intensity = np.square(received).sum(1) / (received.shape[1] // 2)  # squared envelope, the mean over looks
    level = 10 * np.log10(intensity + 1e-12) - lost + 2 * FREQUENCY * compensated * depth + gain
    return np.clip(1 + level / DYNAMIC_RANGE, 0, 1)
