"""Counts models' parameters, of models built without weights, and sets Table S1's beside them."""

import argparse
import functools
from collections import Counter
from typing import NamedTuple

import pandas as pd
import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families import family_named
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.pipeline.published import published, published_config, short


class Counts(NamedTuple):
    model_class: str  # of transformers
    parameters: dict[str, int]  # part -> how many; the LM head has 0 where it shares the embeddings
    points: dict[str, int]  # letter of a module -> how many

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


@functools.cache  # many models share an architecture
def count(architecture: str) -> Counts:
    """Counts parameters by part, tied embeddings once, and probe points by module, of a model on torch's `meta` device.
    Raises InputError as `published_config`, and for a class that no family knows."""
    published = published_config(architecture)
    kind = family_named(published.get("architectures", []))
    with torch.device("meta"):
        family = kind(kind.transformers_class()(kind.config_of(published)))
    parts, model = family.parts(), family.model
    head = {*model.get_output_embeddings().parameters()} - {*model.get_input_embeddings().parameters()}
    parameters = dict.fromkeys([*parts, "LM head"], 0)
    for name, parameter in model.named_parameters():  # shared ones come once
        within = [part for part, paths in parts.items() if any(f"{name}.".startswith(f"{path}.") for path in paths)]
        if len(within) != 1:
            raise RuntimeError(f"{name} of {family.model_class} is in {within or 'no part'}: mend its family")
        parameters["LM head" if parameter in head else within[0]] += parameter.numel()
    return Counts(family.model_class, parameters, Counter(point.name[0] for point in family.probe_points()))


def table(cards: list[ModelCard]) -> pd.DataFrame:
    """A row a card: parameters by part and in all, those of Table S1 and whether they are equal, probe points. Raises
    InputError for a card without an architecture, and as `count`."""
    printed, rows = published().set_index("model")["parameters"], []
    for card in cards:
        if card.architecture is None:
            raise InputError(f"data/models/{card.slug}.yml: add `architecture`, a file in data/architectures, to count")
        counted, known = count(card.architecture), printed.get(card.name, "")
        row = {"model": card.name, "class": counted.model_class}
        row |= {part: f"{number:,}" for part, number in counted.parameters.items()}
        equal = {True: "yes", False: "NO"}[short(counted.total) == known] if known else ""
        points = ", ".join(f"{module} {number}" for module, number in counted.points.items())
        rows.append(row | {"total": f"{counted.total:,}", "Table S1": known, "equal": equal, "probe points": points})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slugs", nargs="*", metavar="SLUG", help="a model card; none: all that name an architecture")
    given = parser.parse_args(arguments).slugs
    cards = [load_model_card(slug) for slug in given or slugs(ModelCard)]
    print(table([card for card in cards if given or card.architecture]).to_string(index=False))


if __name__ == "__main__":
    main()
