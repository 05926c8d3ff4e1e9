"""Saves a Hulu-Med miniature in the form that the hub has it in, so that it is loaded as the real ones are."""

import json
import re
from pathlib import Path

import mlprobe_utils.models.compat

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, ProcessorMixin

from mlprobe_utils.models.families.hulu_med import IMAGE_TOKEN, NAMING_IT

NAMES = {
    r"^model\.vision_model\.": "model.vision_encoder.",
    r"^model\.projector\.": "model.mm_projector.",
    r"^model\.language_model\.": "model.",
}


def save_hulu_med(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Weights under the hub's names, the hub's flat configuration, tokenizer, image processor and chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hub_weights(model), folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", hub_config(model))
    model.generation_config.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    images = processor.image_processor
    pixels = images.patch_size**2
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "HulumedImageProcessor",
            "auto_map": {"AutoImageProcessor": "image_processing_hulumed.HulumedImageProcessor"},
            "image_mean": list(images.image_mean),
            "image_std": list(images.image_std),
            "patch_size": images.patch_size,
            "min_tokens": images.size["shortest_edge"] // pixels,
            "max_tokens": images.size["longest_edge"] // pixels,
        },
    )
    template = processor.chat_template.removeprefix(NAMING_IT).replace(IMAGE_TOKEN, "{{ image_token }}")
    _write(folder / "chat_template.json", {"chat_template": template})


def hub_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights by their names on the hub; a tied LM head is left out, as it is the embedding."""
    weights = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        for pattern, replacement in NAMES.items():
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor.contiguous()
    return weights


def hub_config(model: PreTrainedModel) -> dict:
    config, kind = model.config, model.config.text_config.model_type
    vision = config.vision_config.to_dict()
    return config.text_config.to_dict() | {
        "architectures": [f"Hulumed{kind.title()}ForCausalLM"],
        "model_type": f"hulumed_{kind}",
        "auto_map": {"AutoModelForCausalLM": f"modeling_hulumed_{kind}.Hulumed{kind.title()}ForCausalLM"},
        "vision_encoder_config": vision | {"model_type": "hulumed_vision_encoder"},
        "mm_projector_type": "mlp2x_gelu",
        "use_token_compression": True,
        "image_token_index": config.image_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
