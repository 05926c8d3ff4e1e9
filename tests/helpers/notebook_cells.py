"""Code cells of the book's notebooks, and the names in them."""

import dis
from types import CodeType

import jupytext
from nbformat import NotebookNode

from mlprobe_utils.book.book_pages import script_of


def code_cells(name: str) -> list[NotebookNode]:
    """Of a notebook, by its name."""
    return [cell for cell in jupytext.read(script_of(name)).cells if cell.cell_type == "code"]


def names_of(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell makes, but for imported ones, and those that it reads before it makes them."""
    made, imported, read = set(), set(), set()

    def follow(code: CodeType) -> None:
        before = ""
        for step in dis.get_instructions(code):
            if isinstance(step.argval, CodeType):
                follow(step.argval)
            elif step.opname == "STORE_NAME":
                (imported if before.startswith("IMPORT") else made).add(step.argval)
            elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in made | imported:
                read.add(step.argval)
            before = step.opname

    follow(compile(source, "cell", "exec"))
    return made, read
