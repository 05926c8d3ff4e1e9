"""The physics of pulse-echo ultrasound: from maps of scatterers and attenuation to a log-compressed picture.

Every map is [SAMPLES, BEAMS]: one column a beam of a linear array, one row a sample along the beam, the probe on top.
Sources: Wagner, Smith, Sandrik and Lopez 1983 (statistics of speckle); Szabo, Diagnostic Ultrasound Imaging (the
attenuation of soft tissue grows about linearly with frequency; time-gain compensation; compounding; log compression).
"""

import functools

import numpy as np

SAMPLES, BEAMS = 64, 64
DEPTH = 4.0  # cm, also the width
FREQUENCY = 8.0  # MHz
DYNAMIC_RANGE = 60.0  # dB between black and white
ZONES = 8  # of depth, each with a beam width of its own, as scanners stitch pictures from focal zones
LOOKS = 3  # directions that the beam is steered in: spatial compounding averages their intensities
AXIAL_WIDTH = 0.6  # samples, standard deviation of the pulse: a wavelength or two
FOCUS, LATERAL_WIDTH, SPREADING = 0.35, 0.7, 0.9  # depth (share) of the focus; beams; beams more a share of depth


@functools.cache
def point_spread() -> tuple[np.ndarray, np.ndarray]:
    """The blur of the pulse [SAMPLES, SAMPLES] and of the beam [ZONES, BEAMS, BEAMS], which is narrowest in its focus.

    Unit energy of each keeps the mean intensity of the echo.
    """

    def gaussian(n: int, width: np.ndarray) -> np.ndarray:
        offset = np.arange(n)[:, None] - np.arange(n)
        kernel = np.exp(-((offset / width) ** 2) / 2)
        kernel[kernel < 1e-6] = 0  # numbers too small for float32's full precision make products slow
        return (kernel / np.sqrt((kernel**2).sum(-2, keepdims=True))).astype(np.float32)

    depth = (np.arange(ZONES) + 0.5) / ZONES
    width = LATERAL_WIDTH + SPREADING * np.maximum(depth - FOCUS, 0.4 * (FOCUS - depth))
    return gaussian(SAMPLES, np.float64(AXIAL_WIDTH)).T.copy(), gaussian(BEAMS, width[:, None, None])


def echo(echogenicity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The echo before attenuation: real and imaginary parts of every look, float32 [SAMPLES, 2 * LOOKS, BEAMS].

    Fully developed speckle: many scatterers of random phase in each cell add up to a circular complex normal number,
    which the point-spread function blurs; the envelope of one look is Rayleigh distributed, with a mean of 1.91
    standard deviations (Wagner 1983).

    Args:
        echogenicity: backscattered amplitude, float [SAMPLES, BEAMS]; the mean intensity is twice its square.
        rng: consumed.
    """
    along, across = point_spread()
    scatterers = rng.standard_normal((SAMPLES, 2 * LOOKS, BEAMS), dtype=np.float32)
    scatterers *= echogenicity[:, None].astype(np.float32)
    pulsed = along @ scatterers.reshape(SAMPLES, -1)
    return (pulsed.reshape(ZONES, -1, BEAMS) @ across).reshape(SAMPLES, 2 * LOOKS, BEAMS)


def loss(attenuation: np.ndarray) -> np.ndarray:
    """What an echo has lost when it is back at the probe, dB at the middle of every sample, float [SAMPLES, BEAMS].

    The integral of `attenuation` (dB per cm and MHz) there and back. Shadow and enhancement are nothing else: the loss
    behind a lesion differs from the loss beside it.
    """
    step = 2 * FREQUENCY * DEPTH / SAMPLES * attenuation
    return np.cumsum(step, axis=0) - step / 2


def b_mode(received: np.ndarray, lost: np.ndarray, compensated: float, gain: float) -> np.ndarray:
    """Brightness, float [SAMPLES, BEAMS], after time-gain compensation and log compression to `DYNAMIC_RANGE`.

    1 for an echo of amplitude 1 (and no gain), 0 for one that is `DYNAMIC_RANGE` below.

    Args:
        received: from `echo`.
        lost: from `loss`.
        compensated: dB per cm and MHz that the time-gain compensation takes all tissue to attenuate.
        gain: dB.
    """
    depth = (np.arange(SAMPLES, dtype=np.float32)[:, None] + 0.5) / SAMPLES * DEPTH
    intensity = np.square(received).sum(1) / (received.shape[1] // 2)  # squared envelope, the mean over looks
    level = 10 * np.log10(intensity + 1e-12) - lost + 2 * FREQUENCY * compensated * depth + gain
    return np.clip(1 + level / DYNAMIC_RANGE, 0, 1)
