"""Controls of an image set: what is scored without any model, and labels that no model can have learned.

Whatever is claimed of a layer has to beat the majority class, the kind of the file and simple statistics of the pixels.
The control task (Hewitt and Liang 2019) has labels that mean nothing, but can be told on new images. Does not import
torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.datasets.format_shortcut import COLUMNS as FORMAT
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.datasets.reference_classifier import reference_rows
from mlprobe_utils.evaluation.control_names import FILE, FILE_FORMAT, MAJORITY, PIXELS, WITHOUT_MODEL
from mlprobe_utils.evaluation.rows import image_rows, write_rows

ROWS, TASK = "controls.parquet", "control_task.parquet"
SEED = 0
CLUSTERS = 16
PERCENTILES = (5, 25, 50, 75, 95)
STATISTICS = ("mean", "deviation", *(f"percentile {p}" for p in PERCENTILES), "vertical change", "horizontal change")


def write_image_controls(image_set: ImageSet, split: str, folder: Path) -> None:
    """Writes the controls that need no model, and the reference, to `folder`.

    `controls.parquet` has rows of the test images (schema `rows.SCHEMA`), `control_task.parquet` image, part, cluster
    and control (an option) of the train, validation and test images.

    Raises:
        InputError: the images to fit on are not of several classes, or there are no train or no test images; as
            `reference_rows`.
    """
    statistics = pixel_statistics(image_set)
    rows = pd.concat([rows_without_model(image_set, split, statistics), reference_rows(image_set, split)])
    write_rows(rows, folder / ROWS)
    write_parquet(control_task(image_set, split, statistics), folder / TASK)


def pixel_statistics(image_set: ImageSet) -> np.ndarray:
    """STATISTICS of the grey levels of each working copy, in the manifest's order, float [images, statistics].

    A change is the root mean square of the differences of neighbouring pixels: the energy of the gradient.
    """
    rows = []
    for position in range(len(image_set.manifest)):
        grey = image_set.pixels(position).mean(axis=2)
        changes = [np.sqrt(np.square(np.diff(grey, axis=axis)).sum() / grey.size) for axis in (0, 1)]
        rows.append([grey.mean(), grey.std(), *np.percentile(grey, PERCENTILES), *changes])
    return np.array(rows)


def control_task(image_set: ImageSet, split: str, statistics: np.ndarray) -> pd.DataFrame:
    """Labels that mean nothing, and that new images have too: image, part, cluster, control.

    Images are put in CLUSTERS clusters by their standardised pixel statistics (k-means, fitted on the train images
    alone). Every cluster is dealt one option at random, as often as the option is true of train images: one cluster
    after the other, in random order, gets the option that is furthest from its share.

    Args:
        statistics: from `pixel_statistics`.

    Raises:
        InputError: there are no train or no test images.
    """
    parts = {part: image_set.part(split, part) for part in ("train", "validation", "test")}
    if empty := [part for part in ("train", "test") if parts[part].empty]:
        raise InputError(f"the {empty[0]} part of split '{split}' of '{image_set.card.slug}' has no image")
    images = pd.concat([own.assign(part=part) for part, own in parts.items()])
    training = images.index[images["part"] == "train"]
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
    return images[["image", "part"]].assign(cluster=found, control=control).reset_index(drop=True)


def shuffled(labels: np.ndarray) -> np.ndarray:
    """The labels of train images dealt out anew: what a probe then gets right on them it has learned by heart."""
    return np.random.default_rng(SEED).permutation(labels)


def rows_without_model(image_set: ImageSet, split: str, statistics: np.ndarray) -> pd.DataFrame:
    """Rows of the test images for each of WITHOUT_MODEL, fitted on all other images, as the format rule of chapter 1.

    A logistic regression on standardised features: the combination of pixel mode, format and extension; this and the
    logarithms of width, height (of the stored image) and bytes; `statistics`, from `pixel_statistics`. The majority
    class has each option's share as its probability.

    Raises:
        InputError: the images to fit on are all of one class.
    """
    manifest, options = image_set.manifest, image_set.card.options
    test = image_set.part(split, "test").assign(part="test")
    fitted = manifest.index.difference(test.index)
    codes = pd.Categorical(manifest["option"], options).codes
    if len(np.unique(codes[fitted])) < 2:
        raise InputError(f"the images of '{image_set.card.slug}' outside its test set are not of several classes")
    combination = pd.get_dummies(manifest[FORMAT].agg("|".join, axis=1)).to_numpy(float)
    sizes = np.log(manifest[["width", "height", "bytes"]].to_numpy(float))
    features = {MAJORITY: statistics, FILE_FORMAT: combination, FILE: np.hstack([combination, sizes])}
    features[PIXELS] = statistics
    constants = {"model": None, "stage": None, "order": None, "dataset": image_set.card.slug, "split": split}
    constants["data_hash"] = image_set.data_hash
    frames = []
    for control in WITHOUT_MODEL:
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model = DummyClassifier() if control == MAJORITY else regression
        model.fit(features[control][fitted], codes[fitted])
        probabilities = np.zeros((len(test), len(options)))
        probabilities[:, model.classes_] = model.predict_proba(features[control][test.index])
        frames.append(image_rows(test, options, probabilities, **constants, control=control))
    return pd.concat(frames, ignore_index=True)
