"""Progress: every step a line that counts down, long steps a line now and then, short ones none."""

import pytest

from mlprobe_utils import progress
from mlprobe_utils.time_spent import account, spent


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """The environment that `make book` gives its steps: three of them."""
    (tmp_path / "progress").touch()
    monkeypatch.setenv("MLPROBE_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setenv("MLPROBE_STEPS", "3")
    monkeypatch.setenv("MLPROBE_START", "0")
    monkeypatch.setattr(progress.time, "time", lambda: 125.0)


def test_steps_count_down_and_one_that_fails_is_not_counted(counted, capsys):
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
    assert capsys.readouterr().err.splitlines() == [
        "    training step 30 of 300, about 14 min left",
        "    training step 50 of 300, about 13 min left",
    ]


def test_the_account_sums_the_seconds_of_each_stage(tmp_path):
    lines = ["2.5\ta · busi · probes", "9.0\tpages", "1.0\t03_probing · notebook", "7.5\tb · busi · probes"]
    (tmp_path / "progress").write_text("\n".join(lines) + "\n")
    assert [*spent(tmp_path / "progress").itertuples(index=False, name=None)] == [
        ("probes", 2, 10.0),
        ("pages", 1, 9.0),
        ("notebook", 1, 1.0),
    ]
    head, *rows = [line.split() for line in account(tmp_path / "progress", wall=12.4).splitlines()]
    assert head[-2:] == ["steps", "seconds"]
    assert rows[0] == ["probes", "2", "10"]
    assert rows[3][-2:] == ["4", "20"]
    assert rows[4][-1] == "12"
    assert rows[5][:3] == ["largest", "process", "(MiB)"]
    assert int(rows[5][-1]) >= 0
