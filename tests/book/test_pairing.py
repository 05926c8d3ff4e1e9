"""Scripts and the notebooks that people edit: what was changed, and not when, says which updates the other."""

import os
import re
import shutil

import nbformat
import pytest
from jupytext import TextFileContentsManager
from nbformat.v4 import new_code_cell, new_output

from mlprobe_utils.book import book_pages
from mlprobe_utils.book.pairing import sync_notebooks
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(book_pages, "NOTEBOOKS", tmp_path)
    shutil.copy(ROOT / "notebooks/jupytext.toml", tmp_path / "jupytext.toml")
    return tmp_path


@pytest.fixture
def pair(folder):
    """A script and its notebook, with what executing it adds: a result, papermill's cell and metadata, our own."""
    script = shutil.copy(ROOT / "notebooks/03_probing.py", folder / "03_probing.py")
    sync_notebooks()
    content = nbformat.read(notebook := script.with_suffix(".ipynb"), 4)
    content.metadata |= {"papermill": {"parameters": {"models": ["x"]}}, "made_from": "a hash"}
    content.cells.insert(2, new_code_cell("models = ['x']", metadata={"tags": ["injected-parameters"]}))
    content.cells[3].outputs = [new_output("stream", text="a result")]
    for cell in content.cells:
        cell.metadata |= {"papermill": {"status": "completed"}}
    nbformat.write(content, notebook)
    return script, notebook


def edit(path, title):
    path.write_text(path.read_text().replace("# 3. Probing", f"# 3. {title}"))


def titles(pair):
    return [re.search(r"# 3\. (\w+)", path.read_text())[1] for path in pair]


def test_the_books_scripts_are_not_changed_by_a_sync_and_a_second_one_changes_nothing(folder):
    own = {path.name: path.read_text() for path in (ROOT / "notebooks").glob("*.py")}
    for name, text in own.items():
        (folder / name).write_text(text)
    sync_notebooks()
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name: made[name] for name in own} == own
    assert len(made) == 2 * len(own) + 1
    sync_notebooks()
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


@pytest.mark.parametrize("newer", [0, 1])
@pytest.mark.parametrize("edited", [None, 0, 1])
def test_the_file_that_was_edited_updates_the_other_whichever_is_newer(edited, newer, pair):
    title, before = "Probing" if edited is None else "Edited", pair[0].read_text()
    if edited is not None:
        edit(pair[edited], title)
    os.utime(pair[newer], (2e9, 2e9))
    sync_notebooks()
    assert titles(pair) == [title, title]
    assert pair[0].read_text() == before.replace("# 3. Probing", f"# 3. {title}")
    assert "a result" in pair[1].read_text()
    assert "injected-parameters" not in pair[1].read_text()


@pytest.mark.parametrize("kept", [0, 1])
def test_two_edits_are_refused_with_both_times_once_others_are_synced_and_one_is_chosen(kept, pair):
    other = shutil.copy(ROOT / "notebooks/models.py", pair[0].with_name("models.py"))
    edit(pair[0], "Script")
    edit(pair[1], "Notebook")
    os.utime(pair[0], (1e9, 1e9))
    before = [path.read_bytes() for path in pair]
    both = r"03_probing\.py \(2001-09-09 .*03_probing\.ipynb \(20.* may contain"
    with pytest.raises(InputError, match=both) as refused:
        sync_notebooks()
    assert [path.read_bytes() for path in pair] == before
    assert other.with_suffix(".ipynb").exists()
    sync_notebooks([re.findall(r"--keep (\S+?)`", str(refused.value))[kept]])
    assert titles(pair) == [["Script", "Notebook"][kept]] * 2


def test_without_a_record_a_notebook_that_differs_is_refused_and_one_that_does_not_gets_it(pair):
    sync_notebooks()
    synced = pair[1].read_text()
    pair[1].write_text(bare := re.sub(r',\s*"synced": "\w+"', "", synced))
    sync_notebooks()
    assert pair[1].read_text() == synced != bare
    pair[1].write_text(bare)
    edit(pair[1], "Notebook")
    with pytest.raises(InputError, match="--keep"):
        sync_notebooks()
    assert titles(pair) == ["Probing", "Notebook"]


def test_what_jupyterlab_saves_leaves_tools_metadata_out_of_the_script(pair):
    before = pair[0].read_text()
    sync_notebooks()
    lab = TextFileContentsManager(root_dir=str(pair[0].parent))
    opened = lab.get("03_probing.ipynb")
    assert all("papermill" in cell.metadata for cell in opened["content"].cells)
    opened["content"].cells[0].source = opened["content"].cells[0].source.replace("# 3. Probing", "# 3. Saved")
    lab.save(opened, opened["path"])
    assert pair[0].read_text() == before.replace("# 3. Probing", "# 3. Saved")
    sync_notebooks()
    assert titles(pair) == ["Saved", "Saved"]


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"nbformat": 4, "nbformat_minor": 5, "cells": [{}]}'])
def test_a_damaged_notebook_is_refused(damaged, pair):
    pair[1].write_text(damaged)
    with pytest.raises(InputError, match=r"03_probing\.ipynb is not a notebook .*: delete it"):
        sync_notebooks()
