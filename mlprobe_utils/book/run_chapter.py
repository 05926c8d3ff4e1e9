"""Runs notebooks of the book: percent script -> notebook -> papermill -> executed notebook, whole or not at all.

`python -m mlprobe_utils chapter 03_probing out.ipynb --parameters '{"models": ["lingshu-7b-miniature"]}'`

Several outputs with as many parameters are pages of one notebook, such as the models': one kernel runs them in turn.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import papermill
from jupyter_client.manager import KernelManager
from papermill.exceptions import PapermillExecutionError

from mlprobe_utils.book.book_pages import NEEDS, script_of
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.progress import step
from mlprobe_utils.pipeline.step_names import NOTEBOOK

SELECTING = {"models": [], "datasets": [], "protocol": "miniature", "split": "paper", "data": ""}  # if not given


def run_chapter(name: str, parameters: dict, output: Path, kernel: KernelManager | None = None) -> None:
    """Executes a notebook with papermill and leaves it with its results at `output`.

    Sections that the run's models cannot fill are left out (`left_out`).

    Args:
        kernel: a running one, without variables, to execute it in; None: one of its own.

    Raises:
        InputError: no such notebook, or what the notebook itself found wrong with its input.
        PapermillExecutionError: any other error in a cell.
    """
    script = script_of(name)
    output.parent.mkdir(parents=True, exist_ok=True)
    source, executed = (output.with_name(f".{output.stem}.{kind}.ipynb") for kind in ("source", "executed"))
    notebook = jupytext.read(script)
    if any(tag.startswith(NEEDS) for cell in notebook.cells for tag in cell.metadata.get("tags", [])):
        # a second of imports, which a notebook without such a section is spared
        from mlprobe_utils.book.left_out import leave_out, unmet_needs
        from mlprobe_utils.pipeline.configuration import configure

        selected = {key: parameters.get(key, value) for key, value in SELECTING.items()}
        leave_out(notebook, unmet_needs(configure(**selected)))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(notebook, source)
    try:
        with contextlib.nullcontext(kernel) if kernel else running_kernel(script.parent) as own:
            papermill.execute_notebook(
                str(source), str(executed), parameters, cwd=str(script.parent), progress_bar=False, km=own
            )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(f"notebook {name}: {error.evalue}") from error
        raise
    finally:
        source.unlink()
    make_publishable(executed)
    os.replace(executed, output)


def run_pages(name: str, parameters: list[dict], outputs: list[Path]) -> None:
    """Executes a notebook once for each of some parameters, in one kernel. Raises as `run_chapter`."""
    with running_kernel(script_of(name).parent) as kernel:
        for own, output in zip(parameters, outputs, strict=True):
            with step(output.stem, NOTEBOOK):
                run_chapter(name, own, output, kernel)
            clear(kernel)


@contextlib.contextmanager
def running_kernel(folder: Path) -> Iterator[KernelManager]:
    """A kernel that runs in a folder, and that papermill talks to through files instead of TCP ports.

    Ports are chosen before they are used: two chapters that start at the same moment can choose the same one, and the
    later kernel dies. The folder of the files is this kernel's own, and a short one: a socket's path has to fit into a
    hundred bytes.
    """
    with tempfile.TemporaryDirectory(prefix="kernel") as place:
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{place}/socket")
        kernel.start_kernel(cwd=str(folder), extra_arguments=["--log-level=CRITICAL"])
        try:
            yield kernel
        finally:
            kernel.shutdown_kernel(now=True)


def clear(kernel: KernelManager) -> None:
    """Removes what a notebook has defined in a kernel; what it has imported stays imported."""
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready()
        client.execute_interactive("%reset -f", silent=True)
    finally:
        client.stop_channels()


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
