"""The reference: how well the classes can be told from the same training images without any pretrained model.

A support vector machine on hand-made features: coarse grey levels, directions of edges, energy of textures. Its parts
were chosen by cross-validation of the train and validation images of six sets. It bounds from below what the images
tell. Its features keep places, which the mean of a vision tower's tokens need not: what a probe of such means lacks is
not in the mean, and may still be in the tokens.
"""

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.control_names import REFERENCE
from mlprobe_utils.evaluation.rows import image_rows

SIDE = 64  # pixels of the square that every working copy is reduced to
GREY_CELLS, CELLS = 8, 4  # along each side
DIRECTIONS = 9
EDGES = 1.5  # deviation of the Gaussian that images are smoothed with before their edges are looked at, pixels
TEXTURES = (1, 2, 4)  # deviations of the finer of two Gaussians; the coarser has twice as much
PENALTY = 3.0  # of the support vector machine, C
FOLDS = 5
TINY = 1e-6


def reference_rows(image_set: ImageSet, split: str) -> pd.DataFrame:
    """Rows of the test images (schema `rows.SCHEMA`, control REFERENCE), fitted on the train images as probes are.

    Probabilities are calibrated on held-out folds of the train images (Platt 1999).

    Raises:
        InputError: the train images are not of several classes with two images each, or there are no test images.
    """
    options = image_set.card.options
    training, tested = (image_set.part(split, part) for part in ("train", "test"))
    counts = training["option"].value_counts()
    if len(counts) < 2 or counts.min() < 2 or tested.empty:
        raise InputError(
            f"split '{split}' of '{image_set.card.slug}': the reference needs two train images of each of several "
            f"classes and a test image, found {counts.to_dict()} and {len(tested)}"
        )
    features = image_features(squares(image_set, [*training.index, *tested.index]))
    machine = make_pipeline(StandardScaler(), SVC(C=PENALTY))
    model = CalibratedClassifierCV(machine, cv=min(FOLDS, counts.min()), ensemble=False)
    model.fit(features[: len(training)], training["option"])
    chances = pd.DataFrame(model.predict_proba(features[len(training) :]), columns=model.classes_)
    constants = {"model": None, "stage": None, "order": None, "dataset": image_set.card.slug, "split": split}
    return image_rows(
        tested.assign(part="test"),
        options,
        chances.reindex(columns=options, fill_value=0.0).to_numpy(),
        **constants,
        data_hash=image_set.data_hash,
        control=REFERENCE,
    )


def squares(image_set: ImageSet, positions: list[int]) -> np.ndarray:
    """Working copies as grey squares of SIDE pixels, of mean 0 and deviation 1 each, float32 [images, SIDE, SIDE]."""
    grey = [Image.fromarray(image_set.pixels(position)).convert("L") for position in positions]
    pixels = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for image in grey])
    spread = pixels.std(axis=(1, 2), keepdims=True)
    return (pixels - pixels.mean(axis=(1, 2), keepdims=True)) / (spread + TINY)


def image_features(images: np.ndarray) -> np.ndarray:
    """Features of `squares`, float [images, features]: grey levels, edges, and textures at each of TEXTURES."""
    parts = [cell_means(images, GREY_CELLS), edges(images)]
    parts += [texture(images, deviation) for deviation in TEXTURES]
    return np.hstack(parts)


def cell_means(images: np.ndarray, cells: int) -> np.ndarray:
    """Mean of each of `cells` x `cells` cells, row by row, float [images, cells²]."""
    count, side = len(images), images.shape[1] // cells
    return images.reshape(count, cells, side, cells, side).mean(axis=(2, 4)).reshape(count, -1)


def edges(images: np.ndarray) -> np.ndarray:
    """How much edge each of CELLS x CELLS cells has in each of DIRECTIONS, of the smoothed images: float [images, 144].

    Histograms of oriented gradients (Dalal and Triggs 2005), normalised over the image, under the root.
    """
    vertical, horizontal = np.gradient(gaussian_filter(images, (0, EDGES, EDGES)), axis=(1, 2))
    angle = np.mod(np.arctan2(vertical, horizontal), np.pi)
    direction = np.minimum((angle / np.pi * DIRECTIONS).astype(int), DIRECTIONS - 1)
    strength = np.hypot(vertical, horizontal)
    found = np.hstack([cell_means(np.where(direction == one, strength, 0), CELLS) for one in range(DIRECTIONS)])
    return np.sqrt(found / (found.mean(axis=1, keepdims=True) + TINY))


def texture(images: np.ndarray, deviation: float) -> np.ndarray:
    """What one scale holds: deviation, minimum and maximum, and the energy of CELLS x CELLS cells, float [images, 19].

    The scale is that between two Gaussians, `deviation` and twice it in pixels (difference of Gaussians).
    """
    fine, coarse = (gaussian_filter(images, (0, width, width)) for width in (deviation, 2 * deviation))
    band = fine - coarse
    whole = [getattr(band, name)(axis=(1, 2))[:, None] for name in ("std", "min", "max")]
    return np.hstack([*whole, cell_means(np.square(band), CELLS)])
