"""The folder layouts in which image sets are released: one reader a layout, found inside a `FileTree` by its names."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import OFFICIAL_SPLITS
from mlprobe_utils.datasets.settings import Release

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
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
    """How one layout is recognised and read: `folder` is looked for, with at least one of the subfolders `inside`."""

    folder: str
    inside: Callable[[Release], set[str]]
    records: Callable[[FileTree, str, Release], Iterator[ImageRecord]]
    inner: bool = False  # whether `folder` lies in the release's own folder, and is not it


def read_release(tree: FileTree, card: Release) -> list[ImageRecord]:
    """The images of the card's release, sorted: of the shallowest folder of the right name in the tree.

    Raises:
        InputError: not found, or twice at one depth; a class or split folder missing, empty or unknown; a file of
            another kind among the images; split files or metadata that do not fit the images.
    """
    layout = LAYOUTS[card.layout]
    if not (found := _candidates(tree, layout, card)):
        inside = " or ".join(f"'{name}'" for name in sorted(layout.inside(card)))
        raise InputError(
            f"{card.slug} was not found under {tree.root}: looked for a folder (or a zip holding it) named "
            f"'{layout.folder}' with {inside} in it. data/README.md says what to download and where to put it"
        )
    shallowest = [folder for folder in found if _depth(folder) == _depth(found[0])]
    if len(shallowest) > 1:
        both = " and ".join(f"'{folder}'" for folder in shallowest)
        raise InputError(f"{card.slug} lies twice under {tree.root}: {both}: keep one, or give its folder as DATA")
    return sorted(layout.records(tree, found[0], card), key=lambda record: record.image)


def _candidates(tree: FileTree, layout: Layout, card: Release) -> list[str]:
    """Folders that may be the release, the shallowest first."""
    inside = layout.inside(card)
    found = []
    for folder in tree.folders:
        name = tree.name if folder == "." else PurePosixPath(folder).name
        # the root may have been renamed: it counts if everything that belongs in it is there
        enough = 1 if name == layout.folder else len(inside) if folder == "." and not layout.inner else None
        if enough is not None and len(inside.intersection(tree.folders_in(folder))) >= enough:
            found.append(folder)
    if layout.inner and "." in found:
        raise InputError(f"{tree.root} is only a part of {card.slug}: give the folder that holds '{layout.folder}'")
    releases = [str(PurePosixPath(folder).parent) if layout.inner else folder for folder in found]
    return sorted(releases, key=lambda folder: (_depth(folder), folder))


def _depth(folder: str) -> int:
    return len(PurePosixPath(folder).parts)


def _busi(tree: FileTree, release: str, card: Release) -> Iterator[ImageRecord]:
    labels = _class_names(card)
    _check_folders(tree, release, labels, allowed={LAYOUTS["busi"].folder})
    for label in sorted(labels):
        images = [path for path in _images(tree, _join(release, label)) if not _is_mask(path)]
        if not images:
            raise InputError(f"the class folder {_join(release, label)} under {tree.root} holds only masks")
        for path in images:
            yield ImageRecord(_from(release, path), path, label)


def _chest_xray(tree: FileTree, release: str, card: Release) -> Iterator[ImageRecord]:
    # the official validation set may be missing: nothing is selected on it, and validation comes out of train
    _check_folders(tree, release, {"train", "test"}, allowed={LAYOUTS["chest-xray"].folder, "val"})
    labels = _class_names(card)
    for split in (name for name in OFFICIAL_SPLITS if name in tree.folders_in(release)):
        _check_folders(tree, _join(release, split), labels)
        for label in sorted(labels):
            for path in _images(tree, _join(release, f"{split}/{label}")):
                yield ImageRecord(_from(release, path), path, label, split, _chest_patient(tree, path))


def _chest_patient(tree: FileTree, path: str) -> str:
    name = CHEST_PATIENT.fullmatch(PurePosixPath(path).stem)
    if name is None:
        raise InputError(
            f"{tree.source(path)} does not name its patient: expected IM-0001-0001.jpeg, NORMAL2-IM-0001-0001.jpeg, "
            "person1_bacteria_1.jpeg or the like"
        )
    return f"{name['normal']}-{name['film']}" if name["normal"] else f"{name['type']}-{name['number']}"


def _covid_ct(tree: FileTree, release: str, card: Release) -> Iterator[ImageRecord]:
    labels = _class_names(card)
    images = _join(release, LAYOUTS["covid-ct"].folder)
    splits = _join(release, "Data-split")
    _check_folders(tree, images, {f"CT_{label}" for label in labels})
    _check_folders(tree, splits, labels)
    for label in sorted(labels):
        paths = {PurePosixPath(path).name: path for path in _images(tree, f"{images}/CT_{label}")}
        official = _covid_splits(tree, f"{splits}/{label}", label, paths)
        patients = _covid_patients(tree, release, label)
        for name, path in paths.items():
            if name not in official:
                raise InputError(f"{tree.source(path)} is in no split file of {splits}/{label}: add or remove it")
            if name not in patients:
                raise InputError(f"{tree.source(path)} has no patient in {label}-CT-MetaInfo: download that file again")
            yield ImageRecord(_from(release, path), path, label, official[name], f"{label} {patients[name]}")


def _covid_splits(tree: FileTree, folder: str, label: str, images: dict[str, str]) -> dict[str, str]:
    """Official split of every listed file name of one class."""
    listed: dict[str, str] = {}
    for split in OFFICIAL_SPLITS:
        path = f"{folder}/{split}CT_{label}.txt"
        if not tree.holds(path):
            raise InputError(f"the split file {path} is missing under {tree.root}: see data/README.md")
        for name in filter(None, (line.strip() for line in _text(tree, path).splitlines())):
            if name not in images:
                raise InputError(f"{tree.source(path)} lists {name!r}, which is not in CT_{label}: download it again")
            if name in listed:
                raise InputError(f"{tree.source(path)} lists {name!r} again: it is already in {listed[name]}")
            listed[name] = split
    return listed


def _covid_patients(tree: FileTree, release: str, label: str) -> dict[str, str]:
    """Patient of every file name of one class; the metadata are a CSV whatever their ending."""
    stem = f"{label}-CT-MetaInfo"
    found = [path for path in tree.paths if str(PurePosixPath(path).with_suffix("")) == _join(release, stem)]
    if len(found) != 1:
        state = "is missing" if not found else f"is there {len(found)} times"
        raise InputError(f"the metadata file {_join(release, stem)}.csv {state} under {tree.root}: see data/README.md")
    try:
        table = pd.read_csv(io.StringIO(_text(tree, found[0], errors="replace")), dtype=str)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{tree.source(found[0])} is not a CSV file ({error}): download it again") from error
    columns = {column.lower().removeprefix("file ").removeprefix("image "): column for column in table.columns}
    if not {"name", "patient id"} <= set(columns):
        raise InputError(f"{tree.source(found[0])} lacks the column of file names or of patients: {[*table.columns]}")
    table = table[[columns["name"], columns["patient id"]]].dropna().map(str.strip).drop_duplicates()
    for name in table.loc[table[columns["name"]].duplicated(), columns["name"]]:
        raise InputError(f"{tree.source(found[0])} gives {name!r} two patients: download it again")
    return dict(table.itertuples(index=False, name=None))


def _class_names(card: Release) -> set[str]:
    return {c.name for c in card.classes}


def _check_folders(tree: FileTree, folder: str, expected: set[str], allowed: set[str] = frozenset()) -> None:
    found = set(tree.folders_in(folder))
    problems = [f"folder {_join(folder, name)} is missing" for name in sorted(expected - found)]
    problems += [f"unknown folder {_join(folder, name)}" for name in sorted(found - expected - allowed)]
    if problems:
        raise InputError(f"{problems[0]} under {tree.root}: expected {', '.join(sorted(expected))} in {folder}")


def _images(tree: FileTree, folder: str) -> list[str]:
    """The images and masks directly in a class folder; anything else in it is an error."""
    if not (images := tree.files_in(folder)):
        raise InputError(f"the class folder {folder} under {tree.root} holds no images: download it again")
    for path in images:
        if str(PurePosixPath(path).parent) != folder:
            raise InputError(f"{tree.source(path)} is in a folder inside a class folder: put images into {folder}")
        if not path.lower().endswith(IMAGE_SUFFIXES):
            raise InputError(f"{tree.source(path)} is no image ({', '.join(IMAGE_SUFFIXES)}): remove it from {folder}")
    return images


def _is_mask(path: str) -> bool:
    return "_mask" in PurePosixPath(path).name


def _text(tree: FileTree, path: str, errors: str = "strict") -> str:
    try:
        return tree.read(path).decode("utf-8-sig", errors=errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{tree.source(path)} is not a text file ({error}): download it again") from error


def _join(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)


def _from(release: str, path: str) -> str:
    return str(PurePosixPath(path).relative_to(release))


LAYOUTS = {
    "busi": Layout("Dataset_BUSI_with_GT", _class_names, _busi),
    "chest-xray": Layout("chest_xray", lambda card: {"train", "test"}, _chest_xray),
    "covid-ct": Layout("Images-processed", lambda card: {f"CT_{c.name}" for c in card.classes}, _covid_ct, inner=True),
}
