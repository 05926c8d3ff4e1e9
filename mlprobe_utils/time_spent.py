"""Where the time of a `make book` went, and how much memory it took: a small table for the terminal."""

import resource
import sys
from pathlib import Path

import pandas as pd

from mlprobe_utils.progress import BETWEEN


def spent(progress: Path) -> pd.DataFrame:
    """Where the time of a run went: stage, steps, seconds (summed over processes), the longest first.

    Args:
        progress: the file that `progress` keeps; a step's stage is the last of its words.
    """
    lines = [line.split("\t") for line in progress.read_text().splitlines()]
    steps = pd.DataFrame([(what.split(BETWEEN)[-1], float(seconds)) for seconds, what in lines], columns=["stage", "s"])
    found = steps.groupby("stage", sort=False)["s"].agg(steps="count", seconds="sum")
    return found.sort_values("seconds", ascending=False, kind="stable").reset_index()


def account(progress: Path, wall: float) -> str:
    """`spent` as text, with the wall time and the memory of the largest process that this one has waited for.

    Starting up, reading and waiting between steps is in the wall time and in no stage.

    Args:
        progress: as in `spent`.
        wall: seconds from start to end.
    """
    table = spent(progress)
    stages = [*table.itertuples(index=False, name=None), ("all of them", table["steps"].sum(), table["seconds"].sum())]
    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage counts bytes there, KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**20
    lines = [f"{'where the time went':<24}{'steps':>6}{'seconds':>9}"]
    lines += [f"{stage:<24}{steps:>6}{seconds:>9.0f}" for stage, steps, seconds in stages]
    lines += [f"{'from start to end':<24}{wall:>15.0f}", f"{'largest process (MiB)':<24}{peak:>15.0f}"]
    return "\n".join(lines)
