"""Artefacts: folders that appear whole or not at all, and hold what they were made from (`made_from.json`), and size,
time and SHA-256 of their files (`files.json`), so that a damaged one is found and made again."""

import contextlib
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from mlprobe_utils.common import files
from mlprobe_utils.common.errors import InputError, of_file_system
from mlprobe_utils.common.files import FILES, MADE_FROM, RECORDS, atomic_write, hash_of, read_record, write_record
from mlprobe_utils.common.progress import say
from mlprobe_utils.pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = Path(os.environ.get("MLPROBE_OUTPUTS", ROOT / "outputs"))
READ: dict[Path, str] = {}  # the artefacts that this process has read, each with the command that makes it
RECORDED_PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "scikit-learn", "numpy", "pandas", "pillow")


@dataclass(frozen=True)
class Artefact:
    """A folder, and all that its files depend on."""

    folder: Path
    stage: str  # what makes it, one of STAGES, whose version counts
    inputs: dict  # what of cards, data and seeds it depends on, JSON
    upstream: tuple["Artefact", ...] = ()  # the artefacts whose files it is made from

    def made_from(self) -> dict:
        """The content of its record as of now. Raises InputError where an upstream artefact is not there."""
        upstream = {from_outputs(one.folder): content_hash(one.folder) for one in self.upstream}
        return {"stage": self.stage, "version": STAGES[self.stage].version, **self.inputs, "upstream": upstream}

    def make(self, fill: Callable[[Path], None]) -> bool:
        return make(self.folder, self.made_from(), fill)


def stale(artefacts: Iterable[Artefact]) -> list[Artefact]:
    """Those that are not current, or made from one that is not, in the order given: upstream ones first."""
    found: dict[Path, Artefact] = {}
    for one in artefacts:
        follows = any(source.folder in found for source in one.upstream)
        whole = all((source.folder / FILES).is_file() for source in one.upstream)
        if follows or not (whole and is_current(one.folder, one.made_from())):
            found[one.folder] = one
    return [*found.values()]


def is_current(folder: Path, made_from: dict) -> bool:
    """Whether `folder` holds a whole artefact made from exactly `made_from`."""
    return _record(folder) == json.loads(json.dumps(made_from)) and not damage_of(folder)


def _record(folder: Path) -> dict | None:
    try:
        return json.loads((folder / MADE_FROM).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def damage_of(folder: Path, every_byte: bool = False) -> str:
    """As `files.damage`, of an artefact."""
    listed = read_record(folder / FILES)
    before = json.dumps(listed)
    if not (wrong := files.damage(folder, listed, every_byte)) and json.dumps(listed) != before:
        with contextlib.suppress(OSError):  # times of a copy: noted by who may write, so that bytes are read once
            write_record(folder / FILES, listed)
    return wrong


def content_hash(folder: Path) -> str:
    """Hash of an artefact's files as they were completed. Raises InputError if it is not there."""
    if (listed := read_record(folder / FILES)) is None:
        raise InputError(f"{relative(folder)} is missing or incomplete: run `make book`")
    return contents_hash(listed)


def contents_hash(listed: files.Inventory) -> str:
    return hash_of({name: content for name, (_, _, content) in listed.items() if name not in RECORDS})


def from_outputs(folder: Path) -> str:
    """A folder's path below `outputs/`, or its absolute path where it lies elsewhere."""
    return str(folder.relative_to(OUTPUTS) if folder.is_relative_to(OUTPUTS) else folder)


def make(folder: Path, made_from: dict, fill: Callable[[Path], None]) -> bool:
    """Makes an artefact by `fill`, as `artefact`, unless it is current or another process makes it; whether it did."""
    if is_current(folder, made_from):
        return False
    with files.locked(folder, from_outputs(folder)):
        if is_current(folder, made_from):
            return False
        if folder.is_dir() and (wrong := damage_of(folder)):
            say(f"{from_outputs(folder)} is damaged and will be recomputed: {wrong}")
        try:
            with artefact(folder, made_from) as partial:
                fill(partial)
        except Exception as error:  # libraries that write raise errors of many kinds
            if not isinstance(error, InputError) and (mendable := of_file_system(error, relative(folder))):
                raise mendable from error
            raise
        return True


@contextlib.contextmanager
def artefact(folder: Path, made_from: dict) -> Iterator[Path]:
    """Yields a temporary folder to fill, which takes the place of `folder` unless there is an error. It still holds
    what an interrupted try left, if that was made from the same: stages that work in shards resume."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, start = partial_folder(folder), time.time()
    if _record(partial) != json.loads(json.dumps(made_from)):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        atomic_write(partial / MADE_FROM, json.dumps(made_from, indent=1, ensure_ascii=False))
    yield partial
    atomic_write(partial / files.PROVENANCE, json.dumps(provenance(start), indent=1))
    complete(partial)
    files.swap_in(partial, folder)


def complete(folder: Path) -> None:
    """Records the files of an artefact as they are."""
    write_record(folder / FILES, files.inventory(folder))
    files.sync(folder)


def partial_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def link(source: Path, folder: Path) -> None:
    """Fills a folder with hard links to the files of an artefact."""
    for path in source.iterdir():
        if path.name not in RECORDS:
            (folder / path.name).unlink(missing_ok=True)
            os.link(path, folder / path.name)


def provenance(start: float) -> dict:
    """Time, commit, versions and memory of what was made since `start`, in seconds since the epoch."""
    found = {"made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "seconds": round(time.time() - start, 2)}
    return found | {"commit": commit(), "versions": {name: version(name) for name in RECORDED_PACKAGES}} | peak_memory()


@functools.cache
def commit() -> str:
    """Of the checkout, at the first call: later ones may differ from the code that runs."""
    if not (git := shutil.which("git")):
        return "unknown: git is not installed"
    described = subprocess.run([git, "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or "not a git checkout"


def peak_memory() -> dict:
    """The most memory that this process, and torch on its accelerator if there is one, have had so far, in MiB."""
    peak = {"peak_memory_mib": round(peak_of(resource.RUSAGE_SELF), 1)}
    torch = sys.modules.get("torch")  # a process that never imported it has used no accelerator
    if not torch or not torch.accelerator.is_available():
        return peak
    device, allocated = torch.accelerator.current_accelerator(), torch.accelerator.max_memory_allocated()
    name_of = getattr(torch.get_device_module(device), "get_device_name", lambda: device.type)
    return peak | {"accelerator": name_of(), "accelerator_peak_memory_mib": round(allocated / 2**20, 1)}


def peak_of(processes: int) -> float:
    """The most memory, in MiB, of this process or of the largest that it has waited for, as `getrusage` names them."""
    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(processes).ru_maxrss * unit / 2**20


def read_made_from(folder: Path, made_by: str) -> dict:
    """What an artefact was made from; it counts as READ. InputError, naming `made_by`, if it is missing or damaged."""
    wrong = damage_of(folder) if folder.is_dir() else ""
    if wrong or (record := _record(folder)) is None:
        state = f"is damaged ({wrong})" if wrong else "does not exist"
        raise InputError(f"{relative(folder)} {state}: make it with `{made_by}`")
    READ[folder] = made_by
    return record


def read_rows(path: Path, **how) -> pd.DataFrame:
    """A table of an artefact, as `files.read_parquet`, whose error names the command that makes it."""
    return files.read_parquet(path, f"`{READ[path.parent]}`" if path.parent in READ else "the same command", **how)


def upstream(folder: Path) -> list[Path]:
    """An artefact and all that it was made from, directly or not, by their records."""
    found = [folder]
    for one in found:  # which grows
        places = [OUTPUTS / name for name in (_record(one) or {"upstream": []})["upstream"]]
        found += [place for place in places if place not in found]
    return found


def relative(path: Path) -> str:
    """A path for messages: from the project's root where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
