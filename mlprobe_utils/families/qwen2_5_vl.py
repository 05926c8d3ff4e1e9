"""Qwen2.5-VL: packed vision tokens, permuted by windows inside each image (means are unaffected), 2 x 2 merger."""

from typing import ClassVar

import torch
from torch import nn

from mlprobe_utils.families.base import Family


class Qwen2_5_VL(Family):
    model_class: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    vision_tower_pattern: ClassVar[str] = r".*visual\.(patch_embed|blocks)\..*"
    inputs: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
    )

    def vision_blocks(self) -> list[nn.Module]:
        return list(self.model.model.visual.blocks)

    def connector_layers(self) -> list[nn.Module]:
        mlp = self.model.model.visual.merger.mlp
        return [mlp[0], mlp[2]]  # by place: once LoRA wraps them they are no nn.Linear any more

    def decoder_layers(self) -> list[nn.Module]:
        return list(self.model.model.language_model.layers)

    def image_lengths(self, inputs: dict, module: str) -> torch.Tensor:
        patches = inputs["image_grid_thw"].prod(dim=-1)
        return patches if module == "V" else patches // self.model.config.vision_config.spatial_merge_size**2
