"""Artefacts appear whole or not at all, resume from what an interrupted try left, and know the code they came from."""

import errno
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import Timeout
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mlprobe_utils.common import files
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import RECORDS, atomic_write, hash_of
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact, artefact, is_current, peak_memory, read_made_from, stale

OLD, NEW = {"seed": 1}, {"seed": 2}


def make(folder, made_from, name="result.txt", text="old"):
    artefacts.make(folder, made_from, lambda partial: (partial / name).write_text(text))


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
    def fill(partial: Path) -> None:
        (partial / "shard").write_text("done")
        dying()

    artefacts.make(folder, made_from, fill)


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


def test_peak_memory_is_in_mib_and_of_an_accelerator_only_where_torch_was_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(artefacts.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    for platform, mib in (("linux", 3072.0), ("darwin", 3.0)):
        monkeypatch.setattr(artefacts.sys, "platform", platform)
        assert peak_memory() == {"peak_memory_mib": mib}
    memory = {"is_available": lambda: True, "max_memory_allocated": lambda: 5 * 2**20}
    accelerator = SimpleNamespace(current_accelerator=lambda: SimpleNamespace(type="mps"), **memory)
    torch = SimpleNamespace(accelerator=accelerator, get_device_module=lambda _: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert peak_memory() == {"peak_memory_mib": 3.0, "accelerator": "mps", "accelerator_peak_memory_mib": 5.0}


def test_half_written_artefact_is_not_there_and_the_old_one_stands(made):
    with artefact(made.with_name("other"), NEW), pytest.raises(InputError, match="does not exist: make it"):
        read_made_from(made.with_name("other"), "maker")
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    interrupted(die_making, made, NEW)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    atomic_write(made.parent / ".artefact.old" / "left", "by a try that was killed")
    make(made, NEW, "other.txt")
    assert is_current(made, NEW)
    assert {path.name for path in made.parent.iterdir()} == {"artefact", ".artefact.lock", "other"}


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
    assert {path.name for path in made.parent.iterdir()} == {"artefact", ".artefact.lock"}


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.booleans(), max_size=60))
def test_two_writers_in_any_order_leave_one_whole_artefact(tmp_path_factory, order):
    """Their moves and writes interleave as drawn, until one waits for the lock: then the other goes on."""
    folder, turns, own = tmp_path_factory.mktemp("a") / "artefact", iter(order), threading.local()
    may, made = threading.Condition(), []

    def move(waiting: bool = False) -> None:
        with may:
            may.next = not own.number if waiting or next(turns, False) else own.number
            may.notify_all()
            may.wait_for(lambda: may.next == own.number or len(may.at_work) < 2)

    class Lock(files.FileLock):
        def acquire(self, timeout=-1, **more):
            while True:
                move()
                try:
                    return super().acquire(timeout=0, **more)
                except Timeout:
                    if timeout == 0:
                        raise
                    move(waiting=True)

    def fill(partial: Path) -> None:
        for name in ("one", "two"):
            move()
            (partial / name).write_text(name)
        made.append(own.number)

    def write(number: int) -> None:
        own.number = number
        try:
            artefacts.make(folder, OLD, fill)
        finally:
            with may:
                may.at_work.remove(number)
                may.notify_all()

    def moving(function):
        return lambda *given, **more: (move(), function(*given, **more))[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "FileLock", Lock)
        for owner, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree")):
            patch.setattr(owner, name, moving(getattr(owner, name)))
        may.at_work, may.next = [False, True], False
        writers = [threading.Thread(target=write, args=(number,)) for number in (False, True)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(timeout=20)
    assert len(made) == 1
    assert is_current(folder, OLD)
    assert {path.name for path in folder.iterdir()} == {"one", "two", *RECORDS}


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(path.read_bytes().swapcase()),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["result.txt", *RECORDS])
def test_a_damaged_artefact_is_not_read_and_made_again_with_a_line_that_says_so(made, capsys, name, damage):
    DAMAGES[damage](made / name)
    with pytest.raises(InputError, match=r"artefact is (damaged|not there).*: make it with `maker`"):
        read_made_from(made, "maker")
    make(made, OLD)
    assert read_made_from(made, "maker") == OLD
    assert "artefact is damaged and will be recomputed" in capsys.readouterr().err


def test_a_copy_is_current_its_bytes_are_read_once_and_rot_is_found_by_every_byte(made, monkeypatch):
    os.utime(made / "result.txt", ns=(1, 1))
    assert is_current(made, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(files, "file_hash", lambda path: pytest.fail("its bytes are read again"))
        assert is_current(made, OLD)
    (made / "result.txt").write_text("odl")
    os.utime(made / "result.txt", ns=(1, 1))
    assert is_current(made, OLD)
    assert artefacts.damage_of(made, every_byte=True) == "result.txt was changed after it was written"


def test_what_is_current_is_read_without_a_lock_and_a_file_system_without_locks_is_an_error(made, monkeypatch):
    def without(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.FileLock, "acquire", without)
    assert not artefacts.make(made, OLD, lambda folder: pytest.fail("it is there"))
    with pytest.raises(InputError, match=r"artefact\.lock \(No locks available\): set MLPROBE_OUTPUTS to a folder on"):
        make(made, NEW)


def test_files_have_the_rights_that_the_umask_leaves_whoever_wrote_them(tmp_path):
    def fill(folder: Path) -> None:
        save_file({"a": np.zeros(2)}, folder / "a.safetensors")  # for its owner alone

    before = os.umask(0o002)
    try:
        artefacts.make(tmp_path / "artefact", OLD, fill)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "artefact").iterdir()} == {0o664}


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
    with pytest.raises(InputError, match=r"a is missing or incomplete"):
        second.make(None)
    for one in whole:
        make(one.folder, one.made_from())
    assert stale(whole) == []
    make(first.folder, first.made_from())
    assert stale(whole) == []
    with artefact(first.folder, first.made_from()) as temporary:
        (temporary / "result.txt").write_text("another")
    assert stale(whole) == [second, third]
    assert artefacts.upstream(third.folder) == [third.folder, second.folder, first.folder]
    assert read_made_from(third.folder, "")["upstream"].keys() == {"b"}  # so that outputs can be moved
