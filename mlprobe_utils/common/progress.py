"""Progress: one line per finished step on stderr, with how many are left; in a notebook, bars. `make book` sets
MLPROBE_STEPS to the number of steps of all processes, MLPROBE_PROGRESS to a file of finished ones."""

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

BETWEEN = " · "  # the words of a step


@contextlib.contextmanager
def step(*what: str) -> Iterator[None]:
    """Announces the end of a step, e.g. `step("lingshu-7b", "busi", "probing")`, with its time in seconds."""
    start = time.time()
    yield
    seconds, words, counter = time.time() - start, BETWEEN.join(what), ""
    if path := os.environ.get("MLPROBE_PROGRESS"):
        with open(path, "a") as file:  # appends of one line are atomic
            file.write(f"{seconds:.1f}\t{words}\n")
        done, total = len(Path(path).read_text().splitlines()), int(os.environ["MLPROBE_STEPS"])
        elapsed = int(time.time() - float(os.environ["MLPROBE_START"]))
        counter = f"[{elapsed // 60:02d}:{elapsed % 60:02d}  {done}/{total} done, {max(total - done, 0)} left]  "
    print(f"{counter}{words} · {seconds:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def kept_alive(progress: Path) -> Iterator[None]:
    """Keeps the steps of a run going, which `end_with` its file: when this process ends, however it does, they end."""
    with progress.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # which the system releases, even after a kill
        yield


def end_with(progress: str) -> None:
    """Ends this process and all that it has started when the run is over that keeps it alive."""
    held = open(progress)  # noqa: SIM115  (as long as the process)

    def wait() -> None:
        fcntl.flock(held, fcntl.LOCK_SH)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def end_with_parent() -> None:
    """Interrupts this process when the one that started it is gone."""
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def say(line: str) -> None:
    """Prints a line on stderr, but not in the kernels of `make book`: it would become part of a page."""
    if "MLPROBE_PREPARED" not in os.environ:
        print(line, file=sys.stderr, flush=True)


class Notes:
    """How far a long step is: a bar at a terminal or in a notebook, else a line in `every` seconds."""

    def __init__(self, every: float = 60.0):
        self.every, self.start, self.last, self.bar = every, time.time(), time.time(), None

    def note(self, done: int, total: int, unit: str) -> None:
        ipython = sys.modules.get("IPython")
        part_of_a_run = {"MLPROBE_PROGRESS", "MLPROBE_PREPARED"} & os.environ.keys()
        watched = sys.stderr.isatty() or hasattr(ipython and ipython.get_ipython(), "kernel")
        if watched and not part_of_a_run and os.environ.get("LOCAL_RANK", "0") == "0":
            if self.bar is None:
                from tqdm.auto import tqdm  # not where nobody watches: it looks for widgets

                self.bar = tqdm(total=total, desc=unit)
            self.bar.update(done - self.bar.n)
            if done >= total:
                self.bar.close()
            return
        now = time.time()
        if now - self.last >= self.every and done:
            self.last = now
            left = (now - self.start) / done * (total - done) / 60
            print(f"    {unit} {done} of {total}, about {left:.0f} min left", file=sys.stderr, flush=True)
