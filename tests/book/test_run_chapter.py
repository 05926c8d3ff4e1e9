"""Running a chapter: through papermill, whole or not at all, beside others."""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from mlprobe_utils.book import book_pages, run_chapter
from mlprobe_utils.book.chapter import INJECTED
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.configuration import Run

RUN = Run(("a.b-1",), ("busi-phantom",), "miniature", "paper", "")
HEAD = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
count: int = 1  # how many

# %%
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Writes the code of the one chapter there is."""
    monkeypatch.setattr(book_pages, "NOTEBOOKS", tmp_path)

    def write(code: str):
        (tmp_path / "01_small.py").write_text(HEAD + code)
        return tmp_path / "out" / "01_small.ipynb"

    return write


def printed(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_parameters_arrive_the_injected_cell_is_hidden_and_no_folder_is_named(chapter, tmp_path):
    """No TCP port is used, so that chapters may start together."""
    section = '\n# %% [markdown] tags=["needs-question-first"]\n# ## A section\n# %%\nprint("left out")'
    code = "from ipykernel.connect import get_connection_info\nprint(count + 1, get_connection_info())"
    output = chapter(code + section)
    run_chapter.run_chapter("01_small", {"count": 41, "models": ["gemma-3-4b-miniature"]}, output)
    assert printed(output).startswith("42 ")
    assert '"transport": "ipc"' in printed(output)
    assert "left out" not in printed(output)
    cells = {str(cell.metadata.get("tags")): cell.source for cell in nbformat.read(output, as_version=4).cells}
    assert cells["['injected-parameters', 'remove-cell']"].encode().startswith(INJECTED + b"\n")
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert str(tmp_path) not in output.read_text()


def pages_of(*counts: int) -> list[book_pages.Page]:
    return [book_pages.Page(f"models/{count}", "01_small", {"models": [], "count": count}) for count in counts]


def test_pages_share_a_kernel_of_one_thread_and_no_variable(chapter, outputs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as Snakemake does for a job of two cores
    chapter(
        "import os\nprint(count, os.getpid(), 'kept' in globals(), os.environ['MLPROBE_PREPARED'],"
        "os.environ['OMP_NUM_THREADS'], os.getcwd())\nkept = 1"
    )
    pages, before = pages_of(1, 2), os.getcwd()
    run_chapter.run_pages(pages, RUN, 1)
    (one, first, *rest), (two, second, *more) = (printed(book_pages.executed(page.name)).split() for page in pages)
    assert (one, two, first) == ("1", "2", second)
    assert rest == more == ["False", "1", "1", str(book_pages.NOTEBOOKS)]
    assert os.getcwd() == before  # papermill's own way to choose a folder changes that of all threads


def test_a_page_that_fails_stops_no_other_and_only_it_is_due_again(chapter, outputs, monkeypatch):
    """Two at a time; then a changed notebook makes all of them due."""
    pages = pages_of(2, 0, 1)
    monkeypatch.setattr(book_pages, "book_pages", lambda run: pages)
    chapter("1 / count")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        run_chapter.run_pages(pages, RUN, 2)
    assert book_pages.stale_pages(RUN) == [pages[1]]
    chapter("count")
    assert book_pages.stale_pages(RUN) == pages


def test_a_page_is_due_when_what_it_reads_is_another(chapter, outputs, tmp_path, monkeypatch):
    """A card, a result of its model; not what pages derive from results."""
    chapter("pass")
    card, results = tmp_path / "card.yml", RUN.folder("a.b-1", "busi-phantom")
    atomic_write(card, "lambda: 1")
    for name in ("probes", "scores-probes"):
        with artefacts.artefact(results / name, {"seed": 0}) as temporary:
            (temporary / "table.csv").write_text("0")
    page = book_pages.Page("01_small", "01_small", {"models": ["a.b-1"]}, (card,))
    monkeypatch.setattr(book_pages, "book_pages", lambda run: [page])
    run_chapter.run_pages([page], RUN, 1)
    with artefacts.artefact(results / "scores-probes", {"seed": 1}) as temporary:
        (temporary / "table.csv").write_text("1")
    assert book_pages.stale_pages(RUN) == []
    notebook = outputs / "chapters" / "01_small.ipynb"
    for path, changed in ((card, "lambda: 2"), (results / "probes" / "files.json", "{"), (notebook, "{}")):
        kept = path.read_text()
        atomic_write(path, changed)
        assert book_pages.stale_pages(RUN) == [page]
        atomic_write(path, kept)


@pytest.mark.parametrize(("model", "left"), [("lingshu-7b-miniature", False), ("gemma-3-4b-miniature", True)])
def test_a_section_that_no_model_of_the_run_can_fill_is_left_out_with_a_sentence(model, left):
    section, links = "## Question first", "[below](#below-it), [more](#more),"
    whole = ["before", f"{section}\n\nText.", "of the section", "### Below it", "## More", "more"]
    whole += [f"## After\n\nSee {links} [the section](#question-first).", "after"]
    notebook = new_notebook(cells=[(new_markdown_cell if "#" in own else new_code_cell)(own) for own in whole])
    for place in (1, 4):
        notebook.cells[place].metadata["tags"] = ["needs-question-first"]
    book_pages.leave_out(notebook, [model])
    before, head, *_, last, after = kept = [cell.source for cell in notebook.cells]
    assert (before, after, len(kept)) == ("before", "after", 4 if left else 8)
    assert kept == whole or left
    assert head.startswith(f"{section}\n\nNo model of this run belongs to" if left else section)
    assert f"{'below, more,' if left else links} [the section](#question-first)." in last


def test_an_error_is_one_message_or_shown_with_its_cell_and_keeps_the_earlier_run(chapter, tmp_path):
    output = chapter("print(count)")
    run_chapter.run_chapter("01_small", {}, output)
    before = output.read_bytes()
    imported, folder = "from mlprobe_utils.common.errors import InputError\n", "the folder x is missing"
    for code, words in {
        f"{imported}raise InputError({folder!r})": folder,
        "raise PermissionError(13, 'no', '/x/y')": "/x/y: Permission denied: check",
    }.items():
        chapter(code)
        with pytest.raises(InputError, match=f"notebook 01_small: {words}"):
            run_chapter.run_chapter("01_small", {}, output)
    chapter("1 / 0")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        run_chapter.run_chapter("01_small", {}, output)
    assert output.read_bytes() == before
    with pytest.raises(InputError, match=r"unknown notebook '02_big'.*Known: 01_small"):
        run_chapter.run_chapter("02_big", {}, tmp_path / "out.ipynb")
