"""Whatever the machine: odd paths, no git, no home folder, a full disk. It works, or one line names file and mend."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_book import DATASET, MODEL, ROOT, SmallBook

import mlprobe_utils as mp
from mlprobe_utils import __main__ as command_line
from mlprobe_utils.book import make_book, run_chapter
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts

NOWHERE = "/dev/null/there"  # below a file
PIXELS = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)


@pytest.fixture
def without_git(tmp_path) -> str:
    """A PATH of nothing but what Snakemake runs."""
    (folder := tmp_path / "bin").mkdir()
    for name in ("bash", "touch"):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def error_of(capsys, *command) -> str:
    with pytest.raises(SystemExit) as end:
        command_line.main([*map(str, command)])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    return line.removeprefix("error: ")


@pytest.mark.slow
def test_a_book_is_built_in_odd_folders_without_git_home_docstrings_and_short_paths(tmp_path, without_git):
    (temporary := tmp_path / ("t" * max(1, 98 - len(str(tmp_path))))).mkdir()
    more = {"HOME": NOWHERE, "PATH": without_git, "TMPDIR": str(temporary), "PYTHONOPTIMIZE": "2", "MLPROBE_HTML": ""}
    before = os.umask(0o002)
    book = SmallBook(tmp_path / 'Müller\'s "book" {1}', more=more)
    code, said = book.make()
    os.umask(before)
    assert code == 0, said
    assert not re.search("Traceback|Warning|[Ee]rror", said), said
    pages = {path.stem: path.read_text() for path in (book.outputs / "html").glob("*.html")}
    assert "git is not installed" in pages["03_probing"]
    assert not [name for name, text in pages.items() if "Warning" in text]
    assert not [*temporary.glob("*/*")]  # as a kernel without a home leaves


def test_without_git_the_commit_is_not_known(without_git, monkeypatch):
    monkeypatch.setenv("PATH", without_git)
    assert artefacts.commit.__wrapped__() == "not known: git is not installed"


def test_outputs_elsewhere_hold_their_html_and_a_relative_path_is_the_same_for_all_processes(tmp_path):
    code = "from mlprobe_utils import __main__ as m; m.settle(); from mlprobe_utils.book import make_book as b"
    command = [sys.executable, "-c", f"{code}; print(b.HTML, b.artefacts.OUTPUTS)"]
    environment = os.environ | {"MLPROBE_OUTPUTS": "mine", "MLPROBE_HTML": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "mine" / "html"), str(tmp_path / "mine")]
    assert make_book.HTML == ROOT / "book" / "_build" / "html"


def test_make_passes_a_path_on_as_it_is(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"')
    (tmp_path / "python").chmod(0o755)
    command = ["make", "-o", ".venv/installed", "book", f"BIN={tmp_path}", 'DATA=Müller\'s "new" `book` & more']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert '--data\nMüller\'s "new" `book` & more\n' in done.stdout


def test_caches_leave_a_home_that_cannot_be_written_and_what_it_holds_is_still_found(outputs, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "IPYTHONDIR", "HF_HOME"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    command_line.settle()
    assert not {"XDG_CACHE_HOME", "IPYTHONDIR", "HF_HOME"} & {*os.environ}
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    command_line.settle()
    assert os.environ["XDG_CACHE_HOME"] == os.environ["IPYTHONDIR"] == str(outputs / ".cache")
    assert os.environ["HF_HOME"] == str(tmp_path / ".cache" / "huggingface")


def test_what_snakemake_has_against_the_graph_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", NOWHERE)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    said = f"error: Snakemake cannot plan the graph: NotADirectoryError: [Errno 20] Not a directory: '{NOWHERE}'\n"
    assert said == make_book.objection([*command, "--cores", "1", "--config", "jobs=[]"])


def test_sockets_lie_in_another_folder_where_that_for_temporary_files_has_too_long_a_path(monkeypatch):
    assert run_chapter.place_of_sockets() == tempfile.gettempdir()
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 98)
    assert run_chapter.place_of_sockets() == "/tmp"
    monkeypatch.setattr(os, "access", lambda path, mode: "ttt" in path)
    with pytest.raises(InputError, match="at most 80 bytes, which the sockets of kernels need: set TMPDIR"):
        run_chapter.place_of_sockets()


def test_names_that_are_not_utf_8_are_counted_and_the_first_is_named(tmp_path, capsys):
    files = [tmp_path / label / os.fsdecode(b"f\xfcr.png") for label in "ab"]
    for file in files:
        file.parent.mkdir()
        Image.fromarray(PIXELS).save(file)
    words = f"files whose names are not UTF-8: 2, the first {tmp_path}/a/f\\xfcr.png: rename them, for example with"
    for load, given in ((mp.image_folder, tmp_path), (mp.image_list, files)):
        with pytest.raises(InputError, match=re.escape(words)):
            load(given)
    assert error_of(capsys, "card", tmp_path).startswith(words)


def test_on_a_full_disk_a_command_ends_with_one_line_whichever_library_writes(outputs, tmp_path, capsys, monkeypatch):
    before, tensors = resource.getrlimit(resource.RLIMIT_FSIZE), torch.tensor(PIXELS)
    writers = [partial(save_file, {"a": tensors}), partial(torch.save, tensors), lambda place: np.save(place, PIXELS)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        assert error_of(capsys, "manifest", DATASET, "--protocol", "miniature").startswith(f"{outputs}: File too large")
        for write in (Image.fromarray(PIXELS).save, *writers):
            monkeypatch.setitem(command_line.COMMANDS, "look", ("", (), lambda write=write: write(tmp_path / "a.png")))
            assert re.match(f"{outputs}: .*: make room .* goes on$", error_of(capsys, "look"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_outputs_that_cannot_be_written_are_an_error_at_the_start(tmp_path, monkeypatch, capsys):
    (link := tmp_path / "outputs").symlink_to("/unmounted")
    for folder, words in {link: " links to /unmounted", Path(NOWHERE): ": Not a directory: correct the path"}.items():
        monkeypatch.setattr(artefacts, "OUTPUTS", folder)
        assert error_of(capsys, "book", "--models", MODEL).startswith(f"{folder}{words}")
