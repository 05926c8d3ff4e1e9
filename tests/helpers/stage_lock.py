"""Writes tests/stages.lock.json: the code of every stage, once somebody has decided whether its results change.

`python tests/helpers/stage_lock.py` after a change to code that a stage runs: where its results change, raise its
version in mlprobe_utils/pipeline/stages.py first. What cannot change a result does not count: comments, docstrings,
white space, descriptions of fields, messages of errors, imports, and where a module lies.
"""

import ast
import functools
import json
import tokenize
from io import StringIO
from pathlib import Path

from mlprobe_utils.common.files import hash_of
from mlprobe_utils.pipeline.code import code_files
from mlprobe_utils.pipeline.stages import STAGES

LOCK = Path(__file__).parents[1] / "stages.lock.json"


def locked() -> dict[str, list]:
    """Stage -> its version and the hash of its code, as they were when somebody last decided."""
    return json.loads(LOCK.read_text())


def found() -> dict[str, list]:
    """The same as they are."""
    return {name: [stage.version, code_of(stage.code)] for name, stage in STAGES.items()}


def code_of(modules: tuple[str, ...]) -> str:
    paths = {path for module in modules for path in code_files(f"mlprobe_utils.{module}")}
    return hash_of(sorted(map(essence_of, paths)))


@functools.cache  # many stages run the same files
def essence_of(path: Path) -> str:
    return essence(path.read_text())


def essence(source: str) -> str:
    """What of a source file can change a result."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))

    def span(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    dropped = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            dropped.append(span(node.body[0]))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            dropped.append(span(node))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            dropped += [span(argument) for argument in node.exc.args]
        elif isinstance(node, ast.keyword) and node.arg == "description":
            dropped.append(span(node))
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (row, first), (_, last), line = token.start, token.end, token.line
            at = starts[row - 1]
            dropped.append((at + len(line[:first].encode()), at + len(line[:last].encode())))
    kept, end = [], 0
    encoded = source.encode()
    for first, last in sorted(dropped):
        kept.append(encoded[end : max(first, end)])
        end = max(last, end)
    text = b"".join([*kept, encoded[end:]]).decode()
    return "".join(text.split()).replace(",)", ")").replace(",]", "]").replace(",}", "}")


if __name__ == "__main__":
    LOCK.write_text(json.dumps(found(), indent=1) + "\n")
