"""Writes tests/stages.lock.json: the code of every stage, once somebody has decided whether its results change.

`python tests/helpers/stage_lock.py` after a change to code that a stage runs: where its results change, raise its
version in mlprobe_utils/pipeline/stages.py first. What cannot change a result does not count: comments, docstrings,
white space, descriptions of fields, messages of errors, imports, and where a module lies.
"""

import ast
import functools
import json
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
    essence_of = functools.cache(lambda path: essence(ast.parse(path.read_text())))  # many stages run the same files
    versions = {}
    for name, stage in STAGES.items():
        paths = {path for module in stage.code for path in code_files(f"mlprobe_utils.{module}")}
        versions[name] = [stage.version, hash_of(sorted(map(essence_of, paths)))]
    return versions


def essence(code: ast.AST | list | object) -> str:
    """What of the syntax of some code can change a result."""
    if isinstance(code, list):
        return f"[{','.join(filter(None, map(essence, code)))}]"
    if not isinstance(code, ast.AST):
        return repr(code)
    if isinstance(code, ast.Import | ast.ImportFrom) or (isinstance(code, ast.keyword) and code.arg == "description"):
        return ""
    fields = dict(ast.iter_fields(code))
    if isinstance(code, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(code) is not None:
        fields["body"] = code.body[1:]
    if isinstance(code, ast.Raise) and isinstance(code.exc, ast.Call):
        fields["exc"] = code.exc.func
    whole = (f"{name}={essence(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(code).__name__}({','.join(whole)})"


if __name__ == "__main__":
    LOCK.write_text(json.dumps(found(), indent=1) + "\n")
