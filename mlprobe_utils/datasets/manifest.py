"""From an image set as it is released, in one of LAYOUTS, to its manifest: one row per image, with a working copy."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, write_parquet
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.datasets import folders
from mlprobe_utils.datasets.components import duplicate_groups
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, OFFICIAL_SPLITS
from mlprobe_utils.datasets.settings import Images, Release, Splits
from mlprobe_utils.datasets.splits import add_splits

# The pneumonia number alone is no patient: bacteria and virus are numbered apart, as are the two series of normals.
CHEST_PATIENT = (
    r"/(?:(?P<normal>(?:NORMAL2-)?IM)-(?P<film>\d+)-\d+(?:-\d+)?|person(?P<number>\d+)_(?P<type>[a-z]+)_\d+)\.\w+$"
)


@dataclass(frozen=True)
class Layout:
    folder: str  # is looked for, with at least one folder of a split or class in it
    # completes what `read_folders` finds
    read: Callable[[FileTree, PurePosixPath, pd.DataFrame], pd.DataFrame] = lambda tree, release, table: table
    classes: str = "{}"  # what the folders of classes are called
    splits: tuple[str, ...] = ()  # folders around those of classes
    inner: bool = False  # whether `folder` lies in the release's own folder, and is not it


def write_manifest(tree: FileTree, card: Release, images: Images, splits: Splits, folder: Path) -> None:
    """Writes `manifest.parquet` (schema MANIFEST), `pixels.bin` (RGB working copies, uint8, one after the other) and
    `report.json` (images found and released per official split and class, files left out, where splits come from).
    Raises InputError for anything wrong with the layout, and for images that cannot be read, with their number."""
    table, left_out = (read_folder if card.layout == "folder" else read_release)(tree, card)
    rows, thumbnails, unreadable, notes = [], [], [], Notes()
    with open(folder / "pixels.bin", "wb") as file:
        for path in table["path"]:
            try:
                facts, thumbnail, pixels = decode(tree.read(path), tree.source(path), images, card.frame)
            except InputError as error:
                unreadable.append(str(error))
                continue
            rows.append(facts | {"offset": file.tell(), "stored_height": len(pixels), "stored_width": pixels.shape[1]})
            file.write(pixels.tobytes())
            thumbnails.append(thumbnail)
            notes.note(len(rows), len(table), "decoded image")
    if unreadable:
        several = f"{len(unreadable)} of {len(table)} images cannot be read, the first: " if unreadable[1:] else ""
        raise InputError(several + "; ".join(unreadable[: folders.MOST_NAMED]))
    table["option"] = table["label"].map({c.name: c.option for c in card.classes})
    table = table.join(pd.DataFrame(rows))
    if card.layout == "folder":
        folders.check_images(table.rename(columns={"official_split": "split"}), card.accept)
    table["duplicate_group"] = duplicate_groups(table, np.stack(thumbnails))
    table, words = add_splits(table, card, splits)
    write_parquet(MANIFEST.validate(table[list(MANIFEST.columns)]), folder / "manifest.parquet")
    by_split = table.groupby(table["official_split"].fillna("all"))["label"]
    found = {split: labels.value_counts().sort_index().to_dict() for split, labels in by_split}
    report = {"found": found, "released": card.release_counts, "left_out": left_out, "splits": words}
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))


def read_folder(tree: FileTree, card: Release) -> tuple[pd.DataFrame, dict[str, int]]:
    """As `read_release`, of a folder; InputError as `list_images`, and for labels other than the card's."""
    table, left_out = folders.list_images(tree, card.columns, card.leave_out)
    folders.check_labels(table, [one.name for one in card.classes])
    return table.assign(path=table["image"], official_split=table.pop("split").replace("validation", "val")), left_out


def read_release(tree: FileTree, card: Release) -> tuple[pd.DataFrame, dict[str, int]]:
    """Lists the images of the card's release, sorted: of the shallowest folder of the right name. One row per image:
    image (its path from there, posix), path (in the tree), label, official_split (train, val, test or null), patient
    (or null); and how many files patterns left out. InputError for what is missing, there twice, or does not fit."""
    layout, found = LAYOUTS[card.layout], []
    classes = {layout.classes.format(c.name): c.name for c in card.classes}
    inside = {*(layout.splits or classes)}
    for folder in map(PurePosixPath, tree.folders):
        held = {name for name in inside if str(folder / name) in tree.folders}
        # the root may have been renamed: it counts if everything that belongs in it is there
        renamed_root = not folder.name and not layout.inner and held == inside
        if renamed_root or (held and (folder.name or tree.name) == layout.folder):
            found.append(folder.parent if layout.inner else folder)
    if not found:
        wanted = f"'{layout.folder}' with '" + "' or '".join(sorted(inside)) + "' in it"
        wrong = f"{card.slug} was not found under {tree.root}: looked for a folder (or a zip holding it) named {wanted}"
        raise InputError(f"{wrong}. data/README.md says what to download and where to put it")
    depth = min(len(folder.parts) for folder in found)
    release, *others = sorted(folder for folder in found if len(folder.parts) == depth)
    if others:
        both = " and ".join(f"'{folder}'" for folder in (release, *others))
        raise InputError(f"{card.slug} occurs twice under {tree.root}: {both}: keep one, or give its folder as DATA")
    folder = release / layout.folder if layout.inner else release
    paths = [PurePosixPath(path) for path in tree.paths]
    files = [str(path.relative_to(folder)) for path in paths if path.is_relative_to(folder)]
    files = [file for file in files if "/" in file and not file.startswith(f"{layout.folder}/")]
    files, left_out = folders.without(files, card.leave_out)
    table = folders.read_folders(files, folder)
    splits = {*table["split"]} & {None, *OFFICIAL_SPLITS}
    expected = {f"{split}/{name}" if split else name for split in splits for name in classes}
    found = {str(PurePosixPath(image).parent) for image in table["image"]}
    for name in sorted(expected ^ found):
        state = "unknown" if name in found else "missing or empty"
        raise InputError(f"{state} folder {folder / name} under {tree.root}: expected {', '.join(sorted(expected))}")
    table = layout.read(tree, release, table.assign(label=table["label"].map(classes)))
    table["path"] = [str(folder / image) for image in table["image"]]
    table["image"] = [str(PurePosixPath(path).relative_to(release)) for path in table["path"]]
    return table.rename(columns={"split": "official_split"}).sort_values("image", ignore_index=True), left_out


def _chest_xray(tree: FileTree, release: PurePosixPath, table: pd.DataFrame) -> pd.DataFrame:
    found = table["image"].str.extract(CHEST_PATIENT)
    series, number = found["normal"].fillna(found["type"]), found["film"].fillna(found["number"])
    for image in table["image"][series.isna()]:
        names = "IM-0001-0001.jpeg, NORMAL2-IM-0001-0001.jpeg, person1_bacteria_1.jpeg or the like"
        raise InputError(f"{tree.source(str(release / image))} does not contain its patient: expected {names}")
    return table.assign(patient=series + "-" + number)


def _covid_ct(tree: FileTree, release: PurePosixPath, table: pd.DataFrame) -> pd.DataFrame:
    for label, names in table["image"].str.split("/").str[-1].groupby(table["label"]):
        folder = release / "Data-split" / label
        lists = {split: f"{folder}/{split}CT_{label}.txt" for split in OFFICIAL_SPLITS}
        lines = {"sep": "\t", "header": None, "names": ["name"], "quoting": csv.QUOTE_NONE}
        listed = pd.concat({split: tree.table(path, **lines) for split, path in lists.items()}, names=["split"])
        official = _by_name(listed.reset_index("split")[["name", "split"]], str(folder))
        if apart := sorted({*names} ^ {*official}):
            raise InputError(f"{apart[0]} is in CT_{label} or in the lists of {folder} alone: add or remove it")
        patients = _covid_patients(tree, release / f"{label}-CT-MetaInfo")
        for name in names[~names.isin([*patients])]:
            raise InputError(f"{name} has no patient in {label}-CT-MetaInfo: download that file again")
        table.loc[names.index, "split"] = names.map(official)
        table.loc[names.index, "patient"] = f"{label} " + names.map(patients)
    return table


def _covid_patients(tree: FileTree, stem: PurePosixPath) -> dict[str, str]:
    """Patient of every file name of one class; the metadata are a CSV whatever their ending."""
    path, *more = [path for path in tree.paths if PurePosixPath(path).with_suffix("") == stem] or [f"{stem}.csv"]
    if more:
        raise InputError(f"the metadata occur twice under {tree.root}: {path} and {more[0]}: keep one")
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


LAYOUTS = {
    "busi": Layout("Dataset_BUSI_with_GT"),
    "chest-xray": Layout("chest_xray", _chest_xray, splits=("train", "test")),
    "covid-ct": Layout("Images-processed", _covid_ct, "CT_{}", inner=True),
}
