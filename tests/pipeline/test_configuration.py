"""What `make book` runs over is checked before anything starts; what a chapter makes for itself when it runs alone."""

import os

import pytest
from filelock import FileLock

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, jobs
from mlprobe_utils.pipeline.configuration import Run, configure, lineages, load_book


def test_data_sets_follow_the_data_and_models_are_those_of_the_books_card_or_all(tmp_path):
    book, run = load_book(), configure([], [], "miniature", "paper", "")
    assert all(slug.endswith("-phantom") for slug in run.datasets)
    assert run.models == tuple(book.models)
    assert book.planted_faults.model in run.models
    assert configure(["all"], [], "miniature", "paper", "").models == tuple(book.all)
    real = configure([], [], "miniature", "paper", str(tmp_path))
    assert (real.datasets, real.data) == (("busi", "chest-xray", "covid19-ct"), str(tmp_path))


def test_a_relative_folder_starts_at_the_projects_root_wherever_it_is_read(tmp_path, monkeypatch):
    """As a chapter reads it, whose directory is notebooks/; and no page has to name a home directory."""
    monkeypatch.chdir(tmp_path)
    for data, folder in (("data", artefacts.ROOT / "data"), (str(tmp_path), tmp_path)):
        run = configure([], ["busi"], "miniature", "paper", data)
        assert (run.data, run.parameters()["data"]) == (str(folder), os.path.relpath(folder, artefacts.ROOT))
        assert configure(**run.parameters()) == run


def test_a_base_is_made_before_what_is_adapted_from_it():
    models = ("lingshu-7b-miniature", "medvlm-r1-miniature", "shizhengpt-7b-vl-miniature", "lingshu-7b")
    assert lineages(models) == {
        "qwen2.5-vl-7b-miniature": ["qwen2.5-vl-7b-miniature", "lingshu-7b-miniature", "shizhengpt-7b-vl-miniature"],
        "qwen2-vl-2b-miniature": ["qwen2-vl-2b-miniature", "medvlm-r1-miniature"],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(models=["al"]), "unknown model 'al': did you mean 'all'"),
        (dict(models=["all", "lingshu-7b"]), "MODELS.* give it alone"),
        (dict(models=["lingshu-7b", "lingshu-7b"]), "MODELS names 'lingshu-7b' twice"),
        (dict(datasets=["busi-phantom"] * 2), "DATASETS names 'busi-phantom' twice"),
        (dict(datasets=["busi"]), "'busi'.*DATA=.*busi-phantom"),
        (dict(split_rule="offical"), "unknown split.*clean"),
        (dict(data="/no/such/folder"), "DATA.*/no/such/folder.*data/README.md"),
    ],
)
def test_a_wrong_request_names_itself_and_the_mend(arguments, words):
    request = dict(models=[], datasets=[], protocol="miniature", split_rule="paper", data="") | arguments
    with pytest.raises(InputError, match=words):
        configure(**request)


@pytest.mark.parametrize("jobs", ["0", "many", "1.5", ""])
def test_a_wrong_number_of_processes_is_refused_before_anything_starts(outputs, error_of, jobs):
    assert f"JOBS={jobs}: give the number of processes" in error_of("book", f"--jobs={jobs}")
    assert not outputs.exists()


def test_two_runs_in_one_checkout_do_not_meet(outputs, error_of):
    outputs.mkdir()
    with FileLock(outputs / ".make_book.lock"):
        assert "another `make book` is working" in error_of("book")
    assert not (outputs / "run.json").exists()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MLPROBE_PREPARED", raising=False)
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)


PHANTOM = Run((), ("busi-phantom",), "miniature", "paper", "")


def test_a_phantom_is_drawn_and_its_manifest_made_once(alone, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLPROBE_PREPARED", "1")  # as `make book` has it
        jobs.prepare(PHANTOM)
    assert not (tmp_path / "phantoms").exists()
    jobs.prepare(PHANTOM)
    assert (tmp_path / "phantoms" / "busi-phantom" / "Dataset_BUSI_with_GT").is_dir()
    assert (tmp_path / "miniature" / "busi-phantom" / "data" / "manifest.parquet").is_file()
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    jobs.prepare(PHANTOM)


def test_models_are_looked_at_before_anything_runs_but_for_those_made_here(alone, own_cards, tmp_path, monkeypatch):
    """Through the command: the error of a card's source is the one message."""
    monkeypatch.setenv("MLPROBE_CARDS", str(own_cards))
    jobs.look_at(["lingshu-7b-miniature"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architectures": ["Strange"]}')
    (own_cards / "models" / "mine.yml").write_text(f"name: Mine\nsource: {tmp_path / 'mine'}\n")
    with pytest.raises(InputError, match=r"^model card 'mine': it has no vision part"):
        jobs.look_at(["mine"])
