"""What validated blocks of settings share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Words = Annotated[str, Field(min_length=1)]
Precision = Literal["float32", "bfloat16"]


class Part(BaseModel):
    """A block of settings: unknown keys refused, types exact, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
