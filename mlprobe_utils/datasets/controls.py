"""Controls of an image set that need no model, and labels that no model can have learned. The reference, a support
vector machine on hand-crafted features, is a lower bound of what can be learned without a pretrained model."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.datasets.summary import FORMAT
from mlprobe_utils.evaluation.names import CLASSICAL, FILE, FILE_FORMAT, MAJORITY, WITHOUT_MODEL
from mlprobe_utils.evaluation.rows import SPLITS, image_rows, write_rows

ROWS, TASK = "controls.parquet", "control_task.parquet"
SEED = 0
CLUSTERS = 16
PERCENTILES = (5, 25, 50, 75, 95)
# of the reference, chosen by cross-validation on the train and validation images of six sets
SIDE = 64  # pixels of the square that every working copy is reduced to
GREY_CELLS, CELLS = 8, 4  # along each side
DIRECTIONS = 9
EDGES = 1.5  # deviation of the Gaussian that smooths images before the gradient is taken, pixels
TEXTURES = (1, 2, 4)  # deviations of the finer of two Gaussians; the coarser has twice as much
PENALTY = 3.0  # of the support vector machine, C
FOLDS = 5
TINY = 1e-6


def write_image_controls(image_set: ImageSet, split_rule: str, folder: Path) -> None:
    """Writes ROWS, those of `rows_without_model` and `reference_rows`, and TASK, from `control_task`."""
    statistics = pixel_statistics(image_set)
    rows = pd.concat([rows_without_model(image_set, split_rule, statistics), reference_rows(image_set, split_rule)])
    write_rows(rows, folder / ROWS)
    write_parquet(control_task(image_set, split_rule, statistics), folder / TASK)


def pixel_statistics(image_set: ImageSet) -> np.ndarray:
    """Mean, deviation, PERCENTILES, vertical and horizontal change (root mean square of the differences of neighbouring
    pixels) of the grey levels of each working copy: float [images, 9]."""
    rows = []
    for grey in (image_set.pixels(position).mean(axis=2) for position in range(len(image_set))):
        changes = [np.sqrt(np.square(np.diff(grey, axis=axis)).sum() / grey.size) for axis in (0, 1)]
        rows.append([grey.mean(), grey.std(), *np.percentile(grey, PERCENTILES), *changes])
    return np.array(rows)


def control_task(image_set: ImageSet, split_rule: str, statistics: np.ndarray) -> pd.DataFrame:
    """Labels that mean nothing, and that new images have too (Hewitt and Liang 2019): image, split, cluster, control.
    CLUSTERS clusters of standardised `pixel_statistics` (k-means, fitted on train images) are dealt one option each
    (`control`), in random order the one furthest from its share of the train images."""
    images = pd.concat([image_set.rows_of(split_rule, split).assign(split=split) for split in SPLITS[:3]])
    training = images.index[images["split"] == "train"]
    scaler = StandardScaler().fit(statistics[training])
    clusters = KMeans(min(CLUSTERS, len(training)), n_init=1, random_state=SEED)
    clusters.fit(scaler.transform(statistics[training]))
    found = clusters.predict(scaler.transform(statistics[images.index]))
    missing = {option: (images.loc[training, "option"] == option).sum() for option in image_set.card.options}
    sizes, dealt = np.bincount(clusters.labels_, minlength=clusters.n_clusters), {}
    for cluster in np.random.default_rng(SEED).permutation(clusters.n_clusters):
        dealt[cluster] = max(missing, key=missing.get)
        missing[dealt[cluster]] -= sizes[cluster]
    control = [dealt[cluster] for cluster in found]
    return images[["image", "split"]].assign(cluster=found, control=control).reset_index(drop=True)


def shuffled(labels: np.ndarray) -> np.ndarray:
    """The labels of train images permuted: what a probe then predicts correctly on them it has memorised."""
    return np.random.default_rng(SEED).permutation(labels)


def rows_without_model(image_set: ImageSet, split_rule: str, statistics: np.ndarray) -> pd.DataFrame:
    """Rows of the test images for each of WITHOUT_MODEL, fitted on all others: the majority class, or a logistic
    regression on pixel mode, format, extension; on this and the logarithms of size and bytes; on statistics."""
    manifest, options = image_set.manifest, image_set.card.options
    tested = image_set.rows_of(split_rule, "test").index
    fitted = manifest.index.difference(tested)
    codes = pd.Categorical(manifest["option"], options).codes
    combination = pd.get_dummies(manifest[FORMAT].agg("|".join, axis=1)).to_numpy(float)
    sizes = np.log(manifest[["width", "height", "bytes"]].to_numpy(float))
    features = {FILE_FORMAT: combination, FILE: np.hstack([combination, sizes])}
    frames = []
    for control in WITHOUT_MODEL:
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model, own = DummyClassifier() if control == MAJORITY else regression, features.get(control, statistics)
        model.fit(own[fitted], codes[fitted])
        found = pd.DataFrame(model.predict_proba(own[tested]), columns=np.take(options, model.classes_))
        frames.append(_test_rows(image_set, split_rule, found, control))
    return pd.concat(frames, ignore_index=True)


def reference_rows(image_set: ImageSet, split_rule: str) -> pd.DataFrame:
    """Rows of the test images for the reference, fitted on the train images as probes are, probabilities calibrated on
    held-out folds (Platt 1999). Raises InputError for a class with fewer than two train images."""
    training, tested = (image_set.rows_of(split_rule, split) for split in ("train", "test"))
    counts = training["option"].value_counts()
    if counts.min() < 2:
        where = f"split '{split_rule}' of '{image_set.card.slug}'"
        raise InputError(f"{where}: the reference needs two training images per class, found {counts.to_dict()}")
    pixels = map(image_set.pixels, [*training.index, *tested.index])
    grey = [Image.fromarray(own).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for own in pixels]
    features = image_features(np.stack([np.asarray(image, np.float32) for image in grey]))
    machine = make_pipeline(StandardScaler(), SVC(C=PENALTY))
    model = CalibratedClassifierCV(machine, cv=min(FOLDS, counts.min()), ensemble=False)
    model.fit(features[: len(training)], training["option"])
    found = pd.DataFrame(model.predict_proba(features[len(training) :]), columns=model.classes_)
    return _test_rows(image_set, split_rule, found, CLASSICAL)


def _test_rows(image_set: ImageSet, split_rule: str, found: pd.DataFrame, control: str) -> pd.DataFrame:
    options = image_set.card.options
    constants = {"model": None, "stage": None, "order": None, "dataset": image_set.card.slug, "split_rule": split_rule}
    constants |= {"data_hash": image_set.data_hash, "control": control}
    tested = image_set.rows_of(split_rule, "test").assign(split="test")
    return image_rows(tested, options, found[options].to_numpy(), **constants)


def image_features(images: np.ndarray) -> np.ndarray:
    """Grey levels, edges and textures of grey squares (float32 [images, SIDE, SIDE], standardised): [images, 265]."""
    spread = images.std(axis=(1, 2), keepdims=True)
    images = (images - images.mean(axis=(1, 2), keepdims=True)) / (spread + TINY)
    textures = (texture(images, deviation) for deviation in TEXTURES)
    return np.hstack([cell_means(images, GREY_CELLS), edges(images), *textures])


def cell_means(images: np.ndarray, cells: int) -> np.ndarray:
    """Float [images, cells²], row by row."""
    count, side = len(images), images.shape[1] // cells
    return images.reshape(count, cells, side, cells, side).mean(axis=(2, 4)).reshape(count, -1)


def edges(images: np.ndarray) -> np.ndarray:
    """Square roots of histograms of oriented gradients (Dalal and Triggs 2005): float [images, DIRECTIONS x CELLS²]."""
    vertical, horizontal = np.gradient(gaussian_filter(images, (0, EDGES, EDGES)), axis=(1, 2))
    angle = np.mod(np.arctan2(vertical, horizontal), np.pi)
    direction = np.minimum((angle / np.pi * DIRECTIONS).astype(int), DIRECTIONS - 1)
    strength = np.hypot(vertical, horizontal)
    found = np.hstack([cell_means(np.where(direction == one, strength, 0), CELLS) for one in range(DIRECTIONS)])
    return np.sqrt(found / (found.mean(axis=1, keepdims=True) + TINY))


def texture(images: np.ndarray, deviation: float) -> np.ndarray:
    """Of the difference of two Gaussians of `deviation` and twice that, pixels: its deviation, minimum and maximum, and
    its energy in CELLS x CELLS cells; float [images, 19]."""
    fine, coarse = (gaussian_filter(images, (0, width, width)) for width in (deviation, 2 * deviation))
    band = fine - coarse
    whole = [getattr(band, name)(axis=(1, 2))[:, None] for name in ("std", "min", "max")]
    return np.hstack([*whole, cell_means(np.square(band), CELLS)])
