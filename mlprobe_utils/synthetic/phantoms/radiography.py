"""The physics of a radiograph: from attenuation along the rays to the film.

Sources: Beer and Lambert (intensity falls exponentially with coefficient times thickness); attenuation coefficients of
NIST (Hubbell and Seltzer) at 50 keV, about the mean energy of a child's chest radiograph; Dance, Diagnostic Radiology
Physics, IAEA 2014 (scatter, photon noise).
"""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas

SOFT_TISSUE, LUNG, BONE = 0.23, 0.06, 0.60  # per cm; the lung is a quarter tissue, the rest air; bone of a child
PHOTONS = 20_000  # that would reach one of 64 x 64 pixels through air
SCATTER = 0.25  # scattered over primary photons behind the grid


def line_integral(body: np.ndarray, lung: np.ndarray, bone: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Coefficient times thickness, summed along every ray; no unit.

    Args:
        body: thickness of the whole body, cm, float [side, side].
        lung: of it the lung, cm.
        bone: of it bone, cm.
        filled: of the lung what fluid has filled, cm.

    Returns:
        float [side, side].
    """
    aerated = np.maximum(lung - filled, 0)
    return SOFT_TISSUE * (body - aerated) + LUNG * aerated + (BONE - SOFT_TISSUE) * bone


def transmitted(integral: np.ndarray) -> np.ndarray:
    """Share of the photons that pass without any interaction (Beer-Lambert)."""
    return np.exp(-integral)


def film(integral: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The negative logarithm of what the detector counts, scatter and photon noise included.

    Args:
        integral: from `line_integral`, float [side, side].
        rng: consumed.

    Returns:
        float [side, side]; the integral itself were there no scatter and no noise, up to a constant.
    """
    side = len(integral)
    primary = transmitted(integral)
    # scattered photons come from all around: the primary image, blurred to an eighth of its side
    coarse = canvas.enlarge(canvas.enlarge(primary, 8), side)
    photons = PHOTONS * (64 / side) ** 2
    counted = rng.poisson(photons * (primary + SCATTER * np.maximum(coarse, 0)))
    return -np.log(np.maximum(counted, 1) / (photons * (1 + SCATTER)))
