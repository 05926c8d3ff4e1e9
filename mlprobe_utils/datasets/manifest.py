"""The manifest of a release: one row an image, with a working copy; and counts found against released."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mlprobe_utils.common.files import atomic_write, write_parquet
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.datasets.components import duplicate_groups
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST
from mlprobe_utils.datasets.layouts import Found, read_release
from mlprobe_utils.datasets.settings import Images, Release, Splits
from mlprobe_utils.datasets.splits import add_splits


def write_manifest(tree: FileTree, card: Release, images: Images, splits: Splits, folder: Path) -> None:
    """Writes `manifest.parquet` (schema MANIFEST), `pixels.bin` (RGB working copies, uint8, one after the other) and
    `report.json` (found against released counts, files left out).

    Raises:
        InputError: anything wrong with the layout or an image.
    """
    release = read_release(tree, card)
    table = add_splits(_decoded(tree, release, card, images, folder / "pixels.bin"), card, splits)
    write_parquet(MANIFEST.validate(table[list(MANIFEST.columns)]), folder / "manifest.parquet")
    atomic_write(folder / "report.json", json.dumps(_report(release, card), indent=1, ensure_ascii=False))


def _decoded(tree: FileTree, release: Found, card: Release, images: Images, pixels_file: Path) -> pd.DataFrame:
    """One row an image, without splits; the working copies go to `pixels_file` as they come."""
    options = {c.name: c.option for c in card.classes}
    rows, thumbnails, notes = [], [], Notes()
    with open(pixels_file, "wb") as pixels:
        for record in release.records:
            decoded = decode(tree.read(record.path), tree.source(record.path), images)
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


def _report(release: Found, card: Release) -> dict:
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
