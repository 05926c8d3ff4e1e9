"""What validated blocks of settings share, and their values in the protocol that travels with the package."""

import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlprobe_utils.common.errors import InputError, unknown

SHIPPED = Path(__file__).parents[1] / "shipped"  # what of data/ is in the wheel
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PercentagePoints = Annotated[float, Field(gt=0, le=100)]
Words = Annotated[str, Field(min_length=1)]
Precision = Literal["float32", "bfloat16"]


class Part(BaseModel):
    """A block of settings: unknown keys refused, types exact, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Health(Part):
    penalty: Annotated[float, Field(gt=0)] = Field(description="lambda of equation 2")


OfKind = TypeVar("OfKind", bound=Part)


def paper(kind: type[OfKind], block: str, /, **changed) -> OfKind:
    """A block of the protocol `paper`, but for the fields that are changed. Raises InputError as `settings`."""
    protocol = yaml.safe_load((SHIPPED / "protocols" / "paper.yml").read_text(encoding="utf-8"))
    return settings(kind, block, protocol[block] | changed)


def settings(kind: type[OfKind], what: str, content: dict) -> OfKind:
    """A block of settings of these fields. Raises InputError for a field that it has not, or a value out of range."""
    for name in content:
        if name not in kind.model_fields:
            raise unknown(f"argument of {what}", name, kind.model_fields)
    try:
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise InputError(f"{what}: {place}: {problem['msg']} (found {problem['input']!r:.80})") from error
