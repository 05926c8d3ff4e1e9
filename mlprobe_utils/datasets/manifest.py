"""The manifest of a release: one row an image, with a working copy; and how many images it should have."""

import json
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
from mlprobe_utils.datasets.layouts import read_release
from mlprobe_utils.datasets.settings import Images, Release, Splits
from mlprobe_utils.datasets.splits import add_splits


def write_manifest(tree: FileTree, card: Release, images: Images, splits: Splits, folder: Path) -> None:
    """Writes `manifest.parquet` (schema MANIFEST), `pixels.bin` (RGB working copies, uint8, one after the other) and
    `report.json` (how many images were found and released, per official split, "all" where there is none, and class).

    Raises:
        InputError: anything wrong with the layout or an image.
    """
    records = read_release(tree, card)
    options = {c.name: c.option for c in card.classes}
    rows, thumbnails, notes = [], [], Notes()
    with open(folder / "pixels.bin", "wb") as file:
        for record in records:
            facts, thumbnail, pixels = decode(tree.read(record.path), tree.source(record.path), images, card.frame)
            place = {"offset": file.tell(), "stored_height": pixels.shape[0], "stored_width": pixels.shape[1]}
            rows.append(asdict(record) | facts | place | {"option": options[record.label]})
            file.write(pixels.tobytes())
            thumbnails.append(thumbnail)
            notes.note(len(rows), len(records), "decoded image")
    table = pd.DataFrame(rows)
    groups = duplicate_groups(table["image"], table["sha256"], table["perceptual_hash"], np.stack(thumbnails))
    table = add_splits(table.assign(duplicate_group=groups), card, splits)
    write_parquet(MANIFEST.validate(table[list(MANIFEST.columns)]), folder / "manifest.parquet")
    by_split = table.groupby(table["official_split"].fillna("all"))["label"]
    found = {split: labels.value_counts().sort_index().to_dict() for split, labels in by_split}
    report = {"found": found, "released": card.release_counts}
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
