"""Probe a multimodal LLM on images of your own, in any notebook.

A name is imported when it is first used. Importing the package imports nothing else and changes nothing in the process.
"""

import sys
from importlib import import_module

_PLACES = {
    "load": "models.loading",
    "Question": "evaluation.question",
    "image_folder": "datasets.own_images",
    "image_list": "datasets.own_images",
    "extract": "probing.extraction",
    "capture": "probing.extraction",
    "intervene": "probing.interventions",
    "edits": "probing.edits",  # the module
    "probe": "probing.probes",
    "accuracy": "evaluation.own_rows",
    "answer": "training.prediction",
    "fine_tune": "training.fine_tuning",
    "health": "evaluation.own_rows",
    "diagnose": "evaluation.own_rows",
    "plot": "plots.charts",
    "explore": "plots.explorer",
}
__all__ = [*_PLACES]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if sys.flags.optimize > 1:
        from mlprobe_utils.common.errors import InputError

        raise InputError("transformers and altair need docstrings: start Python with -O, PYTHONOPTIMIZE=1, or neither")
    module = import_module(f"{__name__}.{_PLACES[name]}")
    globals()[name] = getattr(module, name, module)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
