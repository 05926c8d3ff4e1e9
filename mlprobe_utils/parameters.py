"""A chapter's parameters, checked before anything runs.

papermill only logs a parameter that a notebook does not declare, and injects values of any type. The first code cell
after the parameters calls `check_parameters(globals())`: declared are the annotated names of the parameters cell, and
any other name that has appeared in the notebook's namespace is an error.
"""

import types

from pydantic import TypeAdapter, ValidationError

from mlprobe_utils.cards import (
    DataCard,
    ModelCard,
    load_data_card,
    load_model_card,
    load_protocol,
    slugs,
)
from mlprobe_utils.datasets.manifest import SPLITS
from mlprobe_utils.errors import InputError, unknown
from mlprobe_utils.metrics import METRICS
from mlprobe_utils.results import Selection

_OF_JUPYTER = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(namespace: dict) -> dict:
    """The declared parameters and their values.

    Raises:
        InputError: a parameter that the chapter does not have, a value of the wrong type, an unknown slug or choice.
    """
    declared = dict(namespace.get("__annotations__", {}))
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _OF_JUPYTER and not isinstance(value, types.ModuleType)
    }
    for name, value in given.items():
        if name in declared:
            _check_type(name, value, declared[name])
        elif not callable(value):
            raise unknown("parameter", name, declared)
    values = {name: given[name] for name in declared}
    _check_choices(values)
    return values


def _check_type(name: str, value, annotation) -> None:
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        expected = getattr(annotation, "__name__", annotation) if "[" not in str(annotation) else annotation
        problem = error.errors()[0]
        raise InputError(f"parameter '{name}' must be {expected}: {problem['msg']} (found {value!r:.80})") from error


def _check_choices(values: dict) -> None:
    for slug in values.get("models", []):
        load_model_card(slug)
    for slug in values.get("datasets", []):
        load_data_card(slug)
    if "protocol" in values:
        load_protocol(values["protocol"])
    for name, choices in (("split", SPLITS), ("metric", METRICS)):
        if name in values and values[name] not in choices:
            raise unknown(name, values[name], choices)
    for name, card in (("models", ModelCard), ("datasets", DataCard)):
        if name in values and not values[name]:
            raise InputError(f"parameter '{name}' is empty: name at least one of {', '.join(slugs(card))}")
        if name in values and len(set(values[name])) < len(values[name]):
            raise InputError(f"parameter '{name}' names one twice: {values[name]}")


def selection(values: dict) -> Selection:
    """The results that checked parameters select."""
    return Selection(tuple(values["models"]), tuple(values["datasets"]), values["protocol"], values["split"])
