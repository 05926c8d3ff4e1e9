"""Whether a model's weights fit on this machine at all: checked before they are read, which takes long."""

import os

import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.models.settings import Checkpoint


def check_memory(card: Checkpoint, parameters: int, precision: str, spread: bool) -> None:
    """Raises InputError for weights that need more than this process's device has; where they are `spread` by a device
    map, more than all devices of the machine and its own memory together."""
    devices = accelerators()
    if spread:
        place, there = "all devices of this machine and its memory together have", sum(devices) + machine()
    elif devices:
        place, there = "the device has", devices[processes().device.index or 0]
    else:
        place, there = "this machine has", machine()
    needed = parameters * getattr(torch, precision).itemsize
    if needed <= there:
        return
    mends = ["a larger machine"]
    if precision != "bfloat16":
        mends.insert(0, "`precision: bfloat16`, half as much")
    if devices and not spread and processes().num_processes == 1:
        mends.insert(0, "`device_map: auto`, which spreads it over all devices and the machine's memory")
    raise InputError(
        f"{card.called}: its weights alone need {needed / 2**30:.1f} GiB in {precision}, and {place} "
        f"{there / 2**30:.1f} GiB. Take {', or '.join(mends)}"
    )


def accelerators() -> list[int]:
    """The memory of each accelerator of this machine, in bytes."""
    return [torch.accelerator.get_memory_info(index)[1] for index in range(torch.accelerator.device_count())]


def machine() -> int:
    """The machine's own memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
