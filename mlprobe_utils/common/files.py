"""Files and folders that appear whole or not at all, and hashes of what they hold."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd

RECORDS = ("made_from.json", "files.json", "provenance.json")  # of an artefact, beside its own files


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
