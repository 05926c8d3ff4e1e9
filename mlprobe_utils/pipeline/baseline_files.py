"""Where the results of traditional classifiers lie.

outputs/<protocol>/<data set>/baselines-<split>/<baseline>/  what is said of every image after every epoch; its size
"""

from pathlib import Path

from mlprobe_utils.pipeline import artefacts

FOLDER = "baselines-"  # and the split; beside the results of models
EPOCHS, NETWORK = "epochs.parquet", "network.json"


def baselines_folder(protocol: str, dataset: str, split: str) -> Path:
    """The folder of all baselines on one data set."""
    return artefacts.OUTPUTS / protocol / dataset / f"{FOLDER}{split}"


def baseline_folder(protocol: str, dataset: str, split: str, slug: str) -> Path:
    """The folder of one baseline on one data set."""
    return baselines_folder(protocol, dataset, split) / slug
