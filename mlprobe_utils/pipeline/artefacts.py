"""Artefacts: folders that appear whole or not at all, and know what they were made from.

An artefact is a folder with `made_from.json` (everything its content depends on: cards, data, seeds, code) beside its
files, and `provenance.json` (when, how long, how much memory, which versions and commit: recorded, never compared). A
stage asks `is_current` before it works, so that a rerun redoes exactly what changed.
"""

import ast
import contextlib
import functools
import inspect
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of, swap_in

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = Path(os.environ.get("MLPROBE_OUTPUTS", ROOT / "outputs"))
READ: dict[Path, str] = {}  # the artefacts that this process has read, each with the command that makes it
RECORDED_PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "scikit-learn", "numpy", "pandas", "pillow")


def is_current(folder: Path, made_from: dict) -> bool:
    """Whether `folder` holds a whole artefact made from exactly `made_from`."""
    record = folder / "made_from.json"
    return record.is_file() and json.loads(record.read_text()) == json.loads(json.dumps(made_from))


def record_hash(folder: Path) -> str:
    """Hash of what an artefact was made from: for whatever is made from it in turn."""
    return hash_of((folder / "made_from.json").read_bytes())


@contextlib.contextmanager
def artefact(folder: Path, made_from: dict) -> Iterator[Path]:
    """Yields a temporary folder to fill; on success it takes the place of `folder`, on an error `folder` is untouched.

    What an interrupted try left in the temporary folder is still there (stages that work in shards resume from it)
    if it was made from the same things, and removed otherwise.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_folder(folder)
    if not is_current(partial, made_from):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        atomic_write(partial / "made_from.json", json.dumps(made_from, indent=1, ensure_ascii=False))
    start = time.time()
    yield partial
    atomic_write(partial / "provenance.json", json.dumps(provenance(start), indent=1))
    swap_in(partial, folder)


def link(source: Path, folder: Path, made_from: dict) -> None:
    """Makes an artefact of the very files of another one, which take no further room."""
    with artefact(folder, made_from) as temporary:
        for path in source.iterdir():
            if path.name not in ("made_from.json", "provenance.json"):
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
    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage counts bytes there, KiB on Linux
    peak = {"peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)}
    torch = sys.modules.get("torch")  # a process that never imported it has used no accelerator
    if torch and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        name_of = getattr(torch.get_device_module(device), "get_device_name", lambda: device.type)
        allocated = round(torch.accelerator.max_memory_allocated() / 2**20, 1)
        peak |= {"accelerator": name_of(), "accelerator_peak_memory_mib": allocated}
    return peak


def read_made_from(folder: Path, made_by: str) -> dict:
    """What an artefact was made from; it counts as read from now on.

    Raises:
        InputError: the artefact does not exist; `made_by` is the command that makes it.
    """
    record = folder / "made_from.json"
    if not record.is_file():
        raise InputError(f"{relative(folder)} is not there: make it with `{made_by}`")
    READ[folder] = made_by
    return json.loads(record.read_text())


def relative(path: Path) -> str:
    """The path as a user of the project names it: from its root where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@functools.cache
def code_files(module: str) -> tuple[Path, ...]:
    """The package's source files that `module` imports, directly or not, itself included; sorted.

    Raises:
        ValueError: no such module: nothing would ever count as changed.
    """
    if _source_file(module) is None:
        raise ValueError(f"there is no module {module}")
    return _closure([module])


def imported_files(script: Path) -> tuple[Path, ...]:
    """The package's source files that a script outside of it (a chapter) imports, directly or not; sorted."""
    return _closure(_imports(script))


def _closure(modules: list[str]) -> tuple[Path, ...]:
    found, queue = set(), list(modules)
    while queue:
        path = _source_file(queue.pop())
        if path is not None and path not in found:
            found.add(path)
            queue += _imports(path)
    return tuple(sorted(found))


@functools.cache
def _parsed(path: Path) -> ast.Module:
    """A source file, parsed once a process: many hashes go over the same files."""
    return ast.parse(path.read_text())


@functools.cache
def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mlprobe_utils"):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("mlprobe_utils")]
    return names


def _source_file(module: str) -> Path | None:
    base = ROOT / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def code_hash(module: str) -> str:
    """Hash of what `module` and all it imports from this package do: comments and docstrings do not count."""
    return files_hash(code_files(module))


def files_hash(paths: Iterable[Path]) -> str:
    """As `code_hash`, of some source files."""
    return hash_of([_of_file(path) for path in sorted(paths)])


@functools.cache
def _of_file(path: Path) -> str:
    return _without_docstrings(path.read_text())


def source_hash(*objects) -> str:
    """Hash of what some functions or classes do, for the code that no module of its own holds; as `code_hash`."""
    return hash_of([_without_docstrings(textwrap.dedent(inspect.getsource(thing))) for thing in objects])


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
