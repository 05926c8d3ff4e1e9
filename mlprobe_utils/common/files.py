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


def known_hash(cache: Path, path: Path) -> str:
    """As `file_hash`, of a large file: read again only where size, time or inode are not those in the file `cache`."""
    status, name = path.stat(), str(path.resolve())
    now = [status.st_size, status.st_mtime_ns, status.st_ino]
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    if name not in known or known[name][:-1] != now:
        known[name] = [*now, file_hash(path)]
        atomic_write(cache, json.dumps(known))
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
    atomic_write(path, frame.to_parquet(index=False))


def claim(folder: str | Path, made_from: dict) -> Path:
    """Reserves a folder for the result that is made from this, and returns it; InputError where it holds a result of
    another model, question, … (the keys of `made_from`), or other files."""
    folder, wanted = Path(folder), json.loads(json.dumps(made_from))
    record = folder / MADE_FROM
    if record.is_file():
        there = json.loads(record.read_text())
        if other := [key for key in wanted if there.get(key) != wanted[key]]:
            found = f"{folder} holds a result of other {' and '.join(other)}"
            raise InputError(f"{found}: give another folder, or empty it")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something else: give a folder that is empty or not there yet")
    else:
        atomic_write(record, json.dumps(wanted, indent=1))
    return folder
