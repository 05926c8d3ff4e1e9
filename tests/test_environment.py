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
from made_releases import image_bytes, write
from safetensors.torch import save_file
from small_book import DATASET, MODEL, ROOT, SmallBook

import mlprobe_utils as mp
from mlprobe_utils import __main__ as command_line
from mlprobe_utils.book import make_book, run_chapter
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts

NOWHERE = "/dev/null/there"  # below a file


@pytest.mark.slow
def test_a_book_is_built_in_odd_folders_without_git_home_docstrings_and_short_paths(tmp_path):
    tools, temporary = tmp_path / "bin", tmp_path / ("t" * max(1, 98 - len(str(tmp_path))))
    tools.mkdir(), temporary.mkdir()
    for name in ("bash", "touch"):  # all that Snakemake runs
        (tools / name).symlink_to(shutil.which(name))
    more = {"HOME": NOWHERE, "PATH": str(tools), "TMPDIR": str(temporary), "PYTHONOPTIMIZE": "2", "MLPROBE_HTML": ""}
    before = os.umask(0o002)
    book = SmallBook(tmp_path / 'Müller\'s "book" {1}', more=more)
    code, said = book.make()
    os.umask(before)
    assert code == 0, said
    assert not re.search("Traceback|Warning|[Ee]rror", said), said
    pages = "".join(path.read_text() for path in (book.outputs / "html").glob("*.html"))
    assert ("git is not installed" in pages, "Warning" in pages) == (True, False)
    assert not [*temporary.glob("*/*")]  # as a kernel without a home leaves


def test_outputs_elsewhere_hold_their_html_and_a_relative_path_is_the_same_for_all_processes(tmp_path):
    code = "from mlprobe_utils import __main__; __main__.settle(); from mlprobe_utils.book import make_book as made"
    command = [sys.executable, "-c", f"{code}; print(made.HTML, made.artefacts.OUTPUTS)"]
    environment = os.environ | {"MLPROBE_OUTPUTS": "mine", "MLPROBE_HTML": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "mine" / "html"), str(tmp_path / "mine")]
    assert make_book.HTML == ROOT / "book" / "_build" / "html"


def test_make_passes_a_path_on_as_it_is(tmp_path):
    (tmp_path / "python").symlink_to(shutil.which("echo"))
    command = ["make", "-o", ".venv/installed", "book", f"BIN={tmp_path}", 'DATA=Müller\'s "new" `book` & more']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ' --data Müller\'s "new" `book` & more --jobs=' in done.stdout


def test_caches_leave_a_home_that_cannot_be_written_and_what_it_holds_is_still_found(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", environment := {"HOME": str(tmp_path)})
    command_line.settle()
    assert environment == {"HOME": str(tmp_path)}
    (known := tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    command_line.settle()
    moved = dict.fromkeys(("XDG_CACHE_HOME", "IPYTHONDIR"), str(outputs / ".cache"))
    assert environment == {"HOME": str(tmp_path), "HF_HOME": str(known)} | moved


def test_what_snakemake_has_against_the_graph_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", NOWHERE)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    said = make_book.objection([*command, "--cores", "1", "--config", "jobs=[]"])
    assert said.startswith("error: Snakemake cannot plan the graph: NotADirectoryError: ")


def test_sockets_lie_in_another_folder_where_that_for_temporary_files_has_too_long_a_path(monkeypatch):
    for folder, used in {"/var/tmp": "/var/tmp", "/" + "t" * 98: "/tmp"}.items():
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert run_chapter.place_of_sockets() == used
    monkeypatch.setattr(os, "access", lambda path, mode: "ttt" in path)
    with pytest.raises(InputError, match="at most 80 bytes, which the sockets of kernels need: set TMPDIR"):
        run_chapter.place_of_sockets()


def test_names_that_are_not_utf_8_are_counted_and_the_first_is_named(tmp_path, error_of):
    files = [write(tmp_path / label / os.fsdecode(b"f\xfcr.png"), image_bytes()) for label in "ab"]
    words = f"files whose names are not UTF-8: 2, the first {tmp_path}/a/f\\xfcr.png: rename them, for example with"
    for load, given in ((mp.image_folder, tmp_path), (mp.image_list, files)):
        with pytest.raises(InputError, match=re.escape(words)):
            load(given)
    assert error_of("card", tmp_path).startswith(words)


def test_on_a_full_disk_a_command_ends_with_one_line_whichever_library_writes(outputs, tmp_path, error_of, monkeypatch):
    before, tensor = resource.getrlimit(resource.RLIMIT_FSIZE), torch.zeros(9000)
    writers = (partial(save_file, {"a": tensor}), partial(torch.save, tensor), lambda file: np.save(file, tensor))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        words = error_of("manifest", DATASET, "--protocol", "miniature")
        assert words.startswith(f"{outputs}/phantoms/{DATASET}: File too large")
        for writer in writers:
            monkeypatch.setitem(command_line.COMMANDS, "look", ("", (), partial(writer, tmp_path / "a")))
            assert re.match(f"{outputs}: .*: free some space .* continues$", error_of("look"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_outputs_that_cannot_be_written_are_an_error_at_the_start(tmp_path, monkeypatch, error_of):
    (link := tmp_path / "outputs").symlink_to("/unmounted")
    for folder, words in {link: " links to /unmounted", Path(NOWHERE): ": Not a directory: check the path"}.items():
        monkeypatch.setattr(artefacts, "OUTPUTS", folder)
        assert error_of("book", "--models", MODEL).startswith(f"{folder}{words}")
