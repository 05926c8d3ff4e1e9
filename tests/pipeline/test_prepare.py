"""What a chapter makes for itself when it runs alone, and how it says what it could not make."""

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, jobs
from mlprobe_utils.pipeline.configuration import Run


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MLPROBE_PREPARED", raising=False)
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)


PHANTOM = Run((), ("busi-phantom",), "miniature", "paper", "")


def test_a_phantom_is_drawn_and_its_manifest_made_once(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLPROBE_PREPARED", "1")  # as `make book` has it
        jobs.prepare(PHANTOM)
    assert not (tmp_path / "phantoms").exists()
    jobs.prepare(PHANTOM)
    assert (tmp_path / "phantoms" / "busi-phantom" / "Dataset_BUSI_with_GT").is_dir()
    assert (tmp_path / "miniature" / "busi-phantom" / "data" / "manifest.parquet").is_file()
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    jobs.prepare(PHANTOM)


def test_models_are_looked_at_before_anything_runs_but_for_those_made_here(own_cards, tmp_path, monkeypatch):
    """Through the command: the error of a card's source is the one message."""
    monkeypatch.setenv("MLPROBE_CARDS", str(own_cards))
    jobs.look_at(["lingshu-7b-miniature"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architectures": ["Strange"]}')
    (own_cards / "models" / "mine.yml").write_text(f"name: Mine\nsource: {tmp_path / 'mine'}\n")
    with pytest.raises(InputError, match=r"^model card 'mine': it has no vision part"):
        jobs.look_at(["mine"])
