"""A long pass over images in shards, at which processes take turns: each is a file written whole, so that a killed
pass is resumed, and no image is read twice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import Notes


@dataclass(frozen=True)
class Shard:
    """Some images of a pass, and the file of their results."""

    path: Path
    positions: list[int]


def shards_of(folder: Path, positions: list[int], most: int, suffix: str) -> list[Shard]:
    """All shards of a pass over `positions`, in order: at most `most` images each, and one for each process or more."""
    size = max(1, min(most, math.ceil(len(positions) / processes().num_processes)))
    parts = {start: positions[start : start + size] for start in range(0, len(positions), size)}
    # the name holds the size too: a shard of another size is not this one
    return [Shard(folder / f"shard-{start:06d}-{len(own)}{suffix}", own) for start, own in parts.items()]


def own_missing(shards: list[Shard], batch_size: int, unit: str) -> Iterator[tuple[Path, Iterator[list[int]]]]:
    """The shards that this process has to make: each one's file and its positions in batches; notes its progress."""
    state, notes, done = processes(), Notes(), 0
    missing = [s for s in shards[state.process_index :: state.num_processes] if not s.path.exists()]
    total = sum(len(shard.positions) for shard in missing)

    def batches(positions: list[int]) -> Iterator[list[int]]:
        nonlocal done
        for first in range(0, len(positions), batch_size):
            yield positions[first : first + batch_size]
            done += len(positions[first : first + batch_size])
            notes.note(done, total, unit)

    for shard in missing:
        yield shard.path, batches(shard.positions)


def remove_shards(folder: Path) -> None:
    for path in folder.glob("shard-*"):
        path.unlink()
