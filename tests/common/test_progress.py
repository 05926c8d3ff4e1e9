"""Progress: every step a line that counts down, long steps a line now and then, short ones none."""

import collections
import subprocess
import sys

import psutil
import pytest

from mlprobe_utils.book import make_book
from mlprobe_utils.book.make_book import expected, remember
from mlprobe_utils.common import progress


def test_steps_count_down_and_one_that_fails_is_not_counted(tmp_path, monkeypatch, capsys):
    """In the environment that `make book` gives its steps: three of them."""
    (tmp_path / "progress").touch()
    for name, value in {"PROGRESS": str(tmp_path / "progress"), "STEPS": "3", "START": "0"}.items():
        monkeypatch.setenv(f"MLPROBE_{name}", value)
    monkeypatch.setattr(progress.time, "time", lambda: 125.0)
    with progress.step("lingshu-7b", "busi", "features"):
        pass
    with pytest.raises(ValueError, match="broken"), progress.step("busi"):
        raise ValueError("broken")
    with progress.step("lingshu-7b", "busi", "probes"):
        pass
    first, second = capsys.readouterr().err.splitlines()
    assert first == "[02:05  1/3 done, 2 left]  lingshu-7b · busi · features · 0.0 s"
    assert second.startswith("[02:05  2/3 done, 1 left]")


def test_a_long_step_reports_how_far_it_is_now_and_then(monkeypatch, capsys):
    clock = iter([0, 0, 30, 90, 100, 160])
    monkeypatch.setattr(progress.time, "time", lambda: next(clock))
    notes = progress.Notes(every=60)
    for done in (10, 30, 40, 50):
        notes.note(done, 300, "training step")
    lines = [f"    training step {done} of 300, about {left} min left" for done, left in ((30, 14), (50, 13))]
    assert capsys.readouterr().err.splitlines() == lines


def test_the_next_run_is_estimated_by_the_last_one(outputs, monkeypatch, tmp_path):
    """Two processes took 60 s for 80 s of steps: 40 s went into the starts of four jobs."""
    (tmp_path / "progress").write_text("30.0\ta · probes\n10.0\tb · probes\n40.0\tpages\n")
    steps = collections.Counter({"probes": 10, "pages": 1})
    monkeypatch.setattr(make_book, "CARDS", tmp_path)
    assert expected(steps, 4, 2, "mine") == "11 steps; no estimate, as the protocol 'mine' has not been run yet"
    remember(tmp_path / "progress", 60, 4, 2, "mine")
    remember(tmp_path / "progress", 6000, 4, 2, "another")
    assert expected(steps, 4, 2, "mine") == "11 steps, about 2 min, going by the times of the last run"  # 280 s of two
    assert "about 5 min" in expected(steps, 4, 1, "mine")
    (outputs / make_book.TIMES).write_bytes(b"protocol,sta")  # cut
    assert "has not been run yet" in expected(steps, 4, 1, "mine")
    remember(tmp_path / "progress", 60, 4, 2, "mine")
    assert "about 2 min" in expected(steps, 4, 2, "mine")


def test_a_process_ends_with_the_one_that_started_it_however_that_ends():
    code = "import time; from mlprobe_utils.common.progress import end_with_parent as e; e(); print(1); time.sleep(99)"
    parent = "import subprocess as s, sys; p = s.Popen([sys.executable, '-uc', sys.argv[1]]); print(p.pid); p.wait()"
    process = subprocess.Popen([sys.executable, "-uc", parent, code], stdout=subprocess.PIPE, text=True)
    (child,) = {int(process.stdout.readline()), int(process.stdout.readline())} - {1}
    process.kill()
    process.wait()
    psutil.Process(child).wait(timeout=20)
