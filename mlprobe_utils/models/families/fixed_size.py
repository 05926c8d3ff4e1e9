"""Families whose vision tower reads every image at one size: [images, tokens, width] throughout."""

import torch
from transformers import ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.pooling import Pooler


class FixedSize(Family):
    inputs = ("input_ids", "attention_mask", "pixel_values")

    def tokens_left_out(self) -> int:
        """Tokens at the start of a vision block's output that the connector does not read."""
        return 0

    def vision_pooler(self, inputs: dict) -> Pooler:
        return self._means(inputs, self.tokens_left_out())

    def connector_pooler(self, inputs: dict) -> Pooler:
        return self._means(inputs, 0)

    def vision_places(self, inputs: dict) -> list[slice | int]:
        return list(range(len(inputs["pixel_values"])))

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        raise InputError(f"models of class {cls.model_class} read every image at one size: remove max_pixels")

    @staticmethod
    def _means(inputs: dict, first: int) -> Pooler:
        """Means of the tokens from `first` on; the pooler raises RuntimeError for another shape."""
        images = len(inputs["input_ids"])

        def means(output: torch.Tensor) -> torch.Tensor:
            if output.ndim != 3 or output.shape[0] != images:
                raise RuntimeError(f"expected [{images}, tokens, width], got {list(output.shape)}")
            return output[:, first:].mean(dim=1, dtype=torch.float32)

        return means
