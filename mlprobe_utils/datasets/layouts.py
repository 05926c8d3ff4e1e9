"""The folder layouts in which image sets are released: one reader a layout, found inside a `FileTree` by its names."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.decoding import SUFFIXES
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import OFFICIAL_SPLITS
from mlprobe_utils.datasets.settings import Release

# The pneumonia number alone is no patient: bacteria and virus are numbered apart, as are the two series of normals.
CHEST_PATIENT = re.compile(
    r"(?P<normal>(NORMAL2-)?IM)-(?P<film>\d+)-\d+(-\d+)?|person(?P<number>\d+)_(?P<type>[a-z]+)_\d+"
)


@dataclass(frozen=True)
class ImageRecord:
    """One image of a release: `image` is its path from the release's folder (posix), `path` its path in the tree."""

    image: str
    path: str
    label: str
    official_split: str | None = None  # train, val or test
    patient: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one layout is recognised and read."""

    folder: str  # is looked for, with at least one of the subfolders `inside`
    inside: tuple[str, ...]  # {} stands for the name of each class
    read: Callable[[FileTree, PurePosixPath, Release], Iterator[tuple]]  # path and the further fields of records
    inner: bool = False  # whether `folder` lies in the release's own folder, and is not it


def read_release(tree: FileTree, card: Release) -> list[ImageRecord]:
    """Lists the images of the card's release, sorted: of the shallowest folder of the right name in the tree.

    Raises:
        InputError: not found, or twice at one depth; a class or split folder missing, empty or unknown; a file of
            another kind among the images; split files or metadata that do not fit the images.
    """
    layout, found = LAYOUTS[card.layout], []
    inside = {name.format(c.name) for name in layout.inside for c in card.classes}
    for folder in map(PurePosixPath, tree.folders):
        name = folder.name or tree.name
        # the root may have been renamed: it counts if everything that belongs in it is there
        enough = 1 if name == layout.folder else len(inside) if not folder.name and not layout.inner else None
        if enough and len(inside.intersection(tree.folders_in(folder))) >= enough:
            if layout.inner and not folder.name:
                whole = f"give the folder that holds '{layout.folder}'"
                raise InputError(f"{tree.root} is only a part of {card.slug}: {whole}")
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
    images = layout.read(tree, release, card)
    records = (ImageRecord(str(PurePosixPath(path).relative_to(release)), path, *facts) for path, *facts in images)
    return sorted(records, key=lambda record: record.image)


def _busi(tree: FileTree, release: PurePosixPath, card: Release) -> Iterator[tuple]:
    for label, paths in _class_images(tree, release, card, allowed={LAYOUTS["busi"].folder}):
        if not (images := [path for path in paths if "_mask" not in PurePosixPath(path).name]):
            raise InputError(f"the class folder {release / label} under {tree.root} holds only masks")
        yield from ((path, label) for path in images)


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
        official = _covid_splits(tree, splits / label, label, {PurePosixPath(path).name for path in paths})
        patients = _covid_patients(tree, release / f"{label}-CT-MetaInfo")
        for path in paths:
            if (name := PurePosixPath(path).name) not in official:
                raise InputError(f"{tree.source(path)} is in no split file of {splits}/{label}: add or remove it")
            if name not in patients:
                raise InputError(f"{tree.source(path)} has no patient in {label}-CT-MetaInfo: download that file again")
            yield path, label, official[name], f"{label} {patients[name]}"


def _covid_splits(tree: FileTree, folder: PurePosixPath, label: str, images: set[str]) -> dict[str, str]:
    """Official split of every listed file name of one class."""
    listed: dict[str, str] = {}
    for split in OFFICIAL_SPLITS:
        path = f"{folder}/{split}CT_{label}.txt"
        if path not in tree.paths:
            raise InputError(f"the split file {path} is missing under {tree.root}: see data/README.md")
        try:
            lines = tree.read(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{tree.source(path)} is not a text file ({error}): download it again") from error
        for name in filter(None, map(str.strip, lines)):
            if name not in images:
                raise InputError(f"{tree.source(path)} lists {name!r}, which is not in CT_{label}: download it again")
            if name in listed:
                raise InputError(f"{tree.source(path)} lists {name!r} again: it is already in {listed[name]}")
            listed[name] = split
    return listed


def _covid_patients(tree: FileTree, stem: PurePosixPath) -> dict[str, str]:
    """Patient of every file name of one class; the metadata are a CSV whatever their ending."""
    found = [path for path in tree.paths if PurePosixPath(path).with_suffix("") == stem]
    if len(found) != 1:
        state = "is missing" if not found else f"is there {len(found)} times"
        raise InputError(f"the metadata file {stem}.csv {state} under {tree.root}: see data/README.md")
    source = tree.source(found[0])
    try:
        table = pd.read_csv(io.StringIO(tree.read(found[0]).decode("utf-8-sig", errors="replace")), dtype=str)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{source} is not a CSV file ({error}): download it again") from error
    columns = {column.lower().removeprefix("file ").removeprefix("image "): column for column in table.columns}
    if not {"name", "patient id"} <= set(columns):
        raise InputError(f"{source} lacks the column of file names or of patients: {[*table.columns]}")
    table = table[[columns["name"], columns["patient id"]]].dropna().map(str.strip).drop_duplicates()
    for name in table.loc[table[columns["name"]].duplicated(), columns["name"]]:
        raise InputError(f"{source} gives {name!r} two patients: download it again")
    return dict(table.itertuples(index=False, name=None))


def _check_folders(tree: FileTree, folder: PurePosixPath, expected: set[str], allowed: set[str] = frozenset()) -> None:
    found = set(tree.folders_in(folder))
    problems = [f"folder {folder / name} is missing" for name in sorted(expected - found)]
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
        if not (paths := tree.files_in(folder)):
            raise InputError(f"the class folder {folder} under {tree.root} holds no images: download it again")
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
