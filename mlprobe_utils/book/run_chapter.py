"""Runs notebooks of the book: percent script -> notebook -> papermill -> executed notebook, whole or not at all."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import papermill
from jupyter_client.manager import KernelManager
from papermill.exceptions import PapermillExecutionError

from mlprobe_utils.book import book_pages
from mlprobe_utils.book.book_pages import NEEDS, Page, executed, leave_out, page_made_from, record_of, script_of
from mlprobe_utils.common.errors import InputError, of_file_system
from mlprobe_utils.common.files import atomic_write, inventory, write_record
from mlprobe_utils.common.progress import step
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_model_card
from mlprobe_utils.pipeline.configuration import Run, models_of
from mlprobe_utils.pipeline.stages import NOTEBOOK

# of each of several kernels: Snakemake tells the processes of a job to use as many threads as the job has cores
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# jsonschema would make a grammar with it at import, most of a second in every kernel, for addresses in no schema here
WITHOUT_GRAMMAR = "__import__('sys').modules.setdefault('rfc3987_syntax')"

LONGEST_PLACE = 80  # bytes of a folder's path


def run_chapter(name: str, parameters: dict, output: Path, kernel: KernelManager | None = None) -> None:
    """Executes a notebook, without sections that its models cannot fill, to `output`. `kernel` is a running one without
    variables (None: one of its own). InputError for what the notebook found wrong with its input."""
    script = script_of(name)
    notebook = jupytext.read(script)
    if any(tag.startswith(NEEDS) for cell in notebook.cells for tag in cell.metadata.get("tags", [])):
        leave_out(notebook, models_of(parameters.get("models", [])))
    if name == book_pages.OF_A_MODEL:  # its own heading stands for any model
        title = load_model_card(*parameters["models"]).name
        notebook.cells[0].source = re.sub("^# .*", f"# {title}", notebook.cells[0].source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    try:
        with contextlib.nullcontext(kernel) if kernel else running_kernel(script.parent) as own:
            # no `cwd`: the kernel has its own, and papermill would change that of all threads of this process
            notebook = papermill.execute_notebook(notebook, None, parameters, progress_bar=False, km=own)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(f"notebook {name}: {error.evalue}") from error
        if mendable := of_file_system(Exception(error.evalue), artefacts.OUTPUTS):
            raise InputError(f"notebook {name}: {mendable}") from error
        raise
    del notebook.metadata["papermill"]  # the whole notebook once more
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-cell")  # a page shows its parameters once
    atomic_write(output, nbformat.writes(notebook))


def run_pages(pages: list[Page], run: Run, jobs: int) -> None:
    """Executes pages of a run's book in `jobs` kernels; the first one's error is raised once the others are done."""
    waiting, failed = iter(pages), []

    def work() -> None:
        with running_kernel(book_pages.NOTEBOOKS, MLPROBE_PREPARED="1", **ONE_THREAD) as kernel:
            for page in waiting:  # a list's iterator gives each page to one thread
                try:
                    with step(page.name, NOTEBOOK):
                        record, output = page_made_from(page, run), executed(page.name)
                        run_chapter(page.notebook, page.parameters, output, kernel)
                        whole = {"made_from": record, "files": inventory(output.parent, output)}
                        write_record(record_of(page.name), whole)
                except Exception as error:  # of a cell, or of the page's input: the other pages are not concerned
                    failed.append(error)
                client = kernel.blocking_client()
                client.start_channels()
                client.wait_for_ready()
                client.execute_interactive("%reset -f", silent=True)  # of variables; imports stay
                client.stop_channels()

    with ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(work) for _ in range(min(jobs, len(pages)))]:
            worker.result()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def running_kernel(folder: Path, **environment: str) -> Iterator[KernelManager]:
    """A kernel that runs in a folder, with further variables in its environment, reached through files: two chapters
    that start at the same moment can choose the same TCP port, and the later kernel dies."""
    with tempfile.TemporaryDirectory(prefix="kernel", dir=place_of_sockets()) as place:
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{place}/socket")
        options = ["--log-level=CRITICAL", f"--IPKernelApp.exec_lines={WITHOUT_GRAMMAR}"]
        kernel.start_kernel(cwd=str(folder), env=os.environ | environment, extra_arguments=options)
        try:
            yield kernel
        finally:
            kernel.shutdown_kernel(now=True)


def place_of_sockets() -> str:
    """The folder for temporary files, or another one where its path is too long: that of a socket in a folder of its
    own has to fit into 107 bytes. Raises InputError where there is none."""
    found = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    for folder in found:
        if len(os.fsencode(folder)) <= LONGEST_PLACE and os.access(folder, os.W_OK | os.X_OK):
            return folder
    wanted = f"can be written and has a path of at most {LONGEST_PLACE} bytes, which the sockets of kernels need"
    raise InputError(f"none of {', '.join(found)} {wanted}: set TMPDIR to a folder that has")
