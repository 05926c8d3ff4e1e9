"""A read-only view over a folder in which zips read as if unpacked, and MedMNIST's arrays as folders of PNG files."""

import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of

ENTRY_LIMIT = 2**30  # bytes that one zip entry may unpack to: far above any image or inner zip, far below a zip bomb
ZIP_DEPTH = 3  # zips within zips: a repository downloaded as a zip holds the zips of its images
JUNK_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _File:
    source: str  # the file on disk, or "the zip: the entry", as an error message names it
    size: int
    read: Callable[[], bytes]


class FileTree:
    """All files below `root`, a folder or a zip, by posix paths relative to it; hidden and system files are left out.
    On first use InputError for links out of it or to folders, unreadable or unsafe zips, two files at one path."""

    def __init__(self, root: Path):
        self.root = Path(root)
        if not self.root.exists():
            raise InputError(f"the data folder {root} does not exist: give the folder of the release")
        self.name = "" if self.root.is_file() else self.root.resolve().name

    @cached_property
    def paths(self) -> list[str]:
        return sorted(self._files)

    @cached_property
    def folders(self) -> set[str]:
        """Every folder that holds a file, at any depth; the root is `.`."""
        return {".", *(str(parent) for path in self._files for parent in PurePosixPath(path).parents)}

    def read(self, path: str) -> bytes:
        """Content of a file, one of `paths`. Raises InputError if it or its zip cannot be read."""
        file = self._files[path]
        try:
            return file.read()
        except Exception as error:  # of any type: a wrong byte may lead anywhere in a decompressor
            other = isinstance(error, NotImplementedError)  # such as Deflate64, which Windows uses for large files
            mend = "unpack it with another program, and give the folder" if other else "download it again"
            raise InputError(f"{file.source} cannot be read ({error}): {mend}") from error

    def table(self, path: str, **options) -> pd.DataFrame:
        """Loads a CSV of strings, only empty cells null. Raises InputError if it is missing or no such file."""
        if path not in self._files:
            raise InputError(f"the file {path} is missing under {self.root}: see data/README.md")
        options |= {"dtype": str, "keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig"}
        try:
            return pd.read_csv(io.BytesIO(self.read(path)), **options)
        except ValueError as error:  # as are those of pandas' parser and of decoding
            raise InputError(f"{self.source(path)} is not a text table ({error}): download it again") from error

    def source(self, path: str) -> str:
        """The file's place on disk or in a zip, for error messages."""
        return self._files[path].source

    def fingerprint(self) -> str:
        """Hash over path, size and modification time of all files on disk (a zip counts as one); opens no file."""
        return hash_of([[path, status.st_size, status.st_mtime_ns] for path, _, status in self._disk])

    @cached_property
    def _files(self) -> dict[str, _File]:
        files = {
            path: _File(str(place), status.st_size, place.read_bytes)
            for path, place, status in self._disk
            if not _is_packed(path)
        }
        for name, place in ((path, place) for path, place, _ in self._disk if _is_packed(path)):
            unpack = _zip_files if _is_zip(name) else _array_files
            for path, new in unpack(place, PurePosixPath(name).parent):
                old = files.setdefault(path, new)  # of two at one path, the unpacked one is kept
                if old.size != new.size:
                    sizes = f"{old.source} ({old.size} bytes) and {new.source} ({new.size} bytes)"
                    raise InputError(f"{sizes} differ: keep one of them")
        return files

    @cached_property
    def _disk(self) -> list[tuple[str, Path, os.stat_result]]:
        """Path in the tree, place and status of every file on disk, without junk."""
        if self.root.is_file():
            if not _is_packed(self.root.name):
                raise InputError(f"{self.root} is a file: give the folder of the images, or its zip")
            check_names([self.root])
            return [(self.root.name, self.root, self.root.stat())]

        files = []
        for inside in (place.relative_to(self.root) for place in self.root.rglob("*")):
            place = self.root / inside
            if _is_junk(*inside.parts):
                continue
            if place.is_symlink() and (place.is_dir() or not place.resolve().is_relative_to(self.root.resolve())):
                raise InputError(f"{place} is a link to a folder or outside of {self.root}: put the files there")
            if place.is_file():
                files.append((inside.as_posix(), place, place.stat()))
            elif not place.is_dir() or not os.access(place, os.R_OK | os.X_OK):
                raise InputError(f"{place} is a broken link, no plain file or a folder that cannot be read")
        check_names(place for _, place, _ in files)
        return sorted(files)


def check_names(places: Iterable[str | Path]) -> None:
    """Raises InputError, with their number, for files whose paths are not UTF-8: no table and no page can name them."""
    shown = {os.fspath(place): os.fsencode(place).decode(errors="backslashreplace") for place in places}
    if odd := [text for path, text in shown.items() if text != path]:
        mend = "rename them, for example with `convmv -f latin1 -t utf8 -r --notest <folder>`"
        raise InputError(f"files whose names are not UTF-8: {len(odd)}, the first {min(odd)}: {mend}")


def _zip_files(zipped: Path | _File, parent: PurePosixPath, depth: int = 1) -> Iterator[tuple[str, _File]]:
    """Every file in a zip and in the zips inside it, as if unpacked in `parent`."""
    name, inner = (str(zipped), None) if isinstance(zipped, Path) else (zipped.source, zipped)
    try:
        archive = zipfile.ZipFile(io.BytesIO(inner.read()) if inner else zipped)
    except Exception as error:
        raise InputError(f"{name} is not a zip, or a damaged one ({error}): download it again") from error
    for entry in archive.infolist():
        path = _safe_path(name, entry)
        if entry.is_dir() or path == PurePosixPath(".") or _is_junk(*path.parts):
            continue
        file = _File(f"{name}: {path}", entry.file_size, partial(archive.read, entry))
        if not _is_zip(path.name):
            yield str(parent / path), file
        elif depth == ZIP_DEPTH:
            raise InputError(f"{file.source} is a zip within {depth} zips: unpack the outer ones")
        else:
            yield from _zip_files(file, parent / path.parent, depth + 1)


def _array_files(file: Path, parent: PurePosixPath) -> Iterator[tuple[str, _File]]:
    """The images of a `.npz` with `<split>_images`, uint8 [images, height, width] or [images, height, width, 3], and
    `<split>_labels`, [images] or [images, 1], as files `<split>/<label>/<number>.png` in `parent`."""
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:  # which leaves a damaged file open
            loaded = {name: arrays[name] for name in arrays.files}
    except Exception as error:
        raise InputError(f"{file} is not a file of plain arrays ({error}): download it again") from error
    splits = [name.removesuffix("_images") for name in loaded if name.endswith("_images")]
    if not splits:
        raise InputError(f"{file} holds {', '.join(loaded) or 'nothing'}: expected <split>_images and <split>_labels")
    for split in splits:
        images, labels = loaded[f"{split}_images"], loaded.get(f"{split}_labels", np.empty(0))
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
            kind = f"{images.dtype} {list(images.shape)}"
            raise InputError(f"{file}: {split}_images is {kind}, expected uint8 [images, height, width(, 3)]")
        if labels.shape not in ((len(images),), (len(images), 1)):
            raise InputError(f"{file}: {split}_labels is {list(labels.shape)}, expected one label per image")
        for number, (image, label) in enumerate(zip(images, labels.reshape(-1).tolist(), strict=True)):
            path = f"{split}/{label}/{number:06d}.png"
            yield str(parent / path), _File(f"{file}: {path}", image.nbytes, partial(_png, image))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _safe_path(name: str, entry: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(entry.filename.replace("\\", "/"))  # some Windows tools write backslashes
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry.filename)
    problems = {
        "has no name": not entry.filename,
        "points outside the folder": outside,
        "is a link": stat.S_ISLNK(entry.external_attr >> 16),
        "is encrypted": entry.flag_bits & 0x1,
        f"claims {entry.file_size} bytes, more than {ENTRY_LIMIT}": entry.file_size > ENTRY_LIMIT,
    }
    if problem := next((words for words, found in problems.items() if found), None):
        raise InputError(f"{name}: the entry {entry.orig_filename!r} {problem}: this is not the authors' release")
    return path


def _is_packed(name: str) -> bool:
    return _is_zip(name) or name.lower().endswith(".npz")


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_junk(*names: str) -> bool:
    return any((name.startswith(".") and name != ".") or name.lower() in JUNK_NAMES for name in names)
