"""The notebooks tell and the modules compute: how their cells are made, whatever they say."""

import re

import jupytext
import pytest

from mlprobe_utils.book_pages import NOTEBOOKS, notebooks

MOST_LINES = 8


@pytest.fixture(params=notebooks())
def cells(request):
    return jupytext.read(NOTEBOOKS / f"{request.param}.py").cells


def test_cells_are_short_and_hold_no_functions(cells):
    for cell in cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert 1 <= len(lines) <= MOST_LINES, cell.source
            assert not any(line.lstrip().startswith(("def ", "class ")) for line in lines), cell.source


def test_a_page_begins_with_title_parameters_and_opening(cells):
    title, parameters, start = cells[:3]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    folded = ("hide-input", "remove-input")  # the front page shows no code
    assert parameters.metadata["tags"][0] == "parameters"
    assert parameters.metadata["tags"][1] in folded
    assert start.metadata["tags"][0] in folded
    assert "chapter = start(globals())" in start.source
    assert sum("chapter.opening()" in source for source in code) == 1


def test_every_glued_number_is_quoted_and_every_quoted_one_is_glued(cells):
    """But for names that a cell puts together: f"accuracy_{stage}"."""
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    quoted = set(re.findall(r"\{glue:text\}`(\w+)", prose))
    glued = set(re.findall(r'glue\(\s*"(\w+)"', code))
    composed = [re.sub(r"\{\w+\}", r"\\w+", name) for name in re.findall(r'glue\(f"([^"]+)"', code)]
    assert glued <= quoted
    assert all(any(re.fullmatch(name, word) for name in composed) for word in quoted - glued)
