"""The physics of a CT slice: Hounsfield units, the noise of filtered back-projection, the window of the display.

Sources: Hounsfield 1973 (a unit is a thousandth of the attenuation of water, which is 0; air is -1000); Riederer, Pelc
and Chesler 1978 (noise power of filtered back-projection: the ramp times the apodisation, hence band-passed).
"""

import functools

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas

AIR, LUNG, FAT, WATER, SOFT_TISSUE, BLOOD, BONE = -1000, -850, -100, 0, 45, 40, 450  # Hounsfield units
GROUND_GLASS = (-700, -300)  # between aerated lung and consolidation, vessels still seen
WINDOW_LEVEL, WINDOW_WIDTH = -550, 1500  # Hounsfield units: the lung window
CELLS = 64  # of the noise, across and down: the detector's resolution is the same whatever the image's side


@functools.cache
def noise_spectrum() -> np.ndarray:
    """Amplitude of the noise [CELLS, CELLS // 2 + 1] at each frequency of `numpy.fft.rfft2`; unit variance.

    The power is the ramp |f| of the reconstruction filter times a Hann apodisation.
    """
    down, across = np.fft.fftfreq(CELLS)[:, None], np.fft.rfftfreq(CELLS)
    frequency = np.hypot(down, across)
    power = frequency * np.cos(np.pi * np.minimum(frequency, 0.5)) ** 2
    both_halves = np.where((across > 0) & (across < 0.5), 2, 1)  # rfft2 leaves out the mirrored half
    return np.sqrt(power / (power * both_halves).sum() * CELLS**2)


def reconstruction_noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of filtered back-projection with a standard deviation of 1 (before interpolation to `side`), float32
    [side, side]."""
    white = np.fft.rfft2(rng.standard_normal((CELLS, CELLS)))
    return canvas.enlarge(np.fft.irfft2(white * noise_spectrum(), (CELLS, CELLS)), side)


def windowed(units: np.ndarray, level: float = WINDOW_LEVEL, width: float = WINDOW_WIDTH) -> np.ndarray:
    """Brightness 0..1: black `width / 2` below `level`, white as far above it; all in Hounsfield units."""
    return np.clip((units - level) / width + 0.5, 0, 1)
