"""The package's own source files behind a module or a notebook, and their hash: what pages and scores are made from.

Both are made anew in seconds. What takes longer is made from the version of its stage (`stages`).
"""

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

from mlprobe_utils.common.files import hash_of
from mlprobe_utils.pipeline import artefacts


@functools.cache
def code_files(module: str) -> tuple[Path, ...]:
    """The package's source files that `module` imports, directly or not, itself included; sorted.

    Raises ValueError for a module that does not exist: nothing would ever count as changed.
    """
    if _source_file(module) is None:
        raise ValueError(f"there is no module {module}")
    return _closure([module])


def imported_files(script: Path) -> tuple[Path, ...]:
    """The package's source files that a script outside of it (a chapter) imports, directly or not; sorted."""
    return _closure(_imports(script))


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash of the source files of some modules and of all they import from this package.

    As they were when the process first asked: an open kernel runs on what it has imported, whatever is edited since.
    """
    return files_hash({path for module in modules for path in code_files(module)})


def files_hash(paths: Iterable[Path]) -> str:
    """Hash of what some files hold."""
    return hash_of([hash_of(path.read_bytes()) for path in sorted(paths)])


def _closure(modules: list[str]) -> tuple[Path, ...]:
    found, queue = set(), list(modules)
    while queue:
        path = _source_file(queue.pop())
        if path is not None and path not in found:
            found.add(path)
            queue += _imports(path)
    return tuple(sorted(found))


@functools.cache
def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith("mlprobe_utils")]


def _source_file(module: str) -> Path | None:
    base = artefacts.ROOT / Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
