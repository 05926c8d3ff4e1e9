"""What other libraries need before they can be imported, and every private name of theirs that we touch.

A module that imports transformers, peft, timm or torchvision at its top imports this one first (ruff sorts it there).
Each private name has a canary in tests/models/test_compat.py, which says what to do when a new release fails it.

The CUDA build of torchvision fails to import beside a CPU torch: it registers fake kernels for two operators that its
compiled library would declare. Declaring their schemas is enough for transforms and processors."""

import contextlib
import importlib.util
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CUT = "sdpa_with_cuts"  # how transformers knows attention some of whose keys are hidden
Hidden = Callable[[int, int, int], torch.Tensor]  # first query, queries, keys -> bool [rows, queries, keys]
_hidden: Mapping[torch.nn.Module, list[Hidden]] = weakref.WeakKeyDictionary()
_begun: Mapping[torch.nn.Module, int] = weakref.WeakKeyDictionary()  # queries of this pass that went before
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


def attention_with(model: "PreTrainedModel", cuts: Mapping[torch.nn.Module, Hidden]) -> Callable[[], None]:
    """Hides keys from queries in some attention modules until the function that it returns is called. A query to which
    all keys are hidden gets zeros."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(CUT, _attend)
    AttentionMaskInterface.register(CUT, eager_mask)
    before, undo = model.config._attn_implementation, contextlib.ExitStack()
    model.set_attn_implementation(CUT)
    undo.callback(model.set_attn_implementation, before)
    for module, hidden in cuts.items():
        _hidden.setdefault(module, []).append(hidden)
        undo.callback(_hidden[module].remove, hidden)
        undo.callback(module.register_forward_pre_hook(lambda module, _: _begun.update({module: 0})).remove)
    return undo.close


def _attend(module, query, key, value, attention_mask, **options):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not (cuts := _hidden.get(module)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    queries, keys, lowest = query.shape[2], key.shape[2], torch.finfo(query.dtype).min
    own = torch.stack([hidden(_begun[module], queries, keys) for hidden in cuts]).any(dim=0)[:, None].to(query.device)
    _begun[module] += queries
    mask = query.new_zeros(own.shape) if attention_mask is None else attention_mask[..., :keys]
    mask = mask.masked_fill(own, lowest)
    output, weights = sdpa_attention_forward(module, query, key, value, mask, **options)
    return output.masked_fill((mask == lowest).all(dim=-1).mT[..., None], 0.0), weights


declare_missing_operators()
