"""Writes book/reference.md, the page of the door's functions, from their docstrings.

`python tests/helpers/reference.py` after a change of one; a test fails until then. They are read from the source, as
importing the functions imports torch, ten seconds of processor time for every book.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlprobe_utils as mp

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "reference.md"
HEAD = """# Reference

The functions for a notebook of your own, as `import mlprobe_utils as mp`; [Rerun it](rerun) shows them in order. This
page is written from their docstrings; `help(mp.probe)` shows the same. Tests run the examples with a tiny `model`,
`images` and `question`. `InputError` is the error for wrong input; its message says how to correct it.
"""
CODE = re.compile(r"(`[^`]*`)")
Described = ast.ClassDef | ast.FunctionDef
TITLES = {"Args:": "**Arguments**", "Attributes:": "**Attributes**"}


def written() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *(line for name in mp.__all__ for line in described(name))])


def described(name: str) -> Iterator[str]:
    module = ROOT / "mlprobe_utils" / Path(*mp._PLACES[name].split(".")).with_suffix(".py")
    tree = ast.parse(module.read_text())
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name in found:
        yield from entry(f"mp.{name}", found[name], "##", found)
        return
    yield from (f"## mp.{name}", "", *paragraphs(ast.get_docstring(tree)))
    for own, node in found.items():
        if not own.startswith("_") and ast.get_docstring(node):
            yield from entry(f"mp.{name}.{own}", node, "###", found)


def entry(name: str, node: Described, level: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    yield from (f"{level} {name}", "", "```python", signature(name, node, classes), "```", "")
    yield from paragraphs(ast.get_docstring(node))
    for method in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(method, ast.FunctionDef) and any(
            getattr(d, "id", "") == "classmethod" for d in method.decorator_list
        ):
            yield from entry(f"{name}.{method.name}", method, f"{level}#", classes)


def signature(name: str, node: Described, classes: Mapping[str, ast.ClassDef]) -> str:
    """One line, or one argument a line where that is longer than a page is wide."""
    if isinstance(node, ast.ClassDef):
        bases = [classes[base.id] for base in node.bases if getattr(base, "id", "") in classes]
        own = [field for each in (*bases, node) for field in each.body if isinstance(field, ast.AnnAssign)]
        fields = [re.sub(r"field\(default_factory=(\w+)\)", r"\1()", ast.unparse(field)) for field in own]
        arguments, returns = [own for own in fields if "init=False" not in own and not own.startswith("_")], ""
    else:
        given, returns = node.args, f" -> {ast.unparse(node.returns)}" if node.returns else ""
        defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
        named = [own for own in zip(given.args, defaults, strict=True) if own[0].arg not in ("cls", "self")]
        arguments = [argument(*own) for own in named]
        arguments += ["*"] if given.kwonlyargs else []
        arguments += [argument(*own) for own in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
        arguments += [f"**{given.kwarg.arg}"] if given.kwarg else []
    line = f"{name}({', '.join(arguments)}){returns}"
    broken = "".join(f"    {own},\n" for own in arguments)
    return line if len(line) <= 90 else f"{name}(\n{broken}){returns}"


def argument(own: ast.arg, default: ast.expr | None) -> str:
    words = own.arg + (f": {ast.unparse(own.annotation)}" if own.annotation else "")
    return f"{words} = {ast.unparse(default)}" if default else words


def paragraphs(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: examples as code, lists of arguments as lists."""
    for block in docstring.split("\n\n"):
        head, _, rest = block.partition("\n")
        if block.startswith(">>>"):
            yield from ("```python", block, "```", "")
        elif head in TITLES:
            items = re.split(r"\n(?=\S)", textwrap.dedent(rest))
            yield from (TITLES[head], "", *(item_of(" ".join(item.split())) for item in items), "")
        elif head == "Returns:":
            yield from (f"**Returns** {markdown(' '.join(rest.split()))}", "")
        else:
            yield from (markdown(block), "")


def item_of(item: str) -> str:
    names, _, words = item.partition(": ")
    return f"- `{names}`: {markdown(words)}"


def markdown(words: str) -> str:
    """Text in which only what stands between backticks is code."""
    return "".join(part if part.startswith("`") else re.sub(r"([<*\[])", r"\\\1", part) for part in CODE.split(words))


if __name__ == "__main__":
    PAGE.write_text(written())
