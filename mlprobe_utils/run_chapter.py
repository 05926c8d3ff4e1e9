"""Runs one notebook of the book: percent script -> notebook -> papermill -> executed notebook, whole or not at all.

`python -m mlprobe_utils.run_chapter 03_probing out.ipynb --parameters '{"models": ["lingshu-7b-miniature"]}'`
"""

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from mlprobe_utils.book_pages import script_of
from mlprobe_utils.errors import InputError, run_command
from mlprobe_utils.progress import step


def run_chapter(name: str, parameters: dict, output: Path) -> None:
    """Executes a notebook with papermill and leaves it with its results at `output`.

    Raises:
        InputError: no such notebook, or what the notebook itself found wrong with its input.
        PapermillExecutionError: any other error in a cell.
    """
    script = script_of(name)
    output.parent.mkdir(parents=True, exist_ok=True)
    source, executed = (output.with_name(f".{output.stem}.{kind}.ipynb") for kind in ("source", "executed"))
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(notebook, source)
    try:
        with kernel_sockets() as config:
            papermill.execute_notebook(
                str(source),
                str(executed),
                parameters,
                cwd=str(script.parent),
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel
                config=config,
            )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(f"notebook {name}: {error.evalue}") from error
        raise
    finally:
        source.unlink()
    make_publishable(executed)
    os.replace(executed, output)


@contextlib.contextmanager
def kernel_sockets() -> Iterator[Config]:
    """A configuration with which papermill talks to its kernel through files instead of TCP ports.

    Ports are chosen before they are used: two chapters that start at the same moment can choose the same one, and the
    later kernel dies. The folder is this run's own, and a short one: a socket's path has to fit into a hundred bytes.
    """
    with tempfile.TemporaryDirectory(prefix="kernel") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/socket"})


def make_publishable(path: Path) -> None:
    """Tags the cell that papermill adds, so that a page shows the parameters once, and drops its note of where it ran.

    The notebook is published beside the page: it names no folder outside of the project by where it lies on a disk.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill")
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-cell")
    nbformat.write(notebook, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.run_chapter", description=__doc__)
    parser.add_argument("notebook", help="its name in notebooks/, without suffix")
    parser.add_argument("output", type=Path)
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON object")
    arguments = parser.parse_args()
    with step(arguments.output.stem, "notebook"):
        run_chapter(arguments.notebook, arguments.parameters, arguments.output)


if __name__ == "__main__":
    run_command(main)
