"""The processes of one run: a single one, or several that `accelerate-launch` started (DDP or FSDP, on any device).

Each runs the same commands. They share training steps and shards; the main one alone moves an artefact to its place.
"""

import os
from datetime import timedelta

import torch
from accelerate import PartialState

from mlprobe_utils.common.errors import InputError

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
        raise InputError(
            f"{count} processes cannot share batches of {batch_size} images (fine_tuning.batch_size of the protocol): "
            f"start a number of processes that divides {batch_size}"
        )
    return batch_size // count
