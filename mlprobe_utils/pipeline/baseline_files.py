"""Where the results of traditional classifiers lie.

outputs/<protocol>/<data set>/baselines-<split>/<baseline>/  what is said of every image after every epoch; its size
"""

from pathlib import Path

from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.cards import Protocol, recorded

FOLDER = "baselines-"  # and the split; beside the results of models
EPOCHS, NETWORK = "epochs.parquet", "network.json"


def baselines_folder(protocol: str, dataset: str, split: str) -> Path:
    """The folder of all baselines on one data set."""
    return artefacts.OUTPUTS / protocol / dataset / f"{FOLDER}{split}"


def baseline_artefact(card: BaselineCard, protocol: Protocol, image_set: ImageSet, split: str) -> Artefact:
    """One baseline on one data set, and what it is made from; which are trained and which epoch is shown changes none.

    Raises InputError as `BaselineCard.variant`.
    """
    recipe = recorded(protocol.baselines, {"variant", "left_out", "chosen"})
    network = recorded(card.variant(protocol.baselines.variant))
    inputs = {"network": network, "data": image_set.data_hash, "split": split, "recipe": recipe}
    return Artefact(baseline_folder(protocol.slug, image_set.card.slug, split, card.slug), "baseline", inputs)


def baseline_folder(protocol: str, dataset: str, split: str, slug: str) -> Path:
    """The folder of one baseline on one data set."""
    return baselines_folder(protocol, dataset, split) / slug
