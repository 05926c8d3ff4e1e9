"""Files and folders that appear whole or not at all, and hashes of what they hold."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from pyarrow import ArrowException

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.progress import say

MADE_FROM, FILES, PROVENANCE = "made_from.json", "files.json", "provenance.json"
RECORDS = (MADE_FROM, FILES, PROVENANCE)  # of an artefact, beside its own files


def hash_of(value) -> str:
    """SHA-256 (hex) of a JSON-able value or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_hash(cache: Path, path: Path) -> str:
    """As `file_hash`, of a large file: read again only where size, time or inode are not those in the file `cache`."""
    status, name = path.stat(), str(path.resolve())
    now = [status.st_size, status.st_mtime_ns, status.st_ino]
    known = read_record(cache) or {}
    if name not in known or known[name][:-1] != now:
        known[name] = [*now, file_hash(path)]
        with contextlib.suppress(OSError):  # a reader without the right to write hashes again next time
            write_record(cache, known)
    return known[name][-1]


def atomic_write(path: Path, data: bytes | str) -> None:
    """Writes a file beside its place and moves it there, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        sync(temporary)
    except OSError as error:  # of a full disk: it names no file
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on the disk: a power cut would leave what was moved empty."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def swap_in(new: Path, place: Path) -> None:
    """Moves folder `new` to `place`; what was there goes only after the new one stands."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.rename(place, old)
    os.rename(new, place)
    sync(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_record(path: Path, content: dict) -> None:
    """Writes JSON with a hash of itself."""
    atomic_write(path, json.dumps({"sha256": hash_of(content), **content}, indent=1, ensure_ascii=False))


def read_record(path: Path) -> dict | None:
    """What `write_record` wrote; None where the file is not there, or not as it was written."""
    try:
        content = json.loads(path.read_bytes())
        return content if content.pop("sha256") == hash_of(content) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, KeyError):
        return None


Inventory = dict[str, list]  # path below a folder -> size in bytes, time in nanoseconds, SHA-256


def inventory(folder: Path, *paths: Path) -> Inventory:
    """Of files in a folder (none: all) but FILES; they are synced, and get the rights that the umask leaves."""
    found, mask = {}, os.umask(0o022)
    os.umask(mask)
    for path in sorted(path for path in paths or folder.rglob("*") if path.is_file() and path.name != FILES):
        path.chmod(0o666 & ~mask)  # safetensors writes for the owner alone
        sync(path)
        status = path.stat()
        found[os.path.relpath(path, folder)] = [status.st_size, status.st_mtime_ns, file_hash(path)]
    return found


def damage(folder: Path, files: Inventory | None, every_byte: bool = False) -> str:
    """What is wrong with a folder, in words; empty where its files are those of its inventory. Bytes are read where the
    time is another, which is noted in `files`, or if `every_byte`."""
    if files is None:
        return "its list of files is missing or was changed"
    for name, (size, time, content) in files.items():
        try:
            status = (folder / name).stat()
            if status.st_size != size:
                return f"{name} has {status.st_size} of {size} bytes"
            if (every_byte or status.st_mtime_ns != time) and file_hash(folder / name) != content:
                return f"{name} was changed after it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
        files[name][1] = status.st_mtime_ns
    return ""


@contextlib.contextmanager
def locked(place: Path, what: str, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a folder or file, a hidden file beside it; where another process has it, waits and says so, or
    raises InputError if it is not to wait, as where there can be no lock."""
    lock = FileLock(place.with_name(f".{place.name}.lock"), fallback_to_soft=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(f"another `make book` is working on {what}: wait for it, or stop it") from None
        say(f"waiting: another process is working on {what}")
        held = lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        mend = "set MLPROBE_OUTPUTS to a folder on a file system with locks"
        raise InputError(f"{what}: no lock {lock.lock_file} ({error.strerror}): {mend}") from error
    with held:
        yield


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    atomic_write(path, frame.to_parquet(index=False))


def read_parquet(path: Path, made_by: str = "the same command", **how) -> pd.DataFrame:
    """As pandas' function. InputError, with what makes the file again, where it cannot be read."""
    try:
        return pd.read_parquet(path, **how)
    except (OSError, ValueError, TypeError, ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}): delete it, and {made_by} makes it again") from error


@contextlib.contextmanager
def claimed(folder: str | Path, made_from: dict) -> Iterator[Path]:
    """Reserves a folder for the result made from this, recorded at the end; of a damaged one nothing is left. Another
    process waits. InputError where it holds a result of other inputs (keys of `made_from`), or other files."""
    folder, wanted = Path(folder), json.loads(json.dumps(made_from))
    record, files = folder / MADE_FROM, folder / FILES
    # of the processes of one launch, the first has it for all
    with locked(folder, str(folder)) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext():
        if record.is_file():
            try:
                there = json.loads(record.read_bytes())
            except ValueError as error:
                raise InputError(f"{record} is damaged: empty the folder, or give another") from error
            if other := [key for key in wanted if there.get(key) != wanted[key]]:
                found = f"{folder} holds a result for other {' and '.join(other)}"
                raise InputError(f"{found}: give another folder, or empty it")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds something else: give an empty or new folder")
        else:
            atomic_write(record, json.dumps(wanted, indent=1))
        if files.is_file():
            if (listed := read_record(files)) is None:
                raise InputError(f"{files} is damaged: empty the folder, or give another")
            if wrong := damage(folder, listed):
                say(f"{folder} is damaged and will be recomputed: {wrong}")
                for path in (files, *(folder / name for name in listed if name != MADE_FROM)):
                    path.unlink(missing_ok=True)
        yield folder
        if not files.is_file():
            write_record(files, inventory(folder))
