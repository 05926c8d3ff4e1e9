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


def make(folder, made_from, name="result.txt", text="old"):
    with artefact(folder, made_from) as temporary:
        (temporary / name).write_text(text)


@pytest.fixture
def made(tmp_path):
    """An artefact that was made before, from OLD."""
    make(tmp_path / "a" / "artefact", OLD)
    return tmp_path / "a" / "artefact"


def dying(*_) -> None:
    raise KeyboardInterrupt


def interrupted(action, *arguments) -> None:
    with pytest.raises(KeyboardInterrupt):
        action(*arguments)


def die_making(folder, made_from) -> None:
    with artefact(folder, made_from) as temporary:
        (temporary / "shard").write_text("done")
        dying()


def test_artefact_is_whole_and_current(made):
    assert {path.name for path in made.iterdir()} == {"result.txt", "made_from.json", "files.json", "provenance.json"}
    assert (is_current(made, OLD), is_current(made, NEW)) == (True, False)
    assert read_made_from(made, "make it") == OLD
    recorded = json.loads((made / "provenance.json").read_text())
    assert {"made_at", "seconds", "commit", "versions", "peak_memory_mib"} <= set(recorded)
    made_from = {"sizes": (1, 2), "runs": {0: "a"}, "rate": 1e-4, "none": None}  # which JSON writes otherwise
    make(made, made_from)
    assert is_current(made, made_from)
    assert not is_current(made, made_from | {"rate": 2e-4})


def test_peak_memory_is_in_mib_and_of_an_accelerator_only_where_torch_was_imported_and_has_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(artefacts.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    for platform, mib in (("linux", 3072.0), ("darwin", 3.0)):
        monkeypatch.setattr(artefacts.sys, "platform", platform)
        assert peak_memory() == {"peak_memory_mib": mib}
    memory = {"is_available": lambda: True, "max_memory_allocated": lambda: 5 * 2**20}
    accelerator = SimpleNamespace(current_accelerator=lambda: SimpleNamespace(type="mps"), **memory)
    for module, name in ((SimpleNamespace(get_device_name=lambda: "Big One"), "Big One"), (SimpleNamespace(), "mps")):
        torch = SimpleNamespace(accelerator=accelerator, get_device_module=lambda _, own=module: own)
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert peak_memory() == {"peak_memory_mib": 3.0, "accelerator": name, "accelerator_peak_memory_mib": 5.0}
    accelerator.is_available = lambda: False
    assert set(peak_memory()) == {"peak_memory_mib"}


def test_half_written_artefact_is_not_there_and_the_old_one_stands(made):
    with artefact(made.with_name("other"), NEW), pytest.raises(InputError, match="not there: make it with `maker`"):
        read_made_from(made.with_name("other"), "maker")
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    interrupted(die_making, made, NEW)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    atomic_write(made.parent / ".artefact.old" / "left", "by a try that was killed")
    make(made, NEW, "other.txt")
    assert is_current(made, NEW)
    assert {path.name for path in made.parent.iterdir()} == {"artefact", "other"}


@pytest.mark.parametrize("again", [OLD, NEW])
def test_interrupted_try_is_resumed_unless_it_was_made_from_something_else(tmp_path, again):
    folder = tmp_path / "artefact"
    interrupted(die_making, folder, OLD)
    with artefact(folder, again) as temporary:
        found = {path.name for path in temporary.iterdir()}
    assert found == {"made_from.json"} | ({"shard"} if again == OLD else set())
    assert is_current(folder, again)


def test_kill_between_the_two_moves_loses_nothing_but_time(made, monkeypatch):
    """The old one is out of its place, the new one not in: the next try starts from what is there."""
    rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(artefacts.os, "rename", lambda source, to: rename(source, to) if source == made else dying())
        interrupted(make, made, NEW, "shard-0", "done")
    assert not is_current(made, NEW)
    with artefact(made, NEW) as temporary:
        assert (temporary / "shard-0").read_text() == "done"
    assert is_current(made, NEW)
    assert [path.name for path in made.parent.iterdir()] == ["artefact"]


def test_file_is_never_seen_half_written(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(artefacts.os, "replace", dying)
        interrupted(atomic_write, path, "new")
    assert path.read_text() == "old"
    atomic_write(path, b"new")
    assert path.read_text() == "new"


def test_hash_is_of_the_content():
    assert hash_of({"a": 1, "b": [1.5, None, "ö"]}) == hash_of({"b": [1.5, None, "ö"], "a": 1})
    assert len({hash_of(value) for value in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [1], b"1", "1", None)}) == 8
    assert hash_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256's own


def test_what_is_made_from_an_artefact_follows_its_content(outputs):
    """Not when or why it was made: made again as it was, nothing follows; and everything behind one that is due."""
    first = Artefact(outputs / "a", "adapter", {"run": 0})
    second = Artefact(outputs / "b", "features", {"run": 0}, (first,))
    third = Artefact(outputs / "c", "probes", {"run": 0}, (second,))
    whole = [first, second, third]
    assert stale(whole) == whole
    with pytest.raises(InputError, match=r"a is not there"):
        second.make(None)
    for one in whole:
        make(one.folder, one.made_from())
    assert stale(whole) == []
    make(first.folder, first.made_from())
    assert stale(whole) == []
    make(first.folder, first.made_from(), text="another")
    assert stale(whole) == [second, third]
    assert artefacts.upstream(third.folder) == [third.folder, second.folder, first.folder]
    assert read_made_from(third.folder, "")["upstream"].keys() == {"b"}  # so that outputs can be moved
