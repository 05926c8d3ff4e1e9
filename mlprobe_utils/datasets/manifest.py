"""Builds and reads the manifest of an image set: one row an image, with working copies beside it.

python -m mlprobe_utils.datasets.manifest SLUG --protocol P [--data FOLDER]
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlprobe_utils import artefacts
from mlprobe_utils.artefacts import (
    artefact,
    atomic_write,
    code_hash,
    hash_of,
    is_current,
    read_made_from,
    write_parquet,
)
from mlprobe_utils.cards import DataCard, Protocol, load_data_card, load_protocol
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.duplicates import duplicate_groups
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.layouts import OFFICIAL_SPLITS, Release, read_release
from mlprobe_utils.datasets.splits import PARTS, add_splits
from mlprobe_utils.errors import InputError, run_command, unknown
from mlprobe_utils.progress import step

SPLITS = ("paper", "clean")
_SIZE = pa.Column("int64", pa.Check.ge(1))
_TEXT = pa.Column(str)
_PART = pa.Column(str, pa.Check.isin(PARTS))
_HEXADECIMAL = pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$"))
MANIFEST = pa.DataFrameSchema(
    {
        "image": pa.Column(str, unique=True),  # path inside the release, posix
        "label": _TEXT,  # the class as the release names it
        "option": _TEXT,  # the answer the template offers for it
        "official_split": pa.Column(str, pa.Check.isin(OFFICIAL_SPLITS), nullable=True),
        "patient": pa.Column(str, nullable=True),
        "duplicate_group": pa.Column(str, nullable=True),
        "split_paper": _PART,
        "split_clean": _PART,
        "sha256": _HEXADECIMAL,
        "bytes": _SIZE,
        "width": _SIZE,  # as stored in the release, pixels
        "height": _SIZE,
        "mode": _TEXT,  # as PIL names it
        "format": _TEXT,
        "extension": _TEXT,  # of the file's name, which may lie about the format
        "perceptual_hash": _HEXADECIMAL,
        "offset": pa.Column("int64", pa.Check.ge(0)),  # bytes into pixels.bin
        "stored_height": _SIZE,  # of the working copy, pixels
        "stored_width": _SIZE,
    },
    strict=True,
    coerce=True,
)


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
    made_from = _choices(card, protocol) | {
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


def manifest_folder(slug: str, protocol_slug: str) -> Path:
    return artefacts.OUTPUTS / protocol_slug / slug / "data"


def _choices(card: DataCard, protocol: Protocol) -> dict:
    """What of the cards a manifest depends on."""
    return {
        "card": card.content_hash,
        "images": protocol.images.model_dump(),
        "splits": protocol.splits.model_dump(),
    }


def _decode_all(
    tree: FileTree, release: Release, card: DataCard, protocol: Protocol, pixels_file: Path
) -> pd.DataFrame:
    """One row an image, without splits; the working copies go to `pixels_file` as they come."""
    options = {c.name: c.option for c in card.classes}
    rows, thumbnails = [], []
    with open(pixels_file, "wb") as pixels:
        for record in release.records:
            decoded = decode(tree.read(record.path), tree.source(record.path), protocol.images)
            facts = asdict(record) | {k: v for k, v in vars(decoded).items() if k not in ("pixels", "thumbnail")}
            height, width, _ = decoded.pixels.shape
            place = {"offset": pixels.tell(), "stored_height": height, "stored_width": width}
            rows.append(facts | place | {"option": options[record.label]})
            pixels.write(decoded.pixels.tobytes())
            thumbnails.append(decoded.thumbnail)
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


@dataclass(frozen=True)
class ImageSet:
    """An image set as built: `manifest` has one row an image (schema MANIFEST), `data_hash` says which data it is.

    `data_hash` covers images, labels, both splits, the working copies' settings and the template.
    """

    card: DataCard
    manifest: pd.DataFrame
    data_hash: str
    report: dict
    folder: Path

    def part(self, split: str, part: str) -> pd.DataFrame:
        """The rows of one part (train, validation, test) of a split (paper, clean), with their row position as index.

        Raises:
            InputError: unknown split or part.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if part not in PARTS[:3]:
            raise unknown("part of a split", part, PARTS[:3])
        return self.manifest[self.manifest[f"split_{split}"] == part]

    def pixels(self, row_position: int) -> np.ndarray:
        """The working copy of the image in that row of the manifest: uint8 [height, width, 3], RGB."""
        row = self.manifest.iloc[row_position]
        shape = (int(row["stored_height"]), int(row["stored_width"]), 3)
        return np.array(self._pixels[row["offset"] : row["offset"] + np.prod(shape)]).reshape(shape)

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Reads what `build_manifest` made.

    Raises:
        InputError: it was not made yet, or a card changed since; the message says the command.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    folder = manifest_folder(slug, protocol_slug)
    command = f"python -m mlprobe_utils.datasets.manifest {slug} --protocol {protocol_slug}"
    command += "" if card.synthetic else " --data <folder>"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in _choices(card, protocol).items()):
        raise InputError(f"{artefacts.relative(folder)} was made from another card or protocol: run `{command}`")
    manifest = MANIFEST.validate(pd.read_parquet(folder / "manifest.parquet"))
    identity = manifest[["image", "sha256", "label", "split_paper", "split_clean"]].to_dict("list")
    data_hash = hash_of([identity, made_from["images"], card.template])
    return ImageSet(card, manifest, data_hash, json.loads((folder / "report.json").read_text()), folder)


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
