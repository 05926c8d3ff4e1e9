"""Image sets as artefacts, read back; `manifest` makes them."""

import json
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.image_set import MANIFEST, ImageSet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import read_made_from
from mlprobe_utils.pipeline.cards import DataCard, Protocol, load_data_card, load_protocol


def manifest_folder(slug: str, protocol_slug: str) -> Path:
    return artefacts.OUTPUTS / protocol_slug / slug / "data"


def manifest_choices(card: DataCard, protocol: Protocol) -> dict:
    """What of the cards a manifest depends on."""
    return {
        "card": card.content_hash,
        "images": protocol.images.model_dump(),
        "splits": protocol.splits.model_dump(),
    }


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Reads what `build_manifest` made.

    Raises:
        InputError: it was not made yet, or a card changed since; the message says the command.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    folder = manifest_folder(slug, protocol_slug)
    command = f"python -m mlprobe_utils manifest {slug} --protocol {protocol_slug}"
    command += "" if card.synthetic else " --data <folder>"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in manifest_choices(card, protocol).items()):
        raise InputError(f"{artefacts.relative(folder)} was made from another card or protocol: run `{command}`")
    manifest = MANIFEST.validate(pd.read_parquet(folder / "manifest.parquet"))
    identity = manifest[["image", "sha256", "label", "option", "split_paper", "split_clean"]].to_dict("list")
    data_hash = hash_of([identity, made_from["images"], card.template])
    return ImageSet(card, manifest, data_hash, json.loads((folder / "report.json").read_text()), folder)
