"""Images as people have them: in folders of classes, or anywhere beside a table that names their labels."""

import io
import json
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import get_args

import pandas as pd

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.datasets.decoding import FORMATS, SUFFIXES
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.settings import Accepted, composed
from mlprobe_utils.evaluation.rows import SPLITS

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as Hugging Face's `imagefolder` calls them
COLUMNS = ("file_name", "label", "split", "patient")
SPLIT_NAMES = {name: name for name in SPLITS[:3]} | {"val": "validation", "valid": "validation"}
MOST_NAMED = 3  # of what is wrong; the others are counted


def list_images(
    tree: FileTree, columns: Mapping[str, str] | None = None, leave_out: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Lists the images of a folder: `<class>/*`, `<split>/<class>/*`, or any files beside tables of them. A table, one
    of TABLES in any folder, names files relative to itself, and perhaps label, split and patient (`columns`: what it
    calls them); folders say the rest. Returns image, label, split and patient (null: not given), sorted by image, and
    pattern of `leave_out` -> files left out. InputError for what `image_folder` names."""
    paths, left_out = without(tree.paths, leave_out)
    tables = [path for path in paths if PurePosixPath(path).name in TABLES]
    if not (images := [path for path in paths if path not in tables]):
        raise InputError(f"{tree.root} holds no images: put them there, in one folder per class")
    table = pd.DataFrame({"image": images})
    if tables:
        listed = pd.concat([_listed(tree, path, columns or {}) for path in tables], ignore_index=True)
        listed = listed[listed["image"].isin(without(listed["image"], leave_out)[0])]
        named, there = {*listed["image"]}, {*images}
        problems = {
            "listed twice": listed["image"][listed["image"].duplicated()].unique(),
            "listed but missing": sorted(named - there),
            "not listed": sorted(there - named),
        }
        if found := [f"{_several(files, 'file')} {words}" for words, files in problems.items() if len(files)]:
            mend = "correct the table, or leave the files out (leave_out)"
            raise InputError(f"{tree.root}: {', '.join(tables)}: {', '.join(found)}: {mend}")
        table = table.merge(listed, on="image")
    if missing := [column for column in ("label", "split") if column not in table]:
        table = table.join(read_folders(images, tree.root, "label" in missing)[missing])
    if (empty := table["label"].isna()).any():
        raise InputError(f"{_several(table['image'][empty], 'image')} without a label: give each one")
    table["label"] = table["label"].map(composed)
    table["split"] = table["split"].map(lambda name: SPLIT_NAMES.get(name.casefold(), name), na_action="ignore")
    return table.reindex(columns=["image", *COLUMNS[1:]]).astype(object), left_out


def without(paths: Iterable[str], leave_out: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """The paths that match no pattern, and how many each pattern left out (a path counts for the first)."""
    kept, left_out = [], dict.fromkeys(leave_out, 0)
    for path in paths:
        if pattern := next((own for own in left_out if fnmatchcase(path, own)), None):
            left_out[pattern] += 1
        else:
            kept.append(path)
    return kept, left_out


def _listed(tree: FileTree, path: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a table of images, all text or null: image (its path in the tree), and what it says of COLUMNS."""
    table, called = _table(tree, path), {name: columns.get(name, name) for name in COLUMNS}
    if missing := [own for name, own in called.items() if own not in table and (name in columns or name == COLUMNS[0])]:
        has = ", ".join(map(str, table.columns))
        raise InputError(f"{path} has no column {missing[0]!r}, it has {has}: name its columns in the card's `columns`")
    found = {own: name for name, own in called.items() if own in table}
    table = table[[*found]].rename(columns=found).astype(object).map(str, na_action="ignore")
    if table[COLUMNS[0]].isna().any():
        raise InputError(f"{path} has rows without {called[COLUMNS[0]]}: name a file in each")
    table["image"] = [str(PurePosixPath(path).parent / name) for name in table.pop(COLUMNS[0])]
    return table.where(table.notna(), None)


def _table(tree: FileTree, path: str) -> pd.DataFrame:
    if path.endswith(".csv"):
        return tree.table(path)
    data = tree.read(path)
    try:
        if path.endswith(".parquet"):
            return pd.read_parquet(io.BytesIO(data), dtype_backend="numpy_nullable")
        return pd.DataFrame([json.loads(line) for line in data.decode().splitlines() if line.strip()], dtype=object)
    except (ValueError, OSError) as error:
        raise InputError(f"{tree.source(path)} is not a table of images ({error}): write it again") from error


def read_folders(images: list[str], where: str | PurePosixPath, labelled: bool = True) -> pd.DataFrame:
    """Reads labels and splits from `<class>/*` or `<split>/<class>/*`: image, label, split, patient (null: unknown).
    Raises InputError for files of none of `decoding.FORMATS` and, where folders are to say labels, outside of them."""
    if other := [image for image in images if PurePosixPath(image).suffix.lower() not in ("", *SUFFIXES)]:
        raise InputError(f"{where}: {_several(other, 'file')} none of {', '.join(FORMATS)}: convert or remove them")
    folders = [PurePosixPath(image).parts[:-1] for image in images]
    tops = {own[0] for own in folders if own}
    splits = {top for top in tops if top.casefold() in SPLIT_NAMES}
    if labelled and splits and (other := sorted(tops - splits)):
        raise InputError(f"the folder {other[0]!r} is beside {min(splits)!r}: call splits train, validation and test")
    in_splits = splits == tops and all(folders)
    depth = 1 if in_splits else 0
    if labelled and (loose := [image for image, own in zip(images, folders, strict=True) if len(own) <= depth]):
        mend = f"move them, or name their labels in a {TABLES[0]}"
        raise InputError(f"{where}: {_several(loose, 'file')} outside the class folders: {mend}")
    split = [own[0] if in_splits and tops else None for own in folders]
    label = [own[depth] if len(own) > depth else None for own in folders]
    return pd.DataFrame({"image": images, "label": label, "split": split, "patient": None})


def check_labels(table: pd.DataFrame, declared: Collection[str]) -> None:
    counts = table["label"].value_counts()
    if foreign := sorted({*counts.index} - {*declared}):
        found = ", ".join(f"'{label}' ({counts[label]} images)" for label in foreign)
        raise InputError(f"labels that the card does not declare: {found}: add them to classes, or leave_out the files")
    if missing := [name for name in declared if name not in counts.index]:
        raise InputError(f"no image has the label '{missing[0]}', which the card declares: add some, or remove it")


def check_images(table: pd.DataFrame, accept: Collection[str]) -> None:
    """Raises InputError, with counts, for patients of several labels or given splits, and for files with equal bytes.
    `table` has image, label, split, patient and sha256; `accept` names which of `settings.Accepted` may be there."""
    if foreign := sorted({*accept} - {*get_args(Accepted)}):
        raise unknown("value of accept", foreign[0], get_args(Accepted))
    copies = table[table["sha256"].duplicated(keep=False)]
    if len(copies) and "copies" not in accept:
        first = " and ".join(copies["image"][copies["sha256"] == copies["sha256"].iloc[0]])
        mixed = sum((own[["label", "split"]].nunique() > 1).any() for _, own in copies.groupby("sha256"))
        more = f", {mixed} of them in several classes or splits" if mixed else ""
        found = f"{len(copies)} files are {copies['sha256'].nunique()} pictures, byte by byte{more} ({first})"
        raise InputError(f"{found}: remove copies, or keep them by `accept: [copies]`")
    for column, words in (("label", "classes"), ("split", "splits")):
        of_patient = table.dropna(subset=column).groupby("patient")[column].unique()
        several = of_patient[of_patient.map(len) > 1]
        if len(several) and "patients" not in accept:
            patient, found = several.index[0], " and ".join(sorted(several.iloc[0]))
            wrong = f"patients with images of several {words}: {len(several)} (patient {patient}: {found})"
            raise InputError(f"{wrong}: correct the table, or keep them by `accept: [patients]`")


def _several(names: Collection[str], kind: str) -> str:
    """How many there are, with the first few names, and the verb: `2 files (a, b) are`."""
    named = ", ".join([*names][:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
    plural, verb = ("s", "are") if len(names) > 1 else ("", "is")
    return f"{len(names)} {kind}{plural} ({named}) {verb}"
