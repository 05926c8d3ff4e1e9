"""What a chapter makes for itself when it runs alone, and how it says what it could not make."""

import os
import shutil
import subprocess
import sys

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, prepare
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.discussion_card import load_discussion
from mlprobe_utils.pipeline.jobs import jobs_of


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MLPROBE_PREPARED", raising=False)
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)


def run(dataset: str, data: str = "") -> Run:
    return Run((), (dataset,), "miniature", "paper", data)


def test_a_phantom_is_drawn_and_its_manifest_made(tmp_path):
    prepare.prepare(run("busi-phantom"))
    assert (tmp_path / "phantoms" / "busi-phantom" / "Dataset_BUSI_with_GT").is_dir()
    assert (tmp_path / "miniature" / "busi-phantom" / "data" / "manifest.parquet").is_file()


def test_what_a_command_says_reaches_the_chapter(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError) as error:
        prepare.prepare(run("covid19-ct", data=str(tmp_path / "nothing")))
    assert "Images-processed" in str(error.value)
    assert "data/README.md" in str(error.value)
    assert "mlprobe_utils manifest covid19-ct" in str(error.value)


def test_nothing_runs_where_make_book_has_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPROBE_PREPARED", "1")
    prepare.prepare(run("busi-phantom"))
    assert not (tmp_path / "phantoms").exists()


def test_a_discussion_is_made_for_the_models_that_take_part():
    models = ("lingshu-7b-miniature", "gemma-3-4b-miniature")
    place = Run(models, ("busi-phantom", "covid19-ct-phantom"), "miniature", "clean", "")
    jobs = jobs_of(place, [load_discussion("question-first")])
    options = ("--datasets", *place.datasets, "--protocol", "miniature", "--split", "clean")
    commands = [("model", models[0], *options, "--discussions", "question-first"), ("model", models[1], *options)]
    assert [job.command for job in jobs if job.kind == "model"] == commands
    assert {job.name for job in jobs if job.kind == "manifest"} == {*place.datasets}


def test_when_everything_is_current_no_process_is_started(monkeypatch):
    prepare.prepare(run("busi-phantom"))
    monkeypatch.setattr(prepare.subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    prepare.prepare(run("busi-phantom"))


def test_models_are_looked_at_before_anything_runs_but_for_those_made_here(tmp_path):
    """Through the command: the error of a card's source is the one message."""
    prepare.look_at(["lingshu-7b-miniature"])
    cards = shutil.copytree(artefacts.ROOT / "data", tmp_path / "cards")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architectures": ["Strange"]}')
    (cards / "models" / "mine.yml").write_text(f"name: Mine\nsource: {tmp_path / 'mine'}\n")
    environment = os.environ | {"MLPROBE_CARDS": str(cards), "MLPROBE_OUTPUTS": str(tmp_path / "outputs")}
    command = [sys.executable, "-m", "mlprobe_utils", "look", "lingshu-7b-miniature", "mine"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "lingshu-7b-miniature is not there" in done.stderr
    done = subprocess.run([*command[:-2], "mine"], env=environment, capture_output=True, text=True)
    assert "model card 'mine': it has no vision part" in done.stderr
