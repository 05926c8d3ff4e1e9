"""Makes image sets: a manifest, one row an image, with working copies beside it."""

from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.manifest import write_manifest
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, load_protocol
from mlprobe_utils.pipeline.images import manifest, phantom


def data_folder_of(card: DataCard, data_folder: Path | None) -> Path:
    """Where the card's images are: a synthetic set has its place, a real one must be given.

    Raises:
        InputError: a synthetic set that was not made yet, or a real one without its folder.
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
    """Makes the manifest artefact of an image set, or returns at once if it is current.

    Args:
        slug, protocol_slug: slugs of the data card and the protocol.
        data_folder: where the release lies (a folder or a zip); None for a synthetic set.

    Returns:
        The artefact's folder, with the files of `datasets.manifest.write_manifest`.

    Raises:
        InputError: anything wrong with the cards, the folder, the layout or an image.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    place_of_images = data_folder_of(card, data_folder)
    own = manifest(card, protocol, place_of_images)
    if own.is_current():
        return own.folder
    with own.making() as place:
        write_manifest(FileTree(place_of_images), card, protocol.images, protocol.splits, place)
    return own.folder
