"""A chapter's parameters, checked before anything runs.

papermill only logs a parameter that a notebook does not declare, and injects values of any type. The first code cell
after the parameters calls `check_parameters(globals())`: declared are the annotated names of the parameters cell, and
any other name that has appeared in the notebook's namespace is an error.
"""

import ast
import types
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.pipeline.configuration import Run, configure

_OF_JUPYTER = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(namespace: dict) -> Run:
    """What the chapter runs over, from its declared parameters.

    Raises:
        InputError: a parameter that the chapter does not have, a value of the wrong type, an unknown slug or choice,
            real images without their folder.
    """
    declared = dict(namespace.get("__annotations__", {}))
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _OF_JUPYTER and not isinstance(value, types.ModuleType)
    }
    for name, value in given.items():
        if name in declared:
            _check_type(name, value, declared[name])
        elif not callable(value):
            raise unknown("parameter", name, declared)
    if given.get("metric", METRICS[0]) not in METRICS:
        raise unknown("metric", given["metric"], METRICS)
    return configure(*(given[name] for name in ("models", "datasets", "protocol", "split", "data")))


def _check_type(name: str, value, annotation) -> None:
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        expected = annotation if "[" in str(annotation) else annotation.__name__
        problem = error.errors()[0]["msg"]
        raise InputError(f"parameter '{name}' must be {expected}: {problem} (found {value!r:.80})") from error


def meanings(cells: Iterable[str]) -> dict[str, str]:
    """Parameter -> the comment behind its declaration `name: type = value  # meaning`, as the kernel read it last.

    Args:
        cells: sources of code cells in the order they ran (IPython's `In`).
    """
    found = {}
    for source in cells:
        try:
            declarations = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
        except SyntaxError:  # a cell that failed, in an open notebook
            continue
        lines = source.encode().splitlines()  # ast counts bytes
        for node in declarations:
            behind = lines[node.end_lineno - 1][node.end_col_offset :].decode()
            found[ast.unparse(node.target)] = behind.partition("#")[2].strip()
    return found
