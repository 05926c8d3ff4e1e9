"""Makes image sets: a manifest, one row an image, with working copies beside it."""

from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.manifest import write_manifest
from mlprobe_utils.pipeline.artefacts import relative
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.images import manifest, phantom


def build_manifest(slug: str, protocol_slug: str, data_folder: Path | None) -> Path:
    """Makes the manifest artefact of an image set where it is not current, and returns its folder.

    Args:
        data_folder: the release, a folder or a zip; of a synthetic set, whose images have their own place, None.

    Raises InputError for anything wrong with the cards, the folder, the layout or an image.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    images = phantom(card).folder if card.synthetic else data_folder
    if images is None:
        raise InputError(
            f"{slug} is a real data set, which this project may not carry: give the folder that holds it with "
            f"DATA=<folder> (make) or --data <folder>; data/README.md says what to get. Or use {slug}-phantom"
        )
    if card.synthetic and not images.is_dir():
        command = f"python -m mlprobe_utils {card.made_by} {slug}"
        raise InputError(f"{relative(images)} is not there: make it with `{command}`")
    own = manifest(card, protocol, images)
    if not own.is_current():
        with own.making() as place:
            write_manifest(FileTree(images), card, protocol.images, protocol.splits, place)
    return own.folder
