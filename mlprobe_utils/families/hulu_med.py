"""Hulu-Med: its weights in transformers' own VideoLlama3 classes, so that the hub's remote code never runs.

Read from a checkpoint in the hub's form (classes HulumedQwen2ForCausalLM and HulumedQwen3ForCausalLM, flat text fields,
names of its own) or in that of transformers. Images are resized as they are, not to transposed proportions, and do not
attend to each other, both unlike in the hub's code.
"""

import inspect
from typing import ClassVar

import torch
from transformers import (
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)
from transformers.modeling_utils import slice_logits_to_keep

from mlprobe_utils.errors import InputError
from mlprobe_utils.families.packed import Packed

IMAGE_TOKEN = "<image>"
NAMING_IT = f"{{%- set image_token = '{IMAGE_TOKEN}' -%}}"  # the hub's template leaves that to the hub's processor
CONNECTOR = "mlp2x_gelu"
OF_THE_WHOLE = ("architectures", "auto_map", "model_type", "image_token_index", "vision_encoder_config")


class HuluMedForConditionalGeneration(VideoLlama3ForConditionalGeneration):
    """VideoLlama3's class, which would pass over `logits_to_keep` and compute the logits of every image token."""

    def forward(self, *inputs, logits_to_keep: int | torch.Tensor = 0, **named):
        wanted = self.lm_head.register_forward_pre_hook(
            lambda _, states: slice_logits_to_keep(states[0], logits_to_keep)
        )
        try:
            return super().forward(*inputs, **named)
        finally:
            wanted.remove()

    # `generate` reads off the names here what it may hand over
    *_names, _rest = inspect.signature(VideoLlama3ForConditionalGeneration.forward).parameters.values()
    _wanted = inspect.Parameter("logits_to_keep", inspect.Parameter.KEYWORD_ONLY, default=0)
    forward.__signature__ = inspect.Signature([*_names, _wanted, _rest])


class HuluMed(Packed):
    model_class: ClassVar[str] = "VideoLlama3ForConditionalGeneration"
    hosted: ClassVar[tuple[str, ...]] = ("HulumedQwen2ForCausalLM", "HulumedQwen3ForCausalLM")
    key_mapping: ClassVar[dict[str, str]] = {
        r"^model\.vision_encoder\.": "model.vision_model.",
        r"^model\.mm_projector\.": "model.projector.",
        r"^model\.(layers|norm|embed_tokens)\.": r"model.language_model.\1.",
    }
    inputs: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "pixel_values",
        "image_grid_thw",
        "image_merge_sizes",
    )
    vision_tower: ClassVar[tuple[str, ...]] = ("model.vision_model",)
    vision_blocks: ClassVar[str] = "model.vision_model.encoder.layers"
    connector: ClassVar[tuple[str, ...]] = ("model.projector",)
    connector_layers: ClassVar[tuple[str, ...]] = ("model.projector.readout.0", "model.projector.readout.2")

    def merged(self, inputs: dict) -> torch.Tensor:
        return inputs["image_merge_sizes"] ** 2

    @classmethod
    def transformers_class(cls) -> type[PreTrainedModel]:
        return HuluMedForConditionalGeneration

    @classmethod
    def config_of(cls, published: dict) -> PreTrainedConfig:
        """Raises InputError: a connector other than that of VideoLlama3."""
        if not set(published["architectures"]) & set(cls.hosted):
            return super().config_of(published)
        if (connector := published.get("mm_projector_type", CONNECTOR)) != CONNECTOR:
            raise InputError(f"mm_projector_type is {connector!r} in config.json: only {CONNECTOR!r} is known")
        text = {key: value for key, value in published.items() if key not in OF_THE_WHOLE}
        vision = {k: v for k, v in published["vision_encoder_config"].items() if k not in OF_THE_WHOLE}
        return VideoLlama3Config(
            text_config=text | {"model_type": published["model_type"].removeprefix("hulumed_")},
            vision_config=vision,
            image_token_id=published["image_token_index"],
            tie_word_embeddings=published.get("tie_word_embeddings", False),
        )

    @classmethod
    def read_processor(cls, source: str, revision: str | None) -> ProcessorMixin:
        images, _ = BaseImageProcessor.get_image_processor_dict(source, revision=revision)
        if "max_tokens" not in images:
            return super().read_processor(source, revision)
        pixels = images["patch_size"] ** 2
        ours = {key: images[key] for key in ("image_mean", "image_std", "patch_size") if key in images}
        ours["size"] = {"shortest_edge": images["min_tokens"] * pixels, "longest_edge": images["max_tokens"] * pixels}
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False, extra_special_tokens={"image_token": IMAGE_TOKEN}
        )
        around, _ = VideoLlama3Processor.get_processor_dict(source, revision=revision)
        template = around.get("chat_template") or tokenizer.chat_template
        return VideoLlama3Processor(
            image_processor=VideoLlama3ImageProcessor(**ours),  # it merges no patches of an image, nor does the hub's
            tokenizer=tokenizer,
            video_processor=VideoLlama3VideoProcessor(**ours),
            chat_template=template and NAMING_IT + template,
        )
