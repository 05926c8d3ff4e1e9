"""Artefacts: folders that appear whole or not at all, and know what they were made from.

Beside its files, `made_from.json` holds everything that they depend on: what of cards, data and seeds is read, the
version of the stage, and the content of the artefacts upstream. `files.json` has the SHA-256 of each file, for what is
made from them; `provenance.json` time, memory, versions and commit: recorded, never compared.
"""

import contextlib
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import RECORDS, atomic_write, file_hash, hash_of, swap_in
from mlprobe_utils.pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = Path(os.environ.get("MLPROBE_OUTPUTS", ROOT / "outputs"))
READ: dict[Path, str] = {}  # the artefacts that this process has read, each with the command that makes it
FILES = "files.json"
RECORDED_PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "scikit-learn", "numpy", "pandas", "pillow")


@dataclass(frozen=True)
class Artefact:
    """A folder, and everything that decides what is in it."""

    folder: Path
    stage: str  # what makes it, one of STAGES, whose version counts
    inputs: dict  # what of cards, data and seeds it depends on, JSON
    upstream: tuple["Artefact", ...] = ()  # the artefacts whose files it is made from

    def made_from(self) -> dict:
        """Everything that it depends on, as its record keeps it; of upstream artefacts what is in them now.

        Raises InputError where one of these is not there.
        """
        upstream = {from_outputs(one.folder): content_hash(one.folder) for one in self.upstream}
        return {"stage": self.stage, "version": STAGES[self.stage].version, **self.inputs, "upstream": upstream}

    def is_current(self) -> bool:
        """Whether the folder holds a whole artefact made from exactly this."""
        there = all((one.folder / FILES).is_file() for one in self.upstream)
        return there and is_current(self.folder, self.made_from())

    def making(self) -> AbstractContextManager[Path]:
        """As `artefact`."""
        return artefact(self.folder, self.made_from())


def stale(artefacts: Iterable[Artefact]) -> list[Artefact]:
    """Those that have to be made, upstream ones first: not current, or made from one that is not."""
    found: dict[Path, Artefact] = {}
    for one in artefacts:
        if any(source.folder in found for source in one.upstream) or not one.is_current():
            found[one.folder] = one
    return list(found.values())


def is_current(folder: Path, made_from: dict) -> bool:
    """Whether `folder` holds a whole artefact made from exactly `made_from`."""
    record = folder / "made_from.json"
    return record.is_file() and json.loads(record.read_text()) == json.loads(json.dumps(made_from))


def content_hash(folder: Path) -> str:
    """Hash of the files of an artefact, as they were when it was completed. Raises InputError if it is not there."""
    if not (files := folder / FILES).is_file():
        raise InputError(f"{relative(folder)} is not there, or not whole: run `make book`")
    return hash_of(files.read_bytes())


def from_outputs(folder: Path) -> str:
    """A folder's path below `outputs/`, which may be moved; an absolute path for one that lies elsewhere."""
    return str(folder.relative_to(OUTPUTS) if folder.is_relative_to(OUTPUTS) else folder)


@contextlib.contextmanager
def artefact(folder: Path, made_from: dict) -> Iterator[Path]:
    """Yields a temporary folder to fill; on success it takes the place of `folder`, on an error `folder` is untouched.

    What an interrupted try left in it, made from the same things, is still there: stages that work in shards resume.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_folder(folder)
    if not is_current(partial, made_from):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        atomic_write(partial / "made_from.json", json.dumps(made_from, indent=1, ensure_ascii=False))
    start = time.time()
    yield partial
    files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name not in RECORDS)
    hashes = {str(path.relative_to(partial)): file_hash(path) for path in files}
    atomic_write(partial / FILES, json.dumps(hashes, indent=1))
    atomic_write(partial / "provenance.json", json.dumps(provenance(start), indent=1))
    swap_in(partial, folder)


def link(source: Path, own: Artefact) -> None:
    """Makes an artefact of the very files of another one, which take no further room."""
    with own.making() as temporary:
        for path in source.iterdir():
            if path.name not in RECORDS:
                (temporary / path.name).unlink(missing_ok=True)
                os.link(path, temporary / path.name)


def partial_folder(folder: Path) -> Path:
    """Where an artefact is filled before it takes its place."""
    return folder.with_name(f".{folder.name}.partial")


def provenance(start: float) -> dict:
    """When and with what something was made; `start` in seconds since the epoch."""
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - start, 2),
        "commit": commit(),
        "versions": {name: version(name) for name in RECORDED_PACKAGES},
        **peak_memory(),
    }


@functools.cache
def commit() -> str:
    """Of the checkout, when the process first asks: what it runs was read before."""
    described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or "not a git checkout"


def peak_memory() -> dict:
    """The most memory that this process has had so far, in MiB; and torch on its current accelerator, if there is one.

    A process that makes several artefacts has one peak: a later artefact's is never below an earlier one's.
    """
    peak = {"peak_memory_mib": round(peak_of(resource.RUSAGE_SELF), 1)}
    torch = sys.modules.get("torch")  # a process that never imported it has used no accelerator
    if torch and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        name_of = getattr(torch.get_device_module(device), "get_device_name", lambda: device.type)
        allocated = round(torch.accelerator.max_memory_allocated() / 2**20, 1)
        peak |= {"accelerator": name_of(), "accelerator_peak_memory_mib": allocated}
    return peak


def peak_of(processes: int) -> float:
    """The most memory, in MiB, of this process or of the largest that it has waited for, as `getrusage` names them."""
    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(processes).ru_maxrss * unit / 2**20


def read_made_from(folder: Path, made_by: str) -> dict:
    """What an artefact was made from; it counts as read from now on. `made_by` is the command that makes it.

    Raises InputError, which names that command, where the artefact does not exist.
    """
    record = folder / "made_from.json"
    if not record.is_file():
        raise InputError(f"{relative(folder)} is not there: make it with `{made_by}`")
    READ[folder] = made_by
    return json.loads(record.read_text())


def upstream(folder: Path) -> list[Path]:
    """The artefacts that one was made from, directly or not, as the records name them; itself first."""
    found, waiting = [], [folder]
    while waiting:
        if (one := waiting.pop(0)) not in found:
            found.append(one)
            if (record := one / "made_from.json").is_file():
                waiting += [OUTPUTS / name for name in json.loads(record.read_text())["upstream"]]
    return found


def relative(path: Path) -> str:
    """The path as a user of the project names it: from its root where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
