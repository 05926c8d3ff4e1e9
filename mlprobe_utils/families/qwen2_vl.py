"""Qwen2-VL: packed vision tokens, a merger that makes one token of 2 x 2 patches."""

from typing import ClassVar

from mlprobe_utils.families.packed import Packed


class Qwen2VL(Packed):
    model_class: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    inputs: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
    )
    vision_tower: ClassVar[tuple[str, ...]] = ("model.visual.patch_embed", "model.visual.blocks")
    vision_blocks: ClassVar[str] = "model.visual.blocks"
    connector: ClassVar[tuple[str, ...]] = ("model.visual.merger",)
    connector_layers: ClassVar[tuple[str, ...]] = ("model.visual.merger.mlp.0", "model.visual.merger.mlp.2")

    def merged(self, inputs: dict) -> int:
        return self.model.config.vision_config.spatial_merge_size**2
