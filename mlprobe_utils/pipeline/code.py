"""The source files behind a module or a notebook, and their hash: what pages and scores are made from."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from mlprobe_utils.common.files import hash_of
from mlprobe_utils.pipeline import artefacts

# `from MODULE import (NAMES)` or `NAMES`, or `import MODULE`: a parser takes ten times as long
IMPORT = re.compile(
    r"^[ \t]*(?:from (mlprobe_utils[\w.]*) import (?:\(([^)]*)\)|(.*))|import (mlprobe_utils[\w.]*))", re.MULTILINE
)


@functools.cache
def code_files(start: str | Path) -> tuple[Path, ...]:
    """A module and what of the package it imports, directly or not, sorted; of a script outside of it the latter."""
    if isinstance(start, str) and _source_file(start) is None:
        raise ValueError(f"there is no module {start}")
    found, queue = set(), [start] if isinstance(start, str) else [*_imports(start)]
    while queue:
        path = _source_file(queue.pop())
        if path is not None and path not in found:
            found |= {own for own in (path, *map(path.with_suffix, (".css", ".js"))) if own.is_file()}
            queue += _imports(path)
    return tuple(sorted(found))


@functools.cache
def code_hash(module: str) -> str:
    """Hash of the files of a module and of all that it imports, at the first call: what an open kernel runs on."""
    return files_hash(code_files(module))


def files_hash(paths: Iterable[Path]) -> str:
    return hash_of([hash_of(path.read_bytes()) for path in sorted(paths)])


@functools.cache
def _imports(path: Path) -> list[str]:
    """The modules of the package that the import statements of a file name, or could: a name may be a function's."""
    found = []
    for module, block, line, alone in IMPORT.findall(path.read_text()):
        found += [alone or module, *(f"{module}.{name}" for name in re.findall(r"\w+", block or line))]
    return found


@functools.cache
def _source_file(module: str) -> Path | None:
    base = artefacts.ROOT / Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
