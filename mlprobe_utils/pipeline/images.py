"""Image sets as artefacts, and loading them; `manifest` makes them."""

import json
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, ImageSet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact, read_made_from
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


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Loads what `build_manifest` made. Raises InputError, with the command, where it is missing or a card changed."""
    card, wanted = load_data_card(slug), manifest(load_data_card(slug), load_protocol(protocol_slug))
    folder, command = wanted.folder, f"python -m mlprobe_utils manifest {slug} --protocol {protocol_slug}"
    command += "" if card.synthetic else " --data <folder>"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in wanted.inputs.items() if key != "source"):
        raise InputError(f"{artefacts.relative(folder)} was made from another card or protocol: run `{command}`")
    rows = MANIFEST.validate(pd.read_parquet(folder / "manifest.parquet"))
    identity = rows[["image", "sha256", "label", "option", "split_paper", "split_clean"]].to_dict("list")
    data_hash = hash_of([identity, made_from["images"], card.template])
    return ImageSet(card, rows, data_hash, json.loads((folder / "report.json").read_text()), folder)
