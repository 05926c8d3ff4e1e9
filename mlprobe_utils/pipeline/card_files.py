"""Reading a card's file: what is wrong with it is an error that names the file, the field and the mend."""

import difflib
import json
import re
import typing
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import relative

Card = typing.TypeVar("Card", bound=BaseModel)


class _OneKeyOnce(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, of which YAML itself keeps the last in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' is given twice (line {node.start_mark.line + 1} and below)")
        return super().construct_mapping(node, deep)


def parse_card(card_class: type[Card], path: Path) -> Card:
    """Reads and validates one card file.

    Raises:
        InputError: not YAML, an unknown or missing key, a wrong type, a value out of range.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OneKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{relative(path)} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{relative(path)} must hold keys and values, found {type(content).__name__}")
    if "slug" in content:
        raise InputError(f"{relative(path)}: remove the key 'slug', the file's name is the slug")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", path.stem):
        mend = "rename it to letters, digits, '.', '_' and '-': files and links have its name"
        raise InputError(f"{relative(path)}: {mend}")
    try:
        # JSON, so that a whole number is valid as a fraction, and text never as a number
        return card_class.model_validate_json(json.dumps({"slug": path.stem} | content, default=str))
    except ValidationError as error:
        problems = "; ".join(_problem(card_class, problem) for problem in error.errors())
        raise InputError(f"{relative(path)}: {problems}") from error


def _problem(card_class: type[BaseModel], problem: dict) -> str:
    """One validation problem in words: the field, what is wrong, the mend."""
    *parents, key = problem["loc"] or ("",)
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(card_class, parents)
        near = difflib.get_close_matches(str(key), fields, n=1)
        return f"unknown key '{place}'" + (f", did you mean '{near[0]}'?" if near else f"; known: {', '.join(fields)}")
    if problem["type"] == "missing":
        return f"the key '{place}' is missing: add it"
    return f"{place + ': ' if place else ''}{problem['msg']} (found {problem['input']!r:.80})"


def _fields_at(model: type[BaseModel], parents: list) -> list[str]:
    for part in parents:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            for candidate in (annotation, *typing.get_args(annotation)):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
    return [name for name in model.model_fields if name != "slug"]
