"""Hulu-Med: its weights in transformers' own VideoLlama3 classes, so that the hub's remote code never runs. Loads the
hub's form (`hosted`: flat text fields, names of its own) and that of transformers. Unlike in the hub's code, images
keep their proportions and do not attend to each other."""

import inspect
from pathlib import Path
from typing import ClassVar

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.modeling_utils import slice_logits_to_keep

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.base import Packed

IMAGE_TOKEN = "<image>"
NAMING_IT = f"{{%- set image_token = '{IMAGE_TOKEN}' -%}}"  # the hub's template leaves that to the hub's processor
CONNECTOR = "mlp2x_gelu"
OF_THE_WHOLE = ("architectures", "auto_map", "model_type", "image_token_index", "vision_encoder_config")


class VideoLlama3ForConditionalGeneration(transformers.VideoLlama3ForConditionalGeneration):
    """transformers' class, which would pass over `logits_to_keep` and compute the logits of every image token. It has
    the same name, as a checkpoint that is saved from it names its class in config.json."""

    def forward(self, *inputs, logits_to_keep: int | torch.Tensor = 0, **named):
        kept = lambda _, states: slice_logits_to_keep(states[0], logits_to_keep)  # noqa: E731
        wanted = self.lm_head.register_forward_pre_hook(kept)
        try:
            return super().forward(*inputs, **named)
        finally:
            wanted.remove()

    # `generate` reads off the names here what it may hand over
    *_names, _rest = inspect.signature(transformers.VideoLlama3ForConditionalGeneration.forward).parameters.values()
    _wanted = inspect.Parameter("logits_to_keep", inspect.Parameter.KEYWORD_ONLY, default=0)
    forward.__signature__ = inspect.Signature([*_names, _wanted, _rest])


class HuluMed(Packed):
    model_class = "VideoLlama3ForConditionalGeneration"
    hosted = ("HulumedQwen2ForCausalLM", "HulumedQwen3ForCausalLM")
    key_mapping: ClassVar[dict[str, str]] = {
        r"^model\.vision_encoder\.": "model.vision_model.",
        r"^model\.mm_projector\.": "model.projector.",
        r"^model\.(layers|norm|embed_tokens)\.": r"model.language_model.\1.",
    }
    inputs = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "image_merge_sizes")
    vision_tower = ("model.vision_model",)
    vision_blocks = "model.vision_model.encoder.layers"
    connector = ("model.projector",)
    connector_layers = ("model.projector.readout.0", "model.projector.readout.2")

    def merged(self, inputs: dict) -> torch.Tensor:
        return inputs["image_merge_sizes"] ** 2

    @classmethod
    def transformers_class(cls) -> type[PreTrainedModel]:
        return VideoLlama3ForConditionalGeneration

    @classmethod
    def config_of(cls, published: dict) -> PreTrainedConfig:
        if cls.model_class in published["architectures"]:
            return super().config_of(published)
        if (connector := published.get("mm_projector_type", CONNECTOR)) != CONNECTOR:
            raise InputError(f"config.json: mm_projector_type is {connector!r}, only {CONNECTOR!r} is known")
        names = ("model_type", "vision_encoder_config", "image_token_index")
        kind, tower, token = _fields("config.json", published, *names)
        text = {key: value for key, value in published.items() if key not in OF_THE_WHOLE}
        return transformers.VideoLlama3Config(
            architectures=published["architectures"],
            text_config=text | {"model_type": kind.removeprefix("hulumed_")},
            vision_config={key: value for key, value in tower.items() if key not in OF_THE_WHOLE},
            image_token_id=token,
            tie_word_embeddings=published.get("tie_word_embeddings", False),
        )

    @classmethod
    def read_processor(cls, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
        if cls.model_class in config.architectures:
            return super().read_processor(folder, config)
        images, _ = transformers.BaseImageProcessor.get_image_processor_dict(folder)
        names = ("image_mean", "image_std", "patch_size", "min_tokens", "max_tokens")
        mean, deviation, patch, fewest, most = _fields("preprocessor_config.json", images, *names)
        size = {"shortest_edge": fewest * patch**2, "longest_edge": most * patch**2}
        ours = {"image_mean": mean, "image_std": deviation, "patch_size": patch, "size": size}
        own = {"trust_remote_code": False, "extra_special_tokens": {"image_token": IMAGE_TOKEN}}
        tokenizer = AutoTokenizer.from_pretrained(folder, **own)
        around, _ = transformers.VideoLlama3Processor.get_processor_dict(folder)
        template = around.get("chat_template") or tokenizer.chat_template
        return transformers.VideoLlama3Processor(  # merges no patches of an image, nor does the hub's
            image_processor=transformers.VideoLlama3ImageProcessor(**ours),
            tokenizer=tokenizer,
            video_processor=transformers.VideoLlama3VideoProcessor(**ours),
            chat_template=template and NAMING_IT + template,
        )


def _fields(file: str, content: dict, *names: str) -> list:
    """The values of fields; InputError for a missing one, for which the hub's classes have other defaults."""
    if missing := [name for name in names if content.get(name) is None]:
        raise InputError(f"{file}: {', '.join(missing)} is missing: take the file anew from the checkpoint's source")
    return [content[name] for name in names]
