"""Artefacts appear whole or not at all, resume from what an interrupted try left, and know the code they came from."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact, artefact, is_current, peak_memory, read_made_from, stale

OLD, NEW = {"seed": 1}, {"seed": 2}


@pytest.fixture
def made(tmp_path):
    """An artefact that was made before, from OLD."""
    folder = tmp_path / "a" / "artefact"
    with artefact(folder, OLD) as temporary:
        (temporary / "result.txt").write_text("old")
    return folder


def try_and_fail(folder, made_from, **files):
    def interrupted():
        with artefact(folder, made_from) as temporary:
            for name, text in files.items():
                (temporary / name).write_text(text)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_artefact_is_whole_and_current(made):
    assert {path.name for path in made.iterdir()} == {"result.txt", "made_from.json", "files.json", "provenance.json"}
    assert is_current(made, OLD)
    assert not is_current(made, NEW)
    assert read_made_from(made, "make it") == OLD
    recorded = json.loads((made / "provenance.json").read_text())
    assert {"made_at", "seconds", "commit", "versions", "peak_memory_mib"} <= set(recorded)
    assert [path.name for path in made.parent.iterdir()] == ["artefact"]
    made_from = {"sizes": (1, 2), "runs": {0: "a"}, "rate": 1e-4, "none": None}  # which JSON writes otherwise
    with artefact(made, made_from):
        pass
    assert is_current(made, made_from)
    assert not is_current(made, made_from | {"rate": 2e-4})


@pytest.mark.parametrize(("platform", "mib"), [("linux", 3072.0), ("darwin", 3.0)])
def test_peak_memory_is_in_mib_whatever_the_platform_counts_in(monkeypatch, platform, mib):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(artefacts.sys, "platform", platform)
    monkeypatch.setattr(artefacts.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    assert peak_memory() == {"peak_memory_mib": mib}
    assert "torch" not in sys.modules


@pytest.mark.parametrize(("module", "name"), [({"get_device_name": lambda: "Big One"}, "Big One"), ({}, "mps")])
def test_an_accelerator_is_recorded_if_torch_was_imported_and_has_one(monkeypatch, module, name):
    found = {"is_available": lambda: True, "max_memory_allocated": lambda: 5 * 2**20}
    accelerator = SimpleNamespace(current_accelerator=lambda: SimpleNamespace(type="mps"), **found)
    torch = SimpleNamespace(accelerator=accelerator, get_device_module=lambda device: SimpleNamespace(**module))
    monkeypatch.setitem(sys.modules, "torch", torch)
    recorded = peak_memory()
    assert (recorded["accelerator"], recorded["accelerator_peak_memory_mib"]) == (name, 5.0)
    accelerator.is_available = lambda: False
    assert set(peak_memory()) == {"peak_memory_mib"}


def test_half_written_artefact_is_not_there(tmp_path):
    folder = tmp_path / "artefact"
    with artefact(folder, NEW) as temporary:
        (temporary / "result.txt").write_text("half")
        assert not folder.exists()
        assert not is_current(folder, NEW)
        with pytest.raises(InputError, match="is not there: make it with `python -m maker`"):
            read_made_from(folder, "python -m maker")
    assert is_current(folder, NEW)


def test_old_artefact_stands_until_the_new_one_takes_its_place(made):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    try_and_fail(made, NEW, **{"result.txt": "half"})
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    atomic_write(made.parent / ".artefact.old" / "left", "by a try that was killed")
    with artefact(made, NEW) as temporary:
        (temporary / "other.txt").write_text("new")
        assert (made / "result.txt").read_text() == "old"
    assert is_current(made, NEW)
    assert [path.name for path in made.parent.iterdir()] == ["artefact"]


@pytest.mark.parametrize("again", [OLD, NEW])
def test_interrupted_try_is_resumed_unless_it_was_made_from_something_else(tmp_path, again):
    folder = tmp_path / "artefact"
    try_and_fail(folder, OLD, **{"shard-0": "done"})
    with artefact(folder, again) as temporary:
        found = {path.name for path in temporary.iterdir()}
    assert found == {"made_from.json"} | ({"shard-0"} if again == OLD else set())
    assert is_current(folder, again)
    assert (folder / "shard-0").exists() == (again == OLD)


def test_kill_between_the_two_moves_loses_nothing_but_time(made, monkeypatch):
    """The old one is out of its place, the new one not in: the next try starts from what is there."""
    rename, calls = os.rename, []

    def dying(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    def make_anew():
        with artefact(made, NEW) as temporary:
            (temporary / "shard-0").write_text("done")

    with monkeypatch.context() as patch:
        patch.setattr(artefacts.os, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            make_anew()
    assert not is_current(made, NEW)
    with artefact(made, NEW) as temporary:
        assert (temporary / "shard-0").read_text() == "done"
    assert is_current(made, NEW)
    assert [path.name for path in made.parent.iterdir()] == ["artefact"]


def test_file_is_never_seen_half_written(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, "old")

    def dying(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artefacts.os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            atomic_write(path, "new")
    assert path.read_text() == "old"
    atomic_write(path, b"new")
    assert path.read_text() == "new"


def test_hash_is_of_the_content():
    assert hash_of({"a": 1, "b": [1.5, None, "ö"]}) == hash_of({"b": [1.5, None, "ö"], "a": 1})
    assert len({hash_of(value) for value in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [1], b"1", "1", None)}) == 8
    assert hash_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256's own


def test_what_is_made_from_an_artefact_follows_its_content(outputs):
    """Not when or why it was made: made again as it was, nothing follows; and everything behind one that is due."""

    def make(one: Artefact, text: str) -> None:
        with one.making() as temporary:
            (temporary / "result.txt").write_text(text)

    first = Artefact(outputs / "a", "adapter", {"run": 0})
    second = Artefact(outputs / "b", "features", {"run": 0}, (first,))
    third = Artefact(outputs / "c", "probes", {"run": 0}, (second,))
    assert stale([first, second, third]) == [first, second, third]
    with pytest.raises(InputError, match=r"a is not there"):
        make(second, "b")
    for one in (first, second, third):
        make(one, "text")
    assert stale([first, second, third]) == []
    make(first, "text")
    assert stale([first, second, third]) == []
    make(first, "another")
    assert stale([first, second, third]) == [second, third]
    assert artefacts.upstream(third.folder) == [third.folder, second.folder, first.folder]
    outputs.rename(outputs.with_name("moved"))
    moved = [outputs.with_name("moved") / name for name in "abc"]
    assert json.loads((moved[2] / "made_from.json").read_text())["upstream"].keys() == {"b"}
