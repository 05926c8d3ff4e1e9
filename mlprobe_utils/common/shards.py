"""A long pass over images in shards: each is a file that is written whole, so that a killed pass goes on where it was.

The processes of a run take turns at the shards. No image is read twice, so nothing has to be dropped at the end (a
sampler that shares images evenly repeats some: audit, point 4).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import Notes


@dataclass(frozen=True)
class Shard:
    """Some images of a pass, and the file that holds their results once it is there."""

    path: Path
    positions: list[int]


def shards_of(folder: Path, positions: list[int], most: int, suffix: str) -> list[Shard]:
    """All shards of a pass over `positions`, in order: at most `most` images each, and one for each process or more."""
    size = max(1, min(most, math.ceil(len(positions) / processes().num_processes)))
    shards = []
    for start in range(0, len(positions), size):
        own = positions[start : start + size]
        # the name holds the size too: a shard of another size is not this one
        shards.append(Shard(folder / f"shard-{start:06d}-{len(own)}{suffix}", own))
    return shards


def own_missing(shards: list[Shard], batch_size: int, unit: str) -> Iterator[tuple[Path, Iterator[list[int]]]]:
    """The shards that this process has to make: each one's file and its positions in batches.

    Says once in a while how many `unit`s are done.
    """
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
    """Removes all shards of a pass, once their whole stands."""
    for path in folder.glob("shard-*"):
        path.unlink()
