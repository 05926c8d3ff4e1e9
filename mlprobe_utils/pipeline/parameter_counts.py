"""Counts models' parameters, of models built without weights, and compares them with Table S1 (`parameters`)."""

import functools

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.loading import Counts, count_of
from mlprobe_utils.pipeline.cards import ModelCard
from mlprobe_utils.pipeline.published import published, published_config, short


@functools.cache  # many models share an architecture
def count(architecture: str) -> Counts:
    """Raises InputError as `published_config`, and for a class that no family knows."""
    return count_of(published_config(architecture))


def table(cards: list[ModelCard]) -> pd.DataFrame:
    """A row a card: parameters by part and in all, those of Table S1 and whether they are equal, probe points.

    Raises InputError for a card without an architecture, and as `count`.
    """
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
