"""Keeps the book's scripts and the notebooks that people work in the same. A notebook keeps in its metadata a hash of
the cells (type, source and tags) that both had when they were last the same: it tells which of the two was changed
since. Outputs, and what tools write about cells, stay in the notebook; JupyterLab's extension does so, too."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from jupytext.config import load_jupytext_config
from nbformat import NotebookNode

from mlprobe_utils.book import book_pages
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of
from mlprobe_utils.pipeline.artefacts import relative

PERCENT = "py:percent"
SYNCED = "synced"  # the hash, in the metadata of a notebook
OF_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}  # tags of the cells that it adds


def sync_notebooks(keep: Collection[Path] = ()) -> None:
    """Makes each script and its notebook the same: the one that was changed, or is named in `keep`, updates the other.
    Raises InputError, after the others are synced, where both may be changed or a notebook cannot be read."""
    problems = []
    for name in book_pages.notebooks():
        try:
            _sync(book_pages.script_of(name), {Path(path).resolve() for path in keep})
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))


def _sync(script: Path, kept: Collection[Path]) -> None:
    path, settings, before = script.with_suffix(".ipynb"), load_jupytext_config(str(script)), None
    notebook = source = jupytext.reads(script.read_text("utf-8"), PERCENT, config=settings)
    if path.exists():
        try:
            nbformat.validate(notebook := nbformat.reads(path.read_text("utf-8"), 4))
        except (ValueError, AttributeError, nbformat.ValidationError) as error:
            mend = "delete it, and it is recreated from its script"
            raise InputError(f"{relative(path)} is not a notebook ({error}): {mend}") from error
        before = jupytext.writes(notebook, "ipynb")
        notebook.cells = [cell for cell in notebook.cells if not OF_PAPERMILL & {*cell.metadata.get("tags", [])}]
        as_script = jupytext.writes(NotebookNode(notebook | {"metadata": source.metadata}), PERCENT, config=settings)
        edited = jupytext.reads(as_script, PERCENT, config=settings)
        held = {script: _cells_hash(source), path: _cells_hash(edited)}
        if held[script] != held[path]:
            changed = [file for file, cells in held.items() if cells != notebook.metadata.get(SYNCED)]
            newest, *other = [file for file in held if file.resolve() in kept] or changed
            if other:
                times = [f"{relative(file)} ({datetime.fromtimestamp(file.stat().st_mtime):%F %T})" for file in held]
                ways = [f"`python -m mlprobe_utils notebooks --keep {relative(file)}`" for file in held]
                found = f"{' and '.join(times)} differ, and both may contain changes"
                raise InputError(f"{found}: keep one, and lose the other's, with {' or '.join(ways)}")
            if newest == path:
                source = edited
                atomic_write(script, as_script)
            print(f"{relative(newest)} updates {script.name if newest == path else path.name}")
        notebook = combine_inputs_with_outputs(source, notebook, PERCENT)
    notebook.metadata[SYNCED] = _cells_hash(source)
    if (after := jupytext.writes(notebook, "ipynb")) != before:
        atomic_write(path, after + "\n")


def _cells_hash(notebook: NotebookNode) -> str:
    return hash_of([[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells])
