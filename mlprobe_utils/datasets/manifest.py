"""From an image set as it is released, in one of LAYOUTS, to its manifest: one row an image, with a working copy."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, write_parquet
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.datasets.components import duplicate_groups
from mlprobe_utils.datasets.decoding import SUFFIXES, decode
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, OFFICIAL_SPLITS
from mlprobe_utils.datasets.settings import Images, Release, Splits
from mlprobe_utils.datasets.splits import add_splits

# The pneumonia number alone is no patient: bacteria and virus are numbered apart, as are the two series of normals.
CHEST_PATIENT = re.compile(
    r"(?P<normal>(NORMAL2-)?IM)-(?P<film>\d+)-\d+(-\d+)?|person(?P<number>\d+)_(?P<type>[a-z]+)_\d+"
)


@dataclass(frozen=True)
class Layout:
    """How one layout is recognised and read."""

    folder: str  # is looked for, with at least one of the subfolders `inside`
    inside: tuple[str, ...]  # {} stands for the name of each class
    read: Callable[[FileTree, PurePosixPath, Release], Iterator[tuple]]  # yields path, label, official split, patient
    inner: bool = False  # whether `folder` lies in the release's own folder, and is not it


def write_manifest(tree: FileTree, card: Release, images: Images, splits: Splits, folder: Path) -> None:
    """Writes `manifest.parquet` (schema MANIFEST), `pixels.bin` (RGB working copies, uint8, one after the other) and
    `report.json` (how many images were found and released, per official split, "all" where there is none, and class).

    Raises:
        InputError: anything wrong with the layout or an image.
    """
    table, rows, thumbnails, notes = read_release(tree, card), [], [], Notes()
    with open(folder / "pixels.bin", "wb") as file:
        for path in table["path"]:
            facts, thumbnail, pixels = decode(tree.read(path), tree.source(path), images, card.frame)
            rows.append(facts | {"offset": file.tell(), "stored_height": len(pixels), "stored_width": pixels.shape[1]})
            file.write(pixels.tobytes())
            thumbnails.append(thumbnail)
            notes.note(len(rows), len(table), "decoded image")
    table["option"] = table["label"].map({c.name: c.option for c in card.classes})
    table = table.join(pd.DataFrame(rows))
    table["duplicate_group"] = duplicate_groups(table, np.stack(thumbnails))
    table = add_splits(table, card, splits)
    write_parquet(MANIFEST.validate(table[list(MANIFEST.columns)]), folder / "manifest.parquet")
    by_split = table.groupby(table["official_split"].fillna("all"))["label"]
    found = {split: labels.value_counts().sort_index().to_dict() for split, labels in by_split}
    report = {"found": found, "released": card.release_counts}
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))


def read_release(tree: FileTree, card: Release) -> pd.DataFrame:
    """One row an image of the card's release, sorted: of the shallowest folder of the right name in the tree.

    The columns are image (its path from the release's folder, posix), path (in the tree), label, official_split (train,
    val, test or null) and patient (or null).

    Raises:
        InputError: not found, or twice at one depth; a class or split folder missing or unknown; a file of another
            kind among the images; split files or metadata that do not fit the images.
    """
    layout, found = LAYOUTS[card.layout], []
    inside = {name.format(c.name) for name in layout.inside for c in card.classes}
    for folder in map(PurePosixPath, tree.folders):
        held = inside.intersection(tree.folders_in(folder))
        # the root may have been renamed: it counts if everything that belongs in it is there
        renamed_root = not folder.name and not layout.inner and held == inside
        if renamed_root or (held and (folder.name or tree.name) == layout.folder):
            found.append(folder.parent if layout.inner else folder)
    if not found:
        wanted = f"'{layout.folder}' with '" + "' or '".join(sorted(inside)) + "' in it"
        raise InputError(
            f"{card.slug} was not found under {tree.root}: looked for a folder (or a zip holding it) named {wanted}. "
            "data/README.md says what to download and where to put it"
        )
    depth = min(len(folder.parts) for folder in found)
    release, *others = sorted(folder for folder in found if len(folder.parts) == depth)
    if others:
        both = " and ".join(f"'{folder}'" for folder in (release, *others))
        raise InputError(f"{card.slug} lies twice under {tree.root}: {both}: keep one, or give its folder as DATA")
    columns = ["path", "label", "official_split", "patient"]
    table = pd.DataFrame(layout.read(tree, release, card), columns=columns, dtype=object)
    table.insert(0, "image", [str(PurePosixPath(path).relative_to(release)) for path in table["path"]])
    return table.sort_values("image", ignore_index=True)


def _busi(tree: FileTree, release: PurePosixPath, card: Release) -> Iterator[tuple]:
    for label, paths in _class_images(tree, release, card, allowed={LAYOUTS["busi"].folder}):
        if not (images := [path for path in paths if "_mask" not in PurePosixPath(path).name]):
            raise InputError(f"the class folder {release / label} under {tree.root} holds only masks")
        yield from ((path, label, None, None) for path in images)


def _chest_xray(tree: FileTree, release: PurePosixPath, card: Release) -> Iterator[tuple]:
    # the official validation set may be missing: nothing is selected on it, and validation comes out of train
    _check_folders(tree, release, {"train", "test"}, allowed={LAYOUTS["chest-xray"].folder, "val"})
    for split in (name for name in OFFICIAL_SPLITS if name in tree.folders_in(release)):
        for label, paths in _class_images(tree, release / split, card):
            for path in paths:
                if (name := CHEST_PATIENT.fullmatch(PurePosixPath(path).stem)) is None:
                    raise InputError(
                        f"{tree.source(path)} does not name its patient: expected IM-0001-0001.jpeg, "
                        "NORMAL2-IM-0001-0001.jpeg, person1_bacteria_1.jpeg or the like"
                    )
                series, number = ("normal", "film") if name["normal"] else ("type", "number")
                yield path, label, split, f"{name[series]}-{name[number]}"


def _covid_ct(tree: FileTree, release: PurePosixPath, card: Release) -> Iterator[tuple]:
    splits = release / "Data-split"
    _check_folders(tree, splits, {c.name for c in card.classes})
    for label, paths in _class_images(tree, release / LAYOUTS["covid-ct"].folder, card, "CT_"):
        lists = {split: f"{splits}/{label}/{split}CT_{label}.txt" for split in OFFICIAL_SPLITS}
        lines = {"sep": "\t", "header": None, "names": ["name"], "quoting": csv.QUOTE_NONE}
        listed = pd.concat({split: tree.table(path, **lines) for split, path in lists.items()}, names=["split"])
        official = _by_name(listed.reset_index("split")[["name", "split"]], f"{splits}/{label}")
        patients = _covid_patients(tree, release / f"{label}-CT-MetaInfo")
        files = {PurePosixPath(path).name: path for path in paths}
        if apart := sorted({*files} ^ {*official}):
            raise InputError(f"{apart[0]} is in CT_{label} or in the lists of {splits}/{label} alone: add or remove it")
        for name, path in files.items():
            if name not in patients:
                raise InputError(f"{tree.source(path)} has no patient in {label}-CT-MetaInfo: download that file again")
            yield path, label, official[name], f"{label} {patients[name]}"


def _covid_patients(tree: FileTree, stem: PurePosixPath) -> dict[str, str]:
    """Patient of every file name of one class; the metadata are a CSV whatever their ending."""
    path, *more = [path for path in tree.paths if PurePosixPath(path).with_suffix("") == stem] or [f"{stem}.csv"]
    if more:
        raise InputError(f"the metadata lie twice under {tree.root}: {path} and {more[0]}: keep one")
    table = tree.table(path, encoding_errors="replace")
    table.columns = [column.lower().removeprefix("file ").removeprefix("image ") for column in table.columns]
    if not {"name", "patient id"} <= {*table.columns}:
        raise InputError(f"{tree.source(path)} lacks the column of file names or of patients: {[*table.columns]}")
    return _by_name(table[["name", "patient id"]].dropna(), tree.source(path))


def _by_name(table: pd.DataFrame, source: str) -> dict[str, str]:
    """The table's other column by its `name`."""
    table = table.map(str.strip).drop_duplicates()
    for name in table.loc[table["name"].duplicated(), "name"]:
        raise InputError(f"{source} gives {name!r} two values: download it again")
    return dict(table.itertuples(index=False, name=None))


def _check_folders(tree: FileTree, folder: PurePosixPath, expected: set[str], allowed: set[str] = frozenset()) -> None:
    found = set(tree.folders_in(folder))
    problems = [f"folder {folder / name} is missing or empty" for name in sorted(expected - found)]
    problems += [f"unknown folder {folder / name}" for name in sorted(found - expected - allowed)]
    if problems:
        raise InputError(f"{problems[0]} under {tree.root}: expected {', '.join(sorted(expected))} in {folder}")


def _class_images(
    tree: FileTree, parent: PurePosixPath, card: Release, prefix: str = "", allowed: set[str] = frozenset()
) -> Iterator[tuple[str, list[str]]]:
    """Each class with the images and masks directly in its folder in `parent`; anything else in it is an error."""
    labels = sorted(c.name for c in card.classes)
    _check_folders(tree, parent, {prefix + label for label in labels}, allowed)
    for label in labels:
        folder = parent / (prefix + label)
        paths = tree.files_in(folder)
        for path in paths:
            if PurePosixPath(path).parent != folder:
                raise InputError(f"{tree.source(path)} is in a folder inside a class folder: put images into {folder}")
            if not path.lower().endswith(SUFFIXES):
                raise InputError(f"{tree.source(path)} is no image ({', '.join(SUFFIXES)}): remove it from {folder}")
        yield label, paths


LAYOUTS = {
    "busi": Layout("Dataset_BUSI_with_GT", ("{}",), _busi),
    "chest-xray": Layout("chest_xray", ("train", "test"), _chest_xray),
    "covid-ct": Layout("Images-processed", ("CT_{}",), _covid_ct, inner=True),
}
