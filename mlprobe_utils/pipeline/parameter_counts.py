"""`python -m mlprobe_utils parameters [SLUG ...]`: counts models' parameters and sets Table S1's beside them.

A shape is a file in data/architectures. Models are built without their weights, which takes seconds and no memory.
"""

import functools
import json
from collections import Counter
from dataclasses import dataclass

import pandas as pd
import torch

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.registry import family_named
from mlprobe_utils.pipeline.cards import CARDS, ModelCard
from mlprobe_utils.pipeline.published import published, short

ARCHITECTURES = CARDS / "architectures"
HEAD = "LM head"


@dataclass(frozen=True)
class Counts:
    """What an architecture consists of."""

    model_class: str  # of transformers
    parameters: dict[str, int]  # part -> how many; the LM head is 0 where it is the embeddings once more
    points: dict[str, int]  # module's letter, as points are named -> how many

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def published_config(architecture: str) -> dict:
    """A shape as the hub's config.json has it, by the name of its file.

    Raises:
        InputError: no such file, or not JSON.
    """
    known = [path.stem for path in ARCHITECTURES.glob("*.json")]
    if architecture not in known:
        raise unknown("architecture", architecture, known, "A shape of your own goes to data/architectures/.")
    try:
        return json.loads((ARCHITECTURES / f"{architecture}.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"data/architectures/{architecture}.json is not valid JSON: {error}") from error


def without_weights(architecture: str) -> Family:
    """A model of full size on torch's `meta` device, where tensors have a shape and no values.

    Raises:
        InputError: as `published_config`; a class that no family knows.
    """
    config = published_config(architecture)
    family = family_named(config.get("architectures", []))
    with torch.device("meta"):
        return family(family.transformers_class()(family.config_of(config)))


@functools.cache  # many models share a shape
def count(architecture: str) -> Counts:
    """Counts parameters by part, tied embeddings once, and probe points by module.

    Raises:
        InputError: as `without_weights`.
        RuntimeError: a parameter that is in no part of its family, or in several.
    """
    family = without_weights(architecture)
    parts = family.parts()
    head = {id(parameter) for parameter in family.model.get_output_embeddings().parameters()}
    head -= {id(parameter) for parameter in family.model.get_input_embeddings().parameters()}
    parameters = dict.fromkeys([*parts, HEAD], 0)
    for name, parameter in family.model.named_parameters():  # shared ones come once
        within = [part for part, paths in parts.items() if any(f"{name}.".startswith(f"{path}.") for path in paths)]
        if len(within) != 1:
            raise RuntimeError(f"{name} of {family.model_class} is in {within or 'no part'}: mend its family")
        parameters[HEAD if id(parameter) in head else within[0]] += parameter.numel()
    points = Counter(point.name[0] for point in family.probe_points())
    return Counts(family.model_class, parameters, dict(points))


def table(cards: list[ModelCard]) -> pd.DataFrame:
    """A row a card: parameters by part and in all, what Table S1 prints and whether it is the same, probe points.

    Raises:
        InputError: a card without an architecture; as `without_weights`.
    """
    printed = published().set_index("model")["parameters"]
    rows = []
    for card in cards:
        if card.architecture is None:
            raise InputError(f"data/models/{card.slug}.yml: add `architecture`, a file in data/architectures, to count")
        counted = count(card.architecture)
        row = {"model": card.name, "class": counted.model_class}
        row |= {part: f"{number:,}" for part, number in counted.parameters.items()}
        row |= {"total": f"{counted.total:,}", "Table S1": "", "equal": ""}
        if card.name in printed:
            row["Table S1"] = printed[card.name]
            row["equal"] = "yes" if short(counted.total) == printed[card.name] else "NO"
        row["probe points"] = ", ".join(f"{module} {number}" for module, number in counted.points.items())
        rows.append(row)
    return pd.DataFrame(rows)
