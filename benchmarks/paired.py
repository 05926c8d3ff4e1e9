"""Contestants side by side: interleaved repetitions, ratios with exact intervals, peak memory in child processes."""

import concurrent.futures
import ctypes
import gc
import multiprocessing
import os
import platform
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom

CONFIDENCE = 0.95
# glibc keeps what was freed for what comes next, and a peak would hide in it: in a child whose memory is measured,
# every tensor is mapped and unmapped on its own
UNCACHED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def interleaved(contestants: dict[str, Callable[[], float]], repetitions: int, seed: int = 0) -> pd.DataFrame:
    """Runs every contestant once a repetition, in an order drawn anew each time.

    Args:
        contestants: name -> a function that does the work once and returns the seconds it took.

    Returns:
        Seconds, one row a repetition, one column a contestant.
    """
    draw = random.Random(seed)
    rows = []
    gc.collect()
    gc.freeze()  # the collections between the runs need not walk through every library
    for _ in range(repetitions):
        order = draw.sample(list(contestants), len(contestants))
        rows.append({name: contestants[name]() for name in order})
    gc.unfreeze()
    return pd.DataFrame(rows, columns=list(contestants))


def enough_repetitions(text: str) -> int:
    """The number of repetitions from a command line: enough of them for an interval."""
    median_interval(np.ones(int(text)))
    return int(text)


def seconds_of(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long `work` takes, what it queued on an accelerator included. `time.process_time` as the clock leaves out
    the time in which other programs have the processor."""
    gc.collect()  # nobody pays for another's garbage
    synchronize()
    start = clock()
    work()
    synchronize()
    return clock() - start


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median and an interval that covers the true one in at least 95 % of all cases, whatever the distribution.

    The interval lies between two order statistics (sign test), so it draws nothing at random.

    Raises:
        ValueError: fewer than six values; not even the range from the smallest to the largest covers so much.
    """
    values = np.sort(values)
    end = int(binom.ppf((1 - CONFIDENCE) / 2, len(values), 0.5))  # the interval's ends: so many-th from below and above
    if end < 1:
        raise ValueError(f"an interval of {CONFIDENCE:.0%} needs at least 6 repetitions, there are {len(values)}")
    return float(np.median(values)), float(values[end - 1]), float(values[-end])


def compare(seconds: pd.DataFrame, base: str, memory: dict[str, int]) -> pd.DataFrame:
    """One row a contestant: median seconds, the median of the paired ratios to `base` and its interval, peak memory.

    Args:
        seconds: what `interleaved` returned.
        memory: contestant -> peak in bytes above what was in use before.
    """
    rows = []
    for name in seconds:
        ratio, low, high = median_interval((seconds[name] / seconds[base]).to_numpy())
        mebibytes = memory[name] / 2**20
        share = memory[name] / memory[base] if memory[base] else float("nan")
        rows.append((name, seconds[name].median(), ratio, low, high, mebibytes, share))
    columns = ["contestant", "seconds", "ratio", "low", "high", "memory_mib", "memory_ratio"]
    return pd.DataFrame(rows, columns=columns)


def judge(low: float, high: float, target: float) -> str:
    """Whether a ratio is at most `target`, by its interval: met, missed, or not decided by these repetitions."""
    return "met" if high <= target else "MISSED" if low > target else "NOT DECIDED: more repetitions"


def start_of_peak() -> int:
    """Forgets the peak of memory so far; returns the bytes now in use (accelerator, or resident without one)."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()
        return torch.accelerator.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps would be in use again unseen
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def peak() -> int:
    """The most bytes in use at a time since `start_of_peak`."""
    return torch.accelerator.max_memory_allocated() if torch.accelerator.is_available() else _resident("VmHWM")


def _resident(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def in_child(function: Callable, *arguments):
    """What `function(*arguments)` returns in a process of its own: no memory that another has left is there.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the child died, of too little memory for example.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        patch.dict(os.environ, UNCACHED),
        concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=spawn) as children,
    ):
        return children.submit(function, *arguments).result()


def machine() -> str:
    """The accelerator, or the number of threads, and torch's version."""
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        place = getattr(torch, kind).get_device_name()
    else:
        place = f"{torch.get_num_threads()} threads of {os.cpu_count()} {platform.machine()} cores, no accelerator"
    return f"{place}; torch {torch.__version__}"


def markdown(table: pd.DataFrame) -> str:
    """A table of what `compare` returned, with other columns before it if there are any."""
    head = [name for name in table if name not in ("seconds", "ratio", "low", "high", "memory_mib", "memory_ratio")]
    titles = [*head, "seconds", "time, ratio (95 %)", "peak memory, MiB", "memory, ratio"]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(head) + " ---: |" * 4]
    for row in table.to_dict("records"):
        ratio = f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        numbers = [f"{row['seconds']:.3f}", ratio, f"{row['memory_mib']:,.0f}", f"{row['memory_ratio']:.2f}"]
        lines.append("| " + " | ".join([str(row[name]) for name in head] + numbers) + " |")
    return "\n".join(lines)
