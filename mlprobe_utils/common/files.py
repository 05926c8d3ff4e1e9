"""Files and folders that appear whole or not at all, and hashes of what they hold."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.errors import InputError

MADE_FROM = "made_from.json"
RECORDS = (MADE_FROM, "files.json", "provenance.json")  # of an artefact, beside its own files


def hash_of(value) -> str:
    """SHA-256 (hex) of a JSON-able value or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class KnownHashes:
    """Hashes of large files, kept between processes: a file is read again where size, time or inode are others."""

    def __init__(self, kept: Path):
        """`kept` is the file that they are kept in."""
        self.kept = kept

    def __call__(self, path: Path) -> str:
        """As `file_hash`."""
        status, name = path.stat(), str(path.resolve())
        now = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = json.loads(self.kept.read_text()) if self.kept.is_file() else {}
        if name not in known or known[name][:-1] != now:
            known[name] = [*now, file_hash(path)]
            atomic_write(self.kept, json.dumps(known))
        return known[name][-1]


def atomic_write(path: Path, data: bytes | str) -> None:
    """Writes a file beside its place and moves it there, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(temporary, path)


def swap_in(new: Path, place: Path) -> None:
    """Moves folder `new` to `place`; what was there goes only after the new one stands."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.rename(place, old)
    os.rename(new, place)
    shutil.rmtree(old, ignore_errors=True)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table atomically."""
    atomic_write(path, frame.to_parquet(index=False))


def claim(folder: str | Path, made_from: dict) -> Path:
    """Gives a folder to one result: what that is made from is kept there, so that no other is mixed with it.

    Raises:
        InputError: the folder holds something made from another model, question, … (the keys of `made_from`), or files
            of unknown origin.
    """
    folder, wanted = Path(folder), json.loads(json.dumps(made_from))
    record = folder / MADE_FROM
    if record.is_file():
        there = json.loads(record.read_text())
        if other := [key for key in wanted if there.get(key) != wanted[key]]:
            raise InputError(
                f"{folder} holds a result of other {' and '.join(other)}: give another folder, or empty it"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something else: give a folder that is empty or not there yet")
    else:
        atomic_write(record, json.dumps(wanted, indent=1))
    return folder
