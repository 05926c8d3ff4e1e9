"""Families: the one place that knows an architecture. One small file a family; which one a checkpoint belongs to is
decided by the class that it names, never by its own name."""

from collections.abc import Sequence

import mlprobe_utils.models.compat

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.gemma3 import Gemma3
from mlprobe_utils.models.families.hulu_med import HuluMed
from mlprobe_utils.models.families.llava import Llava
from mlprobe_utils.models.families.qwen2_5_vl import Qwen2_5_VL
from mlprobe_utils.models.families.qwen2_vl import Qwen2VL
from mlprobe_utils.models.families.qwen3_vl import Qwen3VL


def name_of(family: type[Family]) -> str:
    """As model cards assert it: the name of the family's module."""
    return family.__module__.rsplit(".", 1)[-1]


FAMILIES = {name_of(family): family for family in (Qwen2VL, Qwen2_5_VL, Llava, HuluMed, Gemma3, Qwen3VL)}


def family_named(architectures: Sequence[str]) -> type[Family]:
    """The family of the class that a config.json names as `architectures`; InputError where no family has it."""
    for family in FAMILIES.values():
        if {family.model_class, *family.hosted} & set(architectures):
            return family
    known = ", ".join(name for family in FAMILIES.values() for name in (family.model_class, *family.hosted))
    wrong = f"no family for models of class {', '.join(architectures) or '(none named)'}"
    raise InputError(f"{wrong}. Known classes: {known}. Add one in mlprobe_utils/models/families/.")


def family_of(model) -> Family:
    return family_named([type(model).__name__])(model)
