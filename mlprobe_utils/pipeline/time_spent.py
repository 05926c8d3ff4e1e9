"""Where the time of a `make book` went, how much memory it took, and how long the next one should take."""

import resource
from collections import Counter
from pathlib import Path

import pandas as pd

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.progress import BETWEEN
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import CARDS

TIMES = "step_times.csv"  # protocol, stage, seconds a step; of the last runs in outputs/, what ships in data/
STARTING = "starting"  # a job's processor time that is in none of its steps


def spent(progress: Path) -> pd.DataFrame:
    """stage, steps, seconds (summed over processes), the longest first, of the file that `common.progress` writes."""
    lines = [line.split("\t") for line in progress.read_text().splitlines()]
    steps = pd.DataFrame([(what.split(BETWEEN)[-1], float(seconds)) for seconds, what in lines], columns=["stage", "s"])
    found = steps.groupby("stage", sort=False)["s"].agg(steps="count", seconds="sum")
    return found.sort_values("seconds", ascending=False, kind="stable").reset_index()


def account(progress: Path, wall: float) -> str:
    """`spent` as text, with the wall time, and processor time and memory of the processes that this one waited for."""
    table, usage = spent(progress), resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = [*table.itertuples(index=False, name=None), ("all of them", table["steps"].sum(), table["seconds"].sum())]
    numbers = {"from start to end": wall, "processor seconds": usage.ru_utime + usage.ru_stime}
    numbers["largest process (MiB)"] = artefacts.peak_of(resource.RUSAGE_CHILDREN)
    lines = [f"{'where the time went':<24}{'steps':>6}{'seconds':>9}"]
    lines += [f"{stage:<24}{steps:>6}{seconds:>9.0f}" for stage, steps, seconds in stages]
    return "\n".join([*lines, *(f"{name:<24}{number:>15.0f}" for name, number in numbers.items())])


def remember(progress: Path, wall: float, jobs: int, processes: int, protocol: str) -> None:
    """Keeps, for the next estimate, the seconds a step of a run of so many jobs, `processes` of them at a time."""
    table = spent(progress)
    seconds = dict(zip(table["stage"], table["seconds"] / table["steps"], strict=True))
    seconds[STARTING] = max(0.0, wall * processes - table["seconds"].sum()) / jobs
    own = pd.DataFrame({"protocol": protocol, "stage": seconds.keys(), "seconds": seconds.values()})
    path = artefacts.OUTPUTS / TIMES
    known = pd.concat([own, *([pd.read_csv(path)] if path.is_file() else [])])
    known = known.drop_duplicates(["protocol", "stage"]).round({"seconds": 2})
    atomic_write(path, known.to_csv(index=False))


def expected(steps: Counter, jobs: int, processes: int, protocol: str) -> str:
    """How many steps (stage -> how many) a run will take and about how long, in words; otherwise as `remember`."""
    words, own = f"{steps.total()} steps", artefacts.OUTPUTS / TIMES
    path, whose = (own, "of the last run") if own.is_file() else (CARDS / TIMES, "that ship with the project")
    known = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["protocol", "stage", "seconds"])
    known = known[known["protocol"] == protocol].set_index("stage")["seconds"]
    if known.empty:
        return f"{words}; how long, no run of the protocol '{protocol}' has shown yet"
    seconds = sum(number * known.get(stage, known.mean()) for stage, number in steps.items())
    minutes = (seconds + jobs * known.get(STARTING, 0)) / processes / 60
    return f"{words}, about {max(1, round(minutes))} min, going by the times {whose}"
