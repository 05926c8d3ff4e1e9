"""Which family a loaded model belongs to: decided by the model's class, never by its name."""

from torch import nn

from mlprobe_utils.errors import InputError
from mlprobe_utils.families.base import Family
from mlprobe_utils.families.qwen2_5_vl import Qwen2_5_VL

FAMILIES: tuple[type[Family], ...] = (Qwen2_5_VL,)


def family_of(model: nn.Module) -> Family:
    """The family of a model.

    Raises:
        InputError: no family knows this class; the message lists what was found and what is known.
    """
    for family in FAMILIES:
        if type(model).__name__ == family.model_class:
            return family(model)
    children = ", ".join(name for name, _ in model.named_children())
    known = ", ".join(family.model_class for family in FAMILIES)
    raise InputError(
        f"no family for models of class {type(model).__name__} (its parts: {children}). Known classes: {known}. "
        f"Add one in mlprobe_utils/families/."
    )
