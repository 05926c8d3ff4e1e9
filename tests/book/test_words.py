"""The words of pages, tables, charts and messages: none of tests/words.yml, which says what to write instead."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest
import yaml

from mlprobe_utils.pipeline.artefacts import ROOT

RULES = yaml.safe_load((ROOT / "tests" / "words.yml").read_text())
WORDS = {re.compile(rf"(?<![\w-])(?:{word})(?![\w-])", re.IGNORECASE): mend for word, mend in RULES["words"].items()}
EXCEPTIONS = [(exception["file"], exception["text"]) for exception in RULES["exceptions"]]
SHOWING = ("say", "answer", "note", "show", "file")  # what a cell calls with words for the page
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
ROOMS = ("plots", "analysis", "evaluation", "stats", "book")
CODE = [path for room in ROOMS for path in (ROOT / "mlprobe_utils" / room).glob("*.py")]
FILES = sorted(path.relative_to(ROOT) for path in [*TEXTS, *CODE, *(ROOT / "notebooks").glob("*.py")])


def literals(tree: ast.AST) -> Iterator[str]:
    """String literals but docstrings; of an f-string the whole, with {} for what is filled in."""
    if isinstance(tree, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in tree.values)
    elif isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.value
    elif not (isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Constant)):
        for child in ast.iter_child_nodes(tree):
            yield from literals(child)


def texts(path: Path) -> Iterator[str]:
    """What readers see of a file."""
    if path.suffix == ".md":
        yield re.sub(r"^```\w*\n.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    elif path.parent.name != "notebooks":
        yield from literals(ast.parse(path.read_text()))
    else:
        for cell in jupytext.read(path).cells:
            calls = [] if cell.cell_type == "markdown" else ast.walk(ast.parse(cell.source))
            yield from [cell.source] if cell.cell_type == "markdown" else []
            for call in calls:
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") in SHOWING:
                    yield from literals(call)


@pytest.mark.parametrize("file", map(str, FILES))
def test_what_readers_see_is_in_the_words_of_the_field(file):
    found = []
    for text in texts(ROOT / file):
        for _, exception in (own for own in EXCEPTIONS if own[0] == file):
            text = text.replace(exception, "")
        text = re.sub(r"`[^`\n]*`|\]\([^)]*\)", " ", text)
        found += [f"{match[0]!r}: write {mend}" for word, mend in WORDS.items() for match in word.finditer(text)]
    assert not found
