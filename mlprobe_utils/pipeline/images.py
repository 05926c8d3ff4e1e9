"""Image sets: the artefacts of one, making its manifest with working copies beside it, and loading it."""

import json
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, ImageSet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact, read_made_from, relative
from mlprobe_utils.pipeline.cards import DataCard, Protocol, load_data_card, load_protocol, recorded


def phantom(card: DataCard) -> Artefact:
    """The images of a phantom set, in the layout of the public release."""
    drawn = {"layout": card.layout, "release_counts": card.release_counts, "recipe": card.recipe}
    return Artefact(artefacts.OUTPUTS / "phantoms" / card.slug, "phantom", drawn)


def manifest(card: DataCard, protocol: Protocol, data: Path | None = None) -> Artefact:
    """The manifest of an image set, with its working copies; `data` is a real release, a folder or a zip."""
    read = recorded(card, {*DataCard.model_fields} - {"layout", "classes", "frame", "release_counts", "test_counts"})
    inputs = {"card": read, "images": recorded(protocol.images), "splits": recorded(protocol.splits)}
    folder = artefacts.OUTPUTS / protocol.slug / card.slug / "data"
    if card.synthetic:
        return Artefact(folder, "manifest", inputs, (phantom(card),))
    return Artefact(folder, "manifest", inputs | {"source": FileTree(data).fingerprint() if data else None})


def build_manifest(slug: str, protocol_slug: str, data: Path | None) -> Path:
    """Makes the manifest of an image set where it is not current, and returns its folder; `data` as of `manifest`.

    Raises InputError for anything wrong with the cards, the folder, the layout or an image.
    """
    from mlprobe_utils.datasets.manifest import write_manifest  # which imports what no page needs

    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    images = phantom(card).folder if card.synthetic else data
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


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Loads what `build_manifest` made. Raises InputError, with the command, where it is missing or a card changed."""
    wanted = manifest(card := load_data_card(slug), load_protocol(protocol_slug))
    folder, data = wanted.folder, "" if card.synthetic else " --data <folder>"
    command = f"python -m mlprobe_utils manifest {slug} --protocol {protocol_slug}{data}"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in wanted.inputs.items() if key != "source"):
        raise InputError(f"{relative(folder)} was made from another card or protocol: run `{command}`")
    rows = MANIFEST.validate(pd.read_parquet(folder / "manifest.parquet"))
    identity = rows[["image", "sha256", "label", "option", "split_paper", "split_clean"]].to_dict("list")
    data_hash = hash_of([identity, made_from["images"], card.template])
    return ImageSet(card, rows, data_hash, json.loads((folder / "report.json").read_text()), folder)
