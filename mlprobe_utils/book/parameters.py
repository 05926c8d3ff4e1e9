"""A chapter's parameters, checked before anything runs.

papermill only logs a parameter that a notebook does not declare, and injects values of any type. The first code cell
after the parameters calls `check_parameters(globals())`: a chapter declares those of `Parameters` that its parameters
cell annotates. What else a reader defines in the notebook is not looked at.
"""

import ast
import contextlib
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.pipeline.configuration import Run, configure

INJECTED = "# Parameters"  # how papermill begins the cell that it adds


class Parameters(BaseModel):
    """All that chapters can be run with."""

    model_config = ConfigDict(strict=True)
    models: list[str]
    datasets: list[str]
    protocol: str
    split_rule: str
    data: str
    metric: str = METRICS[0]


def check_parameters(namespace: dict) -> tuple[Run, dict]:
    """What the chapter runs over, and all its parameters with their values.

    Args:
        namespace: the notebook's `globals()`.

    Raises:
        InputError: a parameter that the chapter does not have, a value of the wrong type, an unknown slug or choice,
            real images without their folder.
    """
    declared = [name for name in Parameters.model_fields if name in namespace.get("__annotations__", {})]
    injected = []  # the names that papermill's last cell assigns
    for source, nodes in _parsed(namespace.get("In", [])):
        if source.splitlines()[0] == INJECTED:
            injected = [target.id for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    if foreign := [name for name in injected if name not in declared]:
        raise unknown("parameter", foreign[0], declared)
    given = {name: namespace[name] for name in declared}
    try:
        metric = Parameters.model_validate(given).metric
    except ValidationError as error:
        problem = error.errors()[0]
        name = problem["loc"][0]
        raise InputError(f"parameter '{name}': {problem['msg']} (found {given[name]!r:.80})") from error
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    run = configure(**{name: value for name, value in given.items() if name != "metric"})
    return run, given | run.parameters()


def meanings(cells: Iterable[str]) -> dict[str, str]:
    """Parameter -> the comment behind its declaration `name: type = value  # meaning`, as the kernel read it last.

    Args:
        cells: sources of code cells in the order they ran (IPython's `In`).
    """
    found = {}
    for source, nodes in _parsed(cells):
        lines = source.encode().splitlines()  # ast counts bytes
        for node in nodes:
            if isinstance(node, ast.AnnAssign):
                behind = lines[node.end_lineno - 1][node.end_col_offset :].decode()
                found[ast.unparse(node.target)] = behind.partition("#")[2].strip()
    return found


def _parsed(cells: Iterable[str]) -> Iterator[tuple[str, list[ast.stmt]]]:
    """The cells that are Python and not empty, with their statements: in an open notebook others may have failed."""
    for source in cells:
        with contextlib.suppress(SyntaxError):
            if nodes := ast.parse(source).body:
                yield source, nodes
