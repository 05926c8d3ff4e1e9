"""Families whose vision tower reads every image at one size: [images, tokens, width] throughout."""

from typing import ClassVar

from transformers import ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.base import Family, Pooler
from mlprobe_utils.models.families.pooling import row_means


class FixedSize(Family):
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "pixel_values")

    def tokens_left_out(self) -> int:
        """Tokens at the start of a vision block's output that the connector does not read."""
        return 0

    def vision_pooler(self, inputs: dict) -> Pooler:
        images, first = len(inputs["input_ids"]), self.tokens_left_out()
        return lambda output: row_means(output, images, first)

    def connector_pooler(self, inputs: dict) -> Pooler:
        images = len(inputs["input_ids"])
        return lambda output: row_means(output, images)

    def vision_places(self, inputs: dict) -> list[slice | int]:
        return list(range(len(inputs["pixel_values"])))

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        raise InputError(f"models of class {cls.model_class} read every image at one size: remove max_pixels")
