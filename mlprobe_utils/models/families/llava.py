"""LLaVA: a CLIP vision tower of which the connector reads an inner layer, without the CLS token."""

from functools import partial
from pathlib import Path

from transformers import LlavaImageProcessor, PreTrainedConfig, ProcessorMixin

from mlprobe_utils.models.families.base import Family, Splitter


class Llava(Family):
    model_class = "LlavaForConditionalGeneration"
    vision_tower = ("model.vision_tower",)
    vision_blocks = "model.vision_tower.encoder.layers"
    connector = ("model.multi_modal_projector",)
    connector_layers = ("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2")

    def blocks_read(self) -> int:
        """Up to the layer that the configuration names, or the last of several; -2: all blocks but one."""
        layers = self.model.config.vision_feature_layer
        states = 1 + super().blocks_read()  # the embeddings' is the first
        return max(layer % states for layer in ([layers] if isinstance(layers, int) else layers))

    def tokens_at(self, inputs: dict, part: str) -> Splitter:
        without_cls = part == "V" and self.model.config.vision_feature_select_strategy == "default"
        return partial(super().tokens_at(inputs, part), first=int(without_cls))

    @classmethod
    def read_processor(cls, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
        processor = super().read_processor(folder, config)
        # before transformers 4.46, only the model's configuration gave the number of an image's tokens
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1 if config.vision_config.model_type == "clip_vision_model" else 0
        return processor

    @classmethod
    def pad_to_square(cls, processor: ProcessorMixin) -> None:
        """With the mean colour, as LLaVA's authors do before the resizing; a CLIP processor cuts the sides off."""
        processor.image_processor = LlavaImageProcessor.from_dict(processor.image_processor.to_dict(), do_pad=True)
