"""Loading a model by its card: the same code for the hub's models, a user's folder and the miniatures."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import dispatch_model, infer_auto_device_map
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.registry import family_named, name_of
from mlprobe_utils.models.identity import NOT_WEIGHTS, SAFE, fetched, reading
from mlprobe_utils.models.memory import check_memory
from mlprobe_utils.models.settings import RANDOM_SEED, Checkpoint

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class _Checkpoint:
    """What a card's model is, and the folder that its configuration, processor and tokenizer are in."""

    folder: Path
    family: type[Family]
    config: PreTrainedConfig


@dataclass
class LoadedModel:
    """A model ready to be fine-tuned or probed."""

    model: torch.nn.Module
    processor: ProcessorMixin
    family: Family

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(card: Checkpoint, precision: str = "float32") -> LoadedModel:
    """Loads model and processor on this process's accelerator (CPU where there is none), or as the device map says.

    Args:
        precision: of the weights, where the card says none.

    Raises:
        InputError: a source that cannot be read, a class no family knows, a family other than the card asserts, an
            image token that the model has no embedding for, more weights than there is memory, weights that do not
            fit the class (the keys are listed).
    """
    found = _checkpoint(card)
    processor, precision, device_map = _checked(card, found, precision)
    model_class = found.family.transformers_class()
    with reading(card):
        files = _weight_files(found.folder)
    folder = fetched(card, files)
    with reading(card):
        model, report = model_class.from_pretrained(
            folder,
            config=found.config,
            key_mapping=found.family.key_mapping_of(found.config),
            dtype=getattr(torch, precision),
            device_map=device_map,
            attn_implementation=card.attention,  # None: not what config.json may say, but as transformers chooses
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the others
        )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := {kind: sorted(report[kind]) for kind in kinds if report[kind]}:
        raise InputError(f"the checkpoint of '{card.slug}' does not fit {type(model).__name__}: {wrong}")
    if found.family.key_mapping_of(found.config):
        model._weight_conversions = []  # saved under the hub's names again, the weights would be read as neither
    return _ready(model if device_map else model.to(processes().device), processor, found)


def load_random(card: Checkpoint, precision: str = "float32") -> LoadedModel:
    """A model of the same shape with random weights, as its class begins with them; every time the same.

    A matrix that its class leaves at zero (Gemma 3's projection) is drawn too: nothing of the image would get through.

    Args: as of `load`.

    Raises:
        InputError: as `load`, but for what it says of the weights.
    """
    found = _checkpoint(card)
    processor, precision, device_map = _checked(card, found, precision)
    with reading(card), torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        model = found.family.transformers_class()._from_config(
            found.config, dtype=getattr(torch, precision), attn_implementation=card.attention
        )
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=found.config.get_text_config().initializer_range)
    if device_map:
        model = dispatch_model(model, infer_auto_device_map(model, no_split_module_classes=model._no_split_modules))
    else:
        model = model.to(processes().device)
    return _ready(model, processor, found)


def _checked(card: Checkpoint, found: _Checkpoint, precision: str) -> tuple[ProcessorMixin, str, str | None]:
    """Processor, precision and device map of a model that is about to be made; it has a place and embeds images."""
    processor = _processor(card, found)
    # each of several processes has a device of its own, and FSDP spreads what is too large for one
    device_map = card.device_map if processes().num_processes == 1 else None
    precision = card.precision or precision
    with reading(card), torch.device("meta"):
        empty = found.family.transformers_class()._from_config(found.config, attn_implementation=card.attention)
    _check_image_token(card, empty, processor)
    check_memory(card, sum(parameter.numel() for parameter in empty.parameters()), precision, bool(device_map))
    return processor, precision, device_map


def _ready(model: PreTrainedModel, processor: ProcessorMixin, found: _Checkpoint) -> LoadedModel:
    # some classes name layers that they do not hold, which FSDP would look for
    model._no_split_modules &= {type(module).__name__ for module in model.modules()}
    return LoadedModel(model.eval(), processor, found.family(model))


def to_device(inputs: dict, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The inputs where the model is, floating-point ones in its precision."""
    return {
        key: value.to(loaded.device, loaded.model.dtype if value.is_floating_point() else None)
        for key, value in inputs.items()
    }


def load_processor(card: Checkpoint) -> ProcessorMixin:
    """The model's own processor, with what the card says of chat template and pixels.

    Raises:
        InputError: it cannot be read, there is no chat template, or a pixel cap that the family has no use for.
    """
    return _processor(card, _checkpoint(card))


def _processor(card: Checkpoint, found: _Checkpoint) -> ProcessorMixin:
    with reading(card):
        processor = found.family.read_processor(found.folder, found.config)
        if not isinstance(processor, ProcessorMixin):
            raise InputError(f"{card.source!r} says nothing of images: it has no preprocessor_config.json")
        if card.max_pixels is not None:
            found.family.cap_pixels(processor, card.max_pixels)
    template = card.chat_template or processor.chat_template or processor.tokenizer.chat_template
    if template is None:
        raise InputError(f"'{card.slug}' ships no chat template: give its card one as chat_template (jinja)")
    processor.chat_template = template
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # nothing attends to it
    return processor


def _checkpoint(card: Checkpoint) -> _Checkpoint:
    folder = fetched(card, NOT_WEIGHTS)
    with reading(card):
        if (folder / "adapter_config.json").is_file():  # transformers would get its base from another repository
            raise InputError(
                f"{card.source!r} has an adapter (adapter_config.json): merge it into the model and save that"
            )
        published, _ = PreTrainedConfig.get_config_dict(folder)
        if not published:
            raise InputError(f"{card.source!r} has no config.json")
        if "safetensors" not in published.get("transformers_weights", "safetensors"):
            raise InputError(f"config.json of {card.source!r} names a pickle as transformers_weights: {SAFE}")
        family = family_named(published.get("architectures") or [])
        if card.family is not None and card.family != name_of(family):
            raise InputError(
                f"family is {card.family!r}, but the class is {published['architectures'][0]}, of the family "
                f"{name_of(family)!r}"
            )
    with reading(card, "config.json"):
        return _Checkpoint(folder, family, family.config_of(published))


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    return sorted({*json.loads(index.read_text())["weight_map"].values()}) if index.is_file() else ["model.safetensors"]


def _check_image_token(card: Checkpoint, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Some classes would embed an id out of range as whatever lies there, or take no token for an image's."""
    token, rows = model.config.image_token_id, model.get_input_embeddings().num_embeddings
    if not 0 <= token < rows:
        raise InputError(
            f"'{card.slug}': the image token's id in config.json is {token}, but the model has embeddings for 0 to "
            f"{rows - 1} only"
        )
    if processor.image_token_ids != [token]:
        raise InputError(
            f"'{card.slug}': the image token's id is {token} in config.json, but {processor.image_token_ids} in the "
            f"processor: one of the two is of another checkpoint"
        )
