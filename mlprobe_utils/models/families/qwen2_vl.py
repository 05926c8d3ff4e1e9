"""Qwen2-VL: packed vision tokens, a merger that makes one token of 2 x 2 patches."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig, ProcessorMixin, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from mlprobe_utils.models.families.base import Packed

FORGOTTEN = '"Qwen2_5_VLImageProcessor"'  # what Qwen2.5-VL called Qwen2-VL's for some months of 2025


class Qwen2VL(Packed):
    model_class = "Qwen2VLForConditionalGeneration"
    inputs = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw")
    vision_tower = ("model.visual.patch_embed", "model.visual.blocks")
    vision_blocks = "model.visual.blocks"
    connector = ("model.visual.merger",)
    connector_layers = ("model.visual.merger.mlp.0", "model.visual.merger.mlp.2")

    def merged(self, inputs: dict) -> int:
        return self.model.config.vision_config.spatial_merge_size**2

    @classmethod
    def read_processor(cls, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
        published = folder / "preprocessor_config.json"
        if not (published.is_file() and FORGOTTEN in published.read_text(encoding="utf-8")):
            return super().read_processor(folder, config)
        processor = PROCESSOR_MAPPING[type(config)]
        around, _ = processor.get_processor_dict(folder)
        return processor(
            image_processor=Qwen2VLImageProcessor.from_pretrained(folder),
            tokenizer=AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
            video_processor=Qwen2VLVideoProcessor.from_pretrained(folder),
            chat_template=around.get("chat_template"),
        )
