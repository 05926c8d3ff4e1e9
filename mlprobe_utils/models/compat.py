"""What other libraries need before they can be imported, and their settings that last no longer than a call.

A module that imports transformers, peft, timm or torchvision at its top imports this one first (ruff sorts it there).

The package registry has no CPU build of torchvision. The CUDA build fails to import beside a CPU torch because it
registers fake kernels for two operators that its own compiled library would have declared. Declaring their schemas
beforehand is enough for everything the book uses (transforms, processors). On a machine where the compiled operators
load, nothing is declared and nothing changes.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import torch
from transformers.utils import logging

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries = []  # a torch Library withdraws its schemas when it is collected


def declare_missing_operators() -> None:
    """Declares torchvision's operators where its compiled library does not load; once a process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or _libraries:
        return
    for location in spec.submodule_search_locations:
        with contextlib.suppress(OSError):
            torch.ops.load_library(f"{location}/_C.so")
            return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, transformers shows errors alone: no warnings, no progress bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


declare_missing_operators()
