"""Assembles the executed notebooks and the pages of text in outputs/book, and builds the HTML book of them.

The finished book takes its place in book/_build/html only when the build had no error and no warning.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from mlprobe_utils.book import book_pages as of_notebooks
from mlprobe_utils.book.book_pages import book_pages, chapters, executed, model_page, stale_pages
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of, swap_in
from mlprobe_utils.pipeline import artefacts, laboratory_results
from mlprobe_utils.pipeline.code import code_hash
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.fault_card import laboratory_files

FRONT = artefacts.ROOT / "book"
HTML = Path(os.environ.get("MLPROBE_HTML", FRONT / "_build" / "html"))
INDEX, RECORD = "index.html", "book.made_from"  # of the built book; of outputs/, what it was built of
LIMITS, LABORATORY_MARK = Path("limits.md"), b"{{ laboratory }}"  # where a page says how often a diagnosis is correct
ABOUT = ["rerun", "teach", "glossary", "limits", "cite", "bibliography"]


def publish(run: Run) -> None:
    """Builds the HTML of a run whose pages are executed. Raises InputError as `assemble` and `build`."""
    build(assemble(run))
    atomic_write(artefacts.OUTPUTS / RECORD, made_from(run))


def assemble(run: Run) -> Path:
    """Puts the sources of a run's book together; returns their folder. Raises InputError if a page was not executed.

    A file that is the same as before is left alone, so that only changes are rebuilt.
    """
    wanted = {path.relative_to(FRONT): path.read_bytes() for path in front_matter()}
    wanted[LIMITS] = wanted[LIMITS].replace(LABORATORY_MARK, laboratory_results.read().words().encode())
    wanted[Path("_toc.yml")] = yaml.safe_dump(contents(run), sort_keys=False).encode()
    for page in book_pages(run):
        if not (notebook := executed(page.name)).is_file():
            raise InputError(f"{artefacts.relative(notebook)} is not there: run `make book`")
        wanted[Path(f"{page.name}.ipynb")] = notebook.read_bytes()
    sources = artefacts.OUTPUTS / "book"
    for path in sources.rglob("*"):
        if path.is_file() and path.relative_to(sources) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = sources / name
        if not path.is_file() or path.read_bytes() != content:
            atomic_write(path, content)
    return sources


def due(run: Run) -> list[str]:
    """The names of the pages of a run that have to be executed, and last INDEX if the HTML is not built of all."""
    if stale := [page.name for page in stale_pages(run)]:
        return [*stale, INDEX]
    record = artefacts.OUTPUTS / RECORD
    built = record.is_file() and (HTML / INDEX).is_file() and record.read_text() == made_from(run)
    return [] if built else [INDEX]


def made_from(run: Run) -> str:
    """A hash of all that the HTML is built of, but for what pages say of their execution."""
    notebooks = {page.name: of_notebooks.made_from(page, run) for page in book_pages(run)}
    texts = [(path.name, hash_of(path.read_bytes())) for path in [*front_matter(), *laboratory_files()]]
    return hash_of([notebooks, texts, code_hash(__name__, "mlprobe_utils.book.sphinx_extension")])


def front_matter() -> list[Path]:
    """The files of book/ that belong to the sources."""
    return sorted(path for path in FRONT.rglob("*") if path.is_file() and "_build" not in path.relative_to(FRONT).parts)


def contents(run: Run) -> dict:
    """The table of contents of a run's book."""
    parts = {"Chapters": chapters(), "Models": ["models", *map(model_page, run.models)], "About": ABOUT}
    listed = [{"caption": part, "chapters": [{"file": name} for name in names]} for part, names in parts.items()]
    return {"format": "jb-book", "root": "index", "parts": listed}


def build(sources: Path) -> None:
    """Builds the HTML and puts it in place. Raises InputError with Sphinx's messages if the build failed or warned."""
    output, log = artefacts.OUTPUTS / "book_build", artefacts.OUTPUTS / "logs" / "pages.log"
    command = [Path(sys.executable).with_name("jupyter-book"), "build", sources, "--path-output", output]
    done = subprocess.run([*command, "-W", "-n", "--keep-going"], capture_output=True, text=True)
    atomic_write(log, messages := done.stdout + done.stderr)
    if done.returncode:
        wrong = [line for line in messages.splitlines() if "WARNING" in line or "error" in line.lower()]
        raise InputError("\n".join(["the book has warnings or errors:", *wrong[:20], f"all of it: {log}"]))
    fresh = HTML.with_name(".html.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(output / "_build" / "html", fresh)
    swap_in(fresh, HTML)
