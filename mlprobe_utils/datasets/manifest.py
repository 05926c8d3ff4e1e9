"""Builds the manifest of an image set: one row an image, with working copies beside it.

python -m mlprobe_utils.datasets.manifest SLUG --protocol P [--data FOLDER]
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mlprobe_utils import artefacts
from mlprobe_utils.artefacts import (
    artefact,
    atomic_write,
    code_hash,
    is_current,
    write_parquet,
)
from mlprobe_utils.cards import DataCard, Protocol, load_data_card, load_protocol
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.duplicates import duplicate_groups
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, manifest_choices, manifest_folder
from mlprobe_utils.datasets.layouts import Release, read_release
from mlprobe_utils.datasets.splits import add_splits
from mlprobe_utils.errors import InputError, run_command
from mlprobe_utils.progress import Notes, step


def data_folder_of(card: DataCard, data_folder: Path | None) -> Path:
    """Where the card's images are: a synthetic set has its place, a real one must be given.

    Raises:
        InputError: a synthetic set that was not made yet, or a real one without its folder.
    """
    if card.synthetic:
        made = artefacts.OUTPUTS / "phantoms" / card.slug
        if not made.is_dir():
            raise InputError(
                f"{artefacts.relative(made)} is not there: make it with `python -m {card.made_by} {card.slug}`"
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
        The artefact's folder: `manifest.parquet` (schema MANIFEST), `pixels.bin` (RGB working copies, uint8, one after
        the other) and `report.json` (found against released counts, files left out).

    Raises:
        InputError: anything wrong with the cards, the folder, the layout or an image.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    tree = FileTree(data_folder_of(card, data_folder))
    folder = manifest_folder(slug, protocol_slug)
    made_from = manifest_choices(card, protocol) | {
        "source": tree.fingerprint(),
        "code": code_hash("mlprobe_utils.datasets.manifest"),
    }
    if is_current(folder, made_from):
        return folder
    release = read_release(tree, card)
    with artefact(folder, made_from) as place:
        table = add_splits(_decode_all(tree, release, card, protocol, place / "pixels.bin"), card, protocol.splits)
        write_parquet(MANIFEST.validate(table[list(MANIFEST.columns)]), place / "manifest.parquet")
        atomic_write(place / "report.json", json.dumps(_report(release, card), indent=1, ensure_ascii=False))
    return folder


def _decode_all(
    tree: FileTree, release: Release, card: DataCard, protocol: Protocol, pixels_file: Path
) -> pd.DataFrame:
    """One row an image, without splits; the working copies go to `pixels_file` as they come."""
    options = {c.name: c.option for c in card.classes}
    rows, thumbnails, notes = [], [], Notes()
    with open(pixels_file, "wb") as pixels:
        for record in release.records:
            decoded = decode(tree.read(record.path), tree.source(record.path), protocol.images)
            facts = asdict(record) | {k: v for k, v in vars(decoded).items() if k not in ("pixels", "thumbnail")}
            height, width, _ = decoded.pixels.shape
            place = {"offset": pixels.tell(), "stored_height": height, "stored_width": width}
            rows.append(facts | place | {"option": options[record.label]})
            pixels.write(decoded.pixels.tobytes())
            thumbnails.append(decoded.thumbnail)
            notes.note(len(rows), len(release.records), "decoded image")
    table = pd.DataFrame(rows)
    groups = duplicate_groups(table["image"], table["sha256"], table["perceptual_hash"], np.stack(thumbnails))
    return table.assign(duplicate_group=groups)


def _report(release: Release, card: DataCard) -> dict:
    """Counts found and released, per official split ("all" where there is none) and class, and files left out."""
    counted = Counter((record.official_split or "all", record.label) for record in release.records)
    found: dict[str, dict[str, int]] = {}
    for split, label in sorted(counted):
        found.setdefault(split, {})[label] = counted[split, label]
    differences = [
        {"split": split, "class": c.name, "found": have, "released": should}
        for split in sorted({*found, *card.release_counts})
        for c in card.classes
        if (have := counted[split, c.name]) != (should := card.release_counts.get(split, {}).get(c.name, 0))
    ]
    return {"found": found, "released": card.release_counts, "differences": differences, "ignored": release.ignored}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slug", help="data card in data/datasets")
    parser.add_argument("--protocol", required=True, help="protocol in data/protocols")
    parser.add_argument("--data", type=Path, help="folder or zip that holds the release; not for synthetic sets")
    arguments = parser.parse_args()
    with step(arguments.slug, "manifest"):
        build_manifest(arguments.slug, arguments.protocol, arguments.data)


if __name__ == "__main__":
    run_command(main)
