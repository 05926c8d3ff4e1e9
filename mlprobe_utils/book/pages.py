"""Assembles the executed notebooks and the pages of text, and builds the HTML book.

The page list depends on the run, so that the book's sources are put together in outputs/book; the finished book takes
its place in book/_build/html only when the build had no error and no warning.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from mlprobe_utils.book.book_pages import book_pages, chapters, executed, model_page
from mlprobe_utils.book.citation import citations
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, swap_in
from mlprobe_utils.pipeline import artefacts, laboratory_results
from mlprobe_utils.pipeline.configuration import Run

FRONT = artefacts.ROOT / "book"
HTML = Path(os.environ.get("MLPROBE_HTML", FRONT / "_build" / "html"))
CITATIONS_MARK = "{{ citations }}"  # where the page on citing holds what CITATION.cff says
LABORATORY_MARK = "{{ laboratory }}"  # where the page on limits says how often a diagnosis is right
ABOUT = ["rerun", "teach", "glossary", "limits", "cite", "bibliography"]


def assemble(run: Run) -> Path:
    """Puts the sources of a run's book together; returns their folder. Raises InputError if a page was not executed."""
    sources = artefacts.OUTPUTS / "book"
    wanted = {path.relative_to(FRONT): path.read_bytes() for path in front_matter()}
    for page in book_pages(run):
        if not (notebook := executed(page.name)).is_file():
            raise InputError(f"{artefacts.relative(notebook)} is not there: run `make book`")
        wanted[Path(f"{page.name}.ipynb")] = notebook.read_bytes()
    wanted[Path("_toc.yml")] = yaml.safe_dump(contents(run), sort_keys=False).encode()
    wanted[Path("cite.md")] = wanted[Path("cite.md")].replace(CITATIONS_MARK.encode(), citations().encode())
    rates = laboratory_results.read().words().encode()
    wanted[Path("limits.md")] = wanted[Path("limits.md")].replace(LABORATORY_MARK.encode(), rates)
    write_changed(sources, wanted)
    return sources


def front_matter() -> list[Path]:
    """The files of book/ that belong to the sources."""
    files = (path for path in FRONT.rglob("*") if path.is_file() and "_build" not in path.relative_to(FRONT).parts)
    return sorted(files)


def contents(run: Run) -> dict:
    """The table of contents of a run's book."""
    parts = {
        "Chapters": chapters(),
        "Models": ["models", *map(model_page, run.models)],
        "About": ABOUT,
    }
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": caption, "chapters": [{"file": name} for name in names]} for caption, names in parts.items()
        ],
    }


def write_changed(folder: Path, wanted: dict[Path, bytes]) -> None:
    """Makes `folder` hold exactly these files; one that is the same is left alone, so that only changes are rebuilt."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            atomic_write(path, content)


def build(sources: Path) -> None:
    """Builds the HTML and puts it in place.

    Raises:
        InputError: the build failed or warned; the message ends with what Sphinx said.
    """
    output = artefacts.OUTPUTS / "book_build"
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [str(jupyter_book), "build", str(sources), "--path-output", str(output)]
    done = subprocess.run([*command, "-W", "-n", "--keep-going"], capture_output=True, text=True)
    log = artefacts.OUTPUTS / "logs" / "pages.log"
    atomic_write(log, done.stdout + done.stderr)
    if done.returncode:
        lines = [
            line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "error" in line.lower()
        ]
        raise InputError("\n".join(["the book has warnings or errors:", *lines[:20], f"all of it: {log}"]))
    fresh = HTML.with_name(".html.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(output / "_build" / "html", fresh)
    swap_in(fresh, HTML)
