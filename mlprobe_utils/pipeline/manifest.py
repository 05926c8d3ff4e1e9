"""Makes image sets: a manifest, one row an image, with working copies beside it."""

from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.manifest import write_manifest
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, load_protocol
from mlprobe_utils.pipeline.images import manifest, phantom


def data_folder_of(card: DataCard, data_folder: Path | None) -> Path:
    """The folder of the card's images: a synthetic set has its own.

    Raises InputError for a synthetic set that was not made yet, or a real one without its folder.
    """
    if card.synthetic:
        made = phantom(card).folder
        if not made.is_dir():
            raise InputError(
                f"{artefacts.relative(made)} is not there: make it with "
                f"`python -m mlprobe_utils {card.made_by} {card.slug}`"
            )
        return made
    if data_folder is None:
        raise InputError(
            f"{card.slug} is a real data set, which this project may not carry: give the folder that holds it with "
            f"DATA=<folder> (make) or --data <folder>; data/README.md says what to get. Or use {card.slug}-phantom"
        )
    return data_folder


def build_manifest(slug: str, protocol_slug: str, data_folder: Path | None) -> Path:
    """Makes the manifest artefact of an image set where it is not current, and returns its folder.

    Args:
        data_folder: the release, a folder or a zip; None for a synthetic set.

    Raises:
        InputError: anything wrong with the cards, the folder, the layout or an image.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    images = data_folder_of(card, data_folder)
    own = manifest(card, protocol, images)
    if not own.is_current():
        with own.making() as place:
            write_manifest(FileTree(images), card, protocol.images, protocol.splits, place)
    return own.folder
