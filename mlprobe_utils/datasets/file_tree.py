"""A read-only view over a folder in which zip archives read as if they had been unpacked where they lie."""

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of

ENTRY_LIMIT = 2**30  # bytes that one zip entry may unpack to: far above any image or inner zip, far below a zip bomb
ZIP_DEPTH = 3  # zips within zips: a repository downloaded as a zip holds the zips of its images
JUNK_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _File:
    source: str  # the file on disk, or "the zip: the entry", as an error message names it
    size: int
    zipped: bool
    read: Callable[[], bytes]


class FileTree:
    """All files below `root`, a folder or a zip; paths are posix and relative to `root`, zips are transparent.

    Junk of operating systems (`__MACOSX`, `.DS_Store`, `Thumbs.db`, hidden files) is left out and listed in `junk`.

    Raises:
        InputError: on construction, `root` is not there; on first use of the files, a link to a folder or out of
            `root`, a damaged, encrypted or unsafe zip, or a file that lies there twice with different sizes.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        if not self.root.exists():
            raise InputError(f"the data folder {root} does not exist: give the folder that holds the release")
        self.name = "" if self.root.is_file() else self.root.resolve().name
        self.junk: list[str] = []

    @cached_property
    def paths(self) -> list[str]:
        """Every path, sorted."""
        return sorted(self._files)

    @cached_property
    def folders(self) -> set[str]:
        """Every folder, empty ones left out unless they lie on disk; the root is `.`."""
        parents = {str(parent) for path in self._files for parent in PurePosixPath(path).parents}
        return {".", *parents, *self._disk_folders}

    def holds(self, path: str) -> bool:
        """Whether there is a file at `path`."""
        return path in self._files

    def files_in(self, folder: str) -> list[str]:
        """Paths of all files below `folder`, at any depth, sorted."""
        return self.paths if folder == "." else [p for p in self.paths if p.startswith(f"{folder}/")]

    def folders_in(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        return sorted(
            PurePosixPath(f).name for f in self.folders if f != "." and str(PurePosixPath(f).parent) == folder
        )

    def read(self, path: str) -> bytes:
        """Content of the file at `path`. Raises InputError if it is not there or its zip is damaged."""
        if path not in self._files:
            raise InputError(f"{self.root} holds no file {path}")
        try:
            return self._files[path].read()
        except OSError as error:
            raise InputError(f"{self.source(path)} cannot be read ({error.strerror})") from error

    def source(self, path: str) -> str:
        """Where the file lies, as an error message should name it."""
        return self._files[path].source

    def fingerprint(self) -> str:
        """Hash over path, size and time of change of all files on disk (a zip counts as one): no file is opened."""
        return hash_of([[path, status.st_size, status.st_mtime_ns] for path, _, status in self._disk_files])

    @cached_property
    def _files(self) -> dict[str, _File]:
        files: dict[str, _File] = {}
        for path, place, status in self._disk_files:
            if place.suffix.lower() == ".zip":
                for inner, file in _zip_files(str(place), place, self.junk):
                    _add(files, _below(path, inner), file)
            else:
                _add(files, path, _File(str(place), status.st_size, False, place.read_bytes))
        return files

    @cached_property
    def _disk_files(self) -> list[tuple[str, Path, os.stat_result]]:
        if self.root.is_file():
            if self.root.suffix.lower() != ".zip":
                raise InputError(f"{self.root} is a file: give the folder that holds the release, or its zip")
            return [(self.root.name, self.root, self.root.stat())]
        places = [Path(folder, name) for folder, names in self._walk for name in names]
        return sorted((p.relative_to(self.root).as_posix(), self._checked(p), p.stat()) for p in places)

    @cached_property
    def _disk_folders(self) -> set[str]:
        if self.root.is_file():
            return set()
        return {Path(folder).relative_to(self.root).as_posix() for folder, _ in self._walk}

    @cached_property
    def _walk(self) -> list[tuple[str, list[str]]]:
        def refuse(error: OSError):
            raise InputError(f"{error.filename} cannot be read ({error.strerror})") from error

        walk = []
        for folder, subfolders, names in os.walk(self.root, onerror=refuse):
            self.junk += [str(Path(folder, name)) for name in (*subfolders, *names) if _is_junk(name)]
            subfolders[:] = [name for name in subfolders if not _is_junk(name)]  # os.walk then leaves the rest out
            for place in (Path(folder, name) for name in subfolders):
                if place.is_symlink():
                    raise InputError(f"{place} is a link to the folder {os.readlink(place)}: give that folder itself")
            walk.append((folder, [name for name in names if not _is_junk(name)]))
        return walk

    def _checked(self, place: Path) -> Path:
        if place.is_symlink() and not place.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"{place} is a link that leaves {self.root}: put the file itself there")
        if not place.is_file():
            raise InputError(f"{place} is a broken link or no plain file: remove it")
        return place


def _add(files: dict[str, _File], path: str, new: _File) -> None:
    """Adds a file; of two at one place an unpacked one wins if they are of one size."""
    old = files.get(path)
    if old is not None and old.size != new.size:
        raise InputError(
            f"{old.source} ({old.size} bytes) and {new.source} ({new.size} bytes) differ: keep one of them"
        )
    if old is None or old.zipped > new.zipped:
        files[path] = new


def _zip_files(name: str, content: Path | io.BytesIO, junk: list[str], depth: int = 1) -> Iterator[tuple[str, _File]]:
    """(path from the zip's own place, file) of every file in a zip and in the zips inside it."""
    try:
        archive = zipfile.ZipFile(content)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"{name} is no zip or a damaged one ({error}): download it again") from error
    for entry in archive.infolist():
        path = _safe_path(name, entry)
        if entry.is_dir() or path == ".":
            continue
        if _is_junk(path):
            junk.append(f"{name}: {path}")
            continue
        file = _File(f"{name}: {path}", entry.file_size, True, _reader(archive, entry, name))
        if path.lower().endswith(".zip"):
            if depth == ZIP_DEPTH:
                raise InputError(f"{file.source} is a zip within {depth} zips: unpack the outer ones")
            for inner, inner_file in _zip_files(file.source, io.BytesIO(file.read()), junk, depth + 1):
                yield _below(path, inner), inner_file
        else:
            yield path, file


def _safe_path(name: str, entry: zipfile.ZipInfo) -> str:
    """The entry's path; an entry that could climb out of the folder, or cannot be read safely, is refused."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))  # some Windows tools write backslashes
    problem = None
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry.filename):
        problem = "leads out of the folder"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        problem = "is a link"
    elif entry.flag_bits & 0x1:
        problem = "is encrypted"
    elif entry.file_size > ENTRY_LIMIT:
        problem = f"claims {entry.file_size} bytes, more than {ENTRY_LIMIT}"
    if problem:
        raise InputError(f"{name}: the entry {entry.orig_filename!r} {problem}: this is not the authors' release")
    return str(path)


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return archive.read(entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
            raise InputError(f"{name}: {entry.filename} cannot be unpacked ({error}): download it again") from error

    return read


def _below(zip_path: str, inner: str) -> str:
    return (PurePosixPath(zip_path).parent / inner).as_posix()


def _is_junk(path: str) -> bool:
    return any(
        (part.startswith(".") and part != ".") or part.lower() in JUNK_NAMES for part in PurePosixPath(path).parts
    )
