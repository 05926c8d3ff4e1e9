"""Progress that a person can follow: one line a finished step, on stderr, with how many are left; in a notebook, bars.

`make book` sets MLPROBE_PROGRESS to a file and MLPROBE_STEPS to the number of steps of the whole run; each process
appends a line to the file as it ends a step, so that "left" counts over all processes.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BETWEEN = " · "  # the words of a step


@contextlib.contextmanager
def step(*what: str) -> Iterator[None]:
    """Announces the end of a step, e.g. `step("lingshu-7b", "busi", "probing")`, with its time in seconds."""
    start = time.time()
    yield
    finished(BETWEEN.join(what), time.time() - start)


def finished(what: str, seconds: float) -> None:
    """Prints the line of a finished step and counts it."""
    counter = ""
    if path := os.environ.get("MLPROBE_PROGRESS"):
        with open(path, "a") as file:  # appends of one line are atomic
            file.write(f"{seconds:.1f}\t{what}\n")
        done, total = len(Path(path).read_text().splitlines()), int(os.environ["MLPROBE_STEPS"])
        elapsed = int(time.time() - float(os.environ["MLPROBE_START"]))
        counter = f"[{elapsed // 60:02d}:{elapsed % 60:02d}  {done}/{total} done, {max(total - done, 0)} left]  "
    print(f"{counter}{what} · {seconds:.1f} s", file=sys.stderr, flush=True)


def watched() -> bool:
    """Whether a person watches this very process: at a terminal or in a notebook, but no step of a run and no page."""
    if {"MLPROBE_PROGRESS", "MLPROBE_PREPARED"} & os.environ.keys() or os.environ.get("LOCAL_RANK", "0") != "0":
        return False
    ipython = sys.modules.get("IPython")
    return sys.stderr.isatty() or hasattr(ipython and ipython.get_ipython(), "kernel")


class Notes:
    """How far a long step is: a bar where somebody watches, else a line in `every` seconds, none in a short step."""

    def __init__(self, every: float = 60.0):
        self.every, self.start, self.last = every, time.time(), time.time()
        self.bar = None

    def note(self, done: int, total: int, unit: str) -> None:
        """Says that `done` of `total` are done, and when the rest should be, going by the time so far."""
        if watched():
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
