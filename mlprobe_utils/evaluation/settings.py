"""Settings of health scores."""

from typing import Annotated

from pydantic import Field

from mlprobe_utils.common.settings import Part


class Health(Part):
    penalty: Annotated[float, Field(gt=0)] = Field(description="lambda of equation 2")
