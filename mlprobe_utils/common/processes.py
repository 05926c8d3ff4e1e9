"""The processes of one run: one, or several that `accelerate-launch` started (DDP or FSDP), which run the same
commands. They share training steps and the shards of a long pass, which are written whole: a pass is resumed."""

import math
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import damage, inventory, read_record, write_record
from mlprobe_utils.common.progress import Notes

PATIENCE = timedelta(hours=24)  # how long processes wait for each other: probes of a large model take hours


def processes() -> PartialState:
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


def sharded() -> bool:
    """Whether the run was started with FSDP: a model that has been trained is then spread over the processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def share_of(batch_size: int) -> int:
    """How many images of a batch each process takes. Raises InputError if they cannot share it evenly."""
    count = processes().num_processes
    if batch_size % count:
        found = f"{count} processes cannot share batches of {batch_size} images (fine_tuning.batch_size)"
        raise InputError(f"{found}: start a number of processes that divides {batch_size}")
    return batch_size // count


def shards_of(folder: Path, positions: list[int], most: int, suffix: str) -> dict[Path, list[int]]:
    """File -> positions of each shard of a pass, in order: at most `most`, and one shard for each process or more."""
    size = max(1, min(most, math.ceil(len(positions) / processes().num_processes)))
    parts = {start: positions[start : start + size] for start in range(0, len(positions), size)}
    # the name holds the size too: a shard of another size is not this one
    return {folder / f"shard-{start:06d}-{len(own)}{suffix}": own for start, own in parts.items()}


def own_missing(
    shards: Mapping[Path, list[int]], batch_size: int, unit: str
) -> Iterator[tuple[Path, Iterator[list[int]]]]:
    """The shards that this process has to make, each with its positions in batches; notes its progress."""
    state, notes, done = processes(), Notes(), 0
    own = [*shards][state.process_index :: state.num_processes]
    missing = [path for path in own if damage(path.parent, read_record(_seal(path)))]
    total = sum(len(shards[path]) for path in missing)

    def batches(positions: list[int]) -> Iterator[list[int]]:
        nonlocal done
        for first in range(0, len(positions), batch_size):
            yield positions[first : first + batch_size]
            done += len(positions[first : first + batch_size])
            notes.note(done, total, unit)

    for path in missing:
        yield path, batches(shards[path])
        write_record(_seal(path), inventory(path.parent, path))


def _seal(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.json")


def remove_shards(folder: Path) -> None:
    for path in folder.glob("shard-*"):
        path.unlink()
