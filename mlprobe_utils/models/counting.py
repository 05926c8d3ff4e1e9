"""Parameters and probe points of an architecture, counted without its weights: no memory, seconds."""

from collections import Counter
from typing import NamedTuple

import mlprobe_utils.models.compat

import torch

from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.registry import family_named

HEAD = "LM head"


class Counts(NamedTuple):
    model_class: str  # of transformers
    parameters: dict[str, int]  # part -> how many; the LM head has 0 where it shares the embeddings
    points: dict[str, int]  # letter of a module -> how many

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def without_weights(published: dict) -> Family:
    """A model of full size on torch's `meta` device, from the content of the hub's config.json."""
    family = family_named(published.get("architectures", []))
    with torch.device("meta"):
        return family(family.transformers_class()(family.config_of(published)))


def count_of(published: dict) -> Counts:
    """Counts parameters by part, tied embeddings once, and probe points by module; InputError for an unknown class."""
    family = without_weights(published)
    parts = family.parts()
    head = {*family.model.get_output_embeddings().parameters()} - {*family.model.get_input_embeddings().parameters()}
    parameters = dict.fromkeys([*parts, HEAD], 0)
    for name, parameter in family.model.named_parameters():  # shared ones come once
        within = [part for part, paths in parts.items() if any(f"{name}.".startswith(f"{path}.") for path in paths)]
        if len(within) != 1:
            raise RuntimeError(f"{name} of {family.model_class} is in {within or 'no part'}: mend its family")
        parameters[HEAD if parameter in head else within[0]] += parameter.numel()
    return Counts(family.model_class, parameters, Counter(point.name[0] for point in family.probe_points()))
