"""What other libraries need before they can be imported, and every private name of theirs that we touch.

A module that imports transformers, peft, timm or torchvision at its top imports this one first (ruff sorts it there).
Each private name has a canary in tests/models/test_compat.py, which says what to do when a new release fails it.

The CUDA build of torchvision fails to import beside a CPU torch: it registers fake kernels for two operators that its
compiled library would declare. Declaring their schemas is enough for transforms and processors."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

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
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings and progress bars of transformers."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def initialised(model_class: type["PreTrainedModel"], config: "PreTrainedConfig", **options) -> "PreTrainedModel":
    """A model of random weights; `options` are `dtype` and `attn_implementation`, which the class does not take."""
    return model_class._from_config(config, **options)


def whole_layers(model: "PreTrainedModel") -> list[str]:
    """Classes of the layers that a device map and FSDP keep whole, without those that CLIP and SigLIP name but lack."""
    model._no_split_modules &= {type(module).__name__ for module in model.modules()}
    return sorted(model._no_split_modules)


def save_under_own_names(model: "PreTrainedModel") -> None:
    """Lets `save_pretrained` write the names of the model's class, not those that its weights were read under."""
    model._weight_conversions = []


def fused_adamw(weights, gradients, means, squares, steps, rate: torch.Tensor, weight_decay: float) -> None:
    """A step of AdamW with torch's defaults, in place; `steps` is the number of steps taken."""
    state = [weights], [gradients], [means], [squares], [], [steps]
    constants = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}
    torch._fused_adamw_(*state, lr=rate, weight_decay=weight_decay, **constants)


declare_missing_operators()
