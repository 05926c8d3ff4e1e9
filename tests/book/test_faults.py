"""Kills and damaged files: nothing half, nothing lost, nothing silent."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import damaging
import pandas as pd
import psutil
import pytest
from small_book import DATASET, MODEL, SECOND, SmallBook

from mlprobe_utils.common.files import damage, read_record

HELPER = Path(damaging.__file__)


@pytest.fixture
def copy(first_book, tmp_path) -> SmallBook:
    """The first book, elsewhere, which a test may damage."""
    shutil.copytree(first_book.place, tmp_path / "copy", symlinks=True)
    return replace(first_book, place=tmp_path / "copy")


def assert_as_good_as(book: SmallBook, expected: SmallBook) -> None:
    for model in book.models:
        found, wanted = book.tables(model), expected.tables(model)
        assert found.keys() == wanted.keys() or model != SECOND
        for name, table in found.items():
            pd.testing.assert_frame_equal(table, wanted[name])


def of_run(book: SmallBook) -> list[psutil.Process]:
    """What is at work for a book."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if process.environ().get("MLPROBE_OUTPUTS") == str(book.outputs) else []
        except psutil.Error:
            continue
    return found


def kill_at_work(book: SmallBook, chance: random.Random) -> str:
    """Starts it, ends it while it works in one of the ways that a user or a machine has, and damages a file that it was
    writing; returns what it said. Nothing that it had started may go on."""
    process, progress, ready = book.start(), book.outputs / ".progress", time.time() + chance.uniform(4, 10)
    steps = chance.randrange(3)

    def worked() -> int:
        lines = progress.read_text().splitlines() if progress.is_file() else []
        return sum(float(line.partition("\t")[0]) > 0.1 for line in lines)

    while process.poll() is None and (time.time() < ready or worked() < steps):
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 1.5))
    how = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "group"])
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL) if how == "group" else process.send_signal(how)
    _, said = process.communicate()
    if process.returncode == 130 and "steps, about" in said:
        assert "finished work is kept, and the same command continues from there" in said
    limit = time.time() + 10
    while left := of_run(book):
        assert time.time() < limit, [one.cmdline() for one in left]
        time.sleep(0.1)
    unfinished = [path for path in book.outputs.rglob("*") if ".partial" in str(path) and path.is_file()]
    if unfinished and chance.random() < 0.7:
        damaging.damage_file(chance.choice(unfinished), chance)
    return said


@pytest.mark.parametrize(
    ("kills", "models", "seed"),
    [(12, (MODEL,), 0), *(pytest.param(25, (MODEL, SECOND), seed, marks=pytest.mark.nightly) for seed in range(1, 5))],
)
def test_kills_end_with_the_same_tables(first_book, tmp_path, kills, models, seed):
    """Of the run alone, or of all its processes; in steps of every kind, as far as the dice have it."""
    chance, broken = random.Random(seed), SmallBook(tmp_path, models)
    said = "".join(kill_at_work(broken, chance) for _ in range(kills))
    code, last = broken.make()
    assert (code, (said + last).count("Traceback")) == (0, 0), said + last
    assert_as_good_as(broken, first_book)
    assert broken.make(verify=True)[1].count(", 0 damaged") == 1


@pytest.mark.parametrize(("count", "seed"), [(300, 0), pytest.param(2000, 1, marks=pytest.mark.nightly)])
def test_no_damaged_file_is_silent(first_book, copy, count, seed):
    """Cut, flipped, longer or gone: the records notice it, and what it belongs to is due."""
    command = [sys.executable, str(HELPER), str(count), str(seed), *copy.models, DATASET]
    done = subprocess.run(command, env=copy.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"damaged": count, "silent": [], "errors": []}


@pytest.mark.parametrize(
    ("count", "seed"), [(40, 0), *(pytest.param(60, s, marks=pytest.mark.nightly) for s in (1, 2, 3))]
)
def test_what_is_damaged_is_made_again(first_book, copy, count, seed):
    chance = random.Random(seed)
    files = [*damaging.files_of(copy.outputs), *damaging.files_of(copy.html)]
    for path in chance.sample(files, count):
        damaging.damage_file(path, chance)
    code, said = copy.make(verify=True)
    assert (code, said.count("Traceback")) == (0, 0), said
    assert int(re.search(r"(\d+) damaged", said)[1]) > 0
    assert "is damaged and will be recomputed" in said
    assert_as_good_as(copy, first_book)
    code, said = copy.make(verify=True)
    assert (code, said.count(", 0 damaged"), said.count("left]")) == (0, 1, 0)


def test_bytes_that_change_without_a_trace_are_found_by_verify(copy):
    """As on a disk that rots: size and time are the same."""
    file = copy.results / "features-pretrained" / "features.safetensors"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "everything is up to date" in copy.make(dry_run=True)[1]
    code, said = copy.make(verify=True, dry_run=True)
    assert (code, said.count(", 1 damaged")) == (0, 1)
    assert re.search(r"features-pretrained/files.json: features.safetensors was changed after it was written", said)
    assert f"model {MODEL}: miniature/{DATASET}/paper/{MODEL}/features-pretrained" in said


@pytest.mark.slow
def test_two_processes_at_once_on_empty_outputs_share_the_work(tmp_path):
    book = SmallBook(tmp_path)
    command = [sys.executable, "-m", "mlprobe_utils", "manifest", DATASET, "--protocol", "miniature"]
    how = {"env": book.environment, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **how) for _ in range(2)]
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "waiting: another process is working on phantoms/" in "".join(said)
    data = book.outputs / "miniature" / DATASET / "data"
    assert damage(data, read_record(data / "files.json")) == ""
    assert (data / "pixels.bin").is_file()
