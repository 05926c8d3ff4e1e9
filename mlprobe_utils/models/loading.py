"""Loading a model: the same code for the hub's models, a user's folder and the miniatures."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlprobe_utils.models.compat import initialised, quiet, save_under_own_names, whole_layers

import torch
from accelerate import dispatch_model, infer_auto_device_map
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.settings import settings
from mlprobe_utils.models.adapters import check_adapter
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.registry import family_named, name_of
from mlprobe_utils.models.identity import NOT_WEIGHTS, SAFE, fetched, missing_of, reading
from mlprobe_utils.models.settings import RANDOM_SEED, Checkpoint


@dataclass(frozen=True)
class _Checkpoint:
    """What a card's model is, and the folder of its configuration, processor and tokenizer."""

    folder: Path
    family: type[Family]
    config: PreTrainedConfig


@dataclass
class LoadedModel:
    """A model ready to be fine-tuned or probed.

    `adapter` is the folder of one that the functions of this package put on while they work: models of several
    adapters share the weights of `model`, which stays as it was.
    """

    model: torch.nn.Module
    processor: ProcessorMixin
    family: Family
    adapter: Path | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(
    source: str | Path | Checkpoint,
    precision: str = "float32",
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    device_map: str | None = None,
    attention: str | None = None,
    max_pixels: int | None = None,
    chat_template: str | None = None,
    family: str | None = None,
) -> LoadedModel:
    """Loads model and processor on this process's accelerator (CPU where there is none), or as the device map says.

    >>> import mlprobe_utils as mp
    >>> model = mp.load(checkpoint)  # a folder, or a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct"

    Args:
        source: hub id or folder; or a card, which says by itself what follows but for `adapter`.
        precision: of the weights, `float32` or `bfloat16`; also of a card that says none.
        adapter: folder of a LoRA adapter that `fine_tune` or peft has left. The functions of the package put it on
            while they work; `model.model` stays the base.
        revision: branch, tag or commit of the hub's repository.
        device_map: `auto`, `balanced` or `sequential`: how the weights are spread over the machine's devices.
        attention: `eager`, `sdpa` or `flash_attention_2`; without it, as transformers chooses.
        max_pixels: of an image as the model reads it; larger ones are reduced.
        chat_template: in place of the checkpoint's own (jinja).
        family: only needed to assert it: the model's class decides.

    Raises:
        InputError: a source that cannot be read, a class no family knows, a model without a vision part, a family other
            than asserted, an image token that the model has no embedding for, more weights than there is memory,
            weights that do not fit the class (the keys are listed), an adapter of another base.
    """
    card = source
    if not isinstance(source, Checkpoint):
        read = {"revision": revision, "device_map": device_map, "attention": attention, "max_pixels": max_pixels}
        read |= {"chat_template": chat_template, "family": family, "precision": precision}
        card = settings(Checkpoint, "load", {"slug": str(source), "source": str(source)} | read)
    found = _checkpoint(card)
    processor, precision, device_map = _checked(card, found, precision)
    hosted = found.family.is_hosted(found.config.architectures)
    with _reading(card):
        files = _weight_files(found.folder)
    folder = fetched(card, files)
    with _reading(card):
        model, report = found.family.transformers_class().from_pretrained(
            folder,
            config=found.config,
            key_mapping=found.family.key_mapping if hosted else None,
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
    if hosted:  # saved under the hub's names with a config.json of transformers, it could not be read again
        save_under_own_names(model)
    whole_layers(model)
    model = model if device_map else model.to(processes().device)
    if adapter is not None:
        check_adapter(model, adapter := Path(adapter), card.source)
    return LoadedModel(model.eval(), processor, found.family(model), adapter)


def look_at(card: Checkpoint) -> None:
    """Checks a model without loading it: configuration, class, tokenizer, image token, and that no file is missing.

    Raises:
        InputError: as `load`, as far as no weight has to be read for it; a file of weights that is not there.
    """
    found = _checkpoint(card)
    _empty(card, found, _processor(card, found))
    with _reading(card):
        if missing := missing_of(card, _weight_files(found.folder)):
            raise InputError(f"{card.source!r} has no {missing[0]}: {SAFE}, or complete the checkpoint")


def load_random(card: Checkpoint, precision: str = "float32") -> LoadedModel:
    """A model of the same shape with random weights, as its class initialises them; every time the same.

    A matrix that its class leaves at zero (Gemma 3's projection) is drawn too: nothing of the image would get through.

    Raises:
        InputError: as `load`, but for what it says of the weights.
    """
    found = _checkpoint(card)
    processor, precision, device_map = _checked(card, found, precision)
    with _reading(card), torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        options = {"dtype": getattr(torch, precision), "attn_implementation": card.attention}
        model = initialised(found.family.transformers_class(), found.config, **options)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=found.config.get_text_config().initializer_range)
    whole = whole_layers(model)
    if device_map:
        model = dispatch_model(model, infer_auto_device_map(model, no_split_module_classes=whole))
    else:
        model = model.to(processes().device)
    return LoadedModel(model.eval(), processor, found.family(model))


def _checked(card: Checkpoint, found: _Checkpoint, precision: str) -> tuple[ProcessorMixin, str, str | None]:
    """Processor, precision and device map of a model about to be loaded, which has memory for it and embeds images."""
    processor, precision = _processor(card, found), card.precision or precision
    # each of several processes has a device of its own, and FSDP spreads what is too large for one
    device_map = card.device_map if processes().num_processes == 1 else None
    parameters = sum(parameter.numel() for parameter in _empty(card, found, processor).parameters())
    check_memory(card, parameters, precision, bool(device_map))
    return processor, precision, device_map


def _empty(card: Checkpoint, found: _Checkpoint, processor: ProcessorMixin) -> PreTrainedModel:
    """The model without weights, on the device `meta`; its image token is that of the processor."""
    with _reading(card), torch.device("meta"):
        model = initialised(found.family.transformers_class(), found.config, attn_implementation=card.attention)
    # some classes would embed an id out of range as whatever lies there, or take no token for an image's
    token, rows = model.config.image_token_id, model.get_input_embeddings().num_embeddings
    if not 0 <= token < rows:
        there = f"but the model has embeddings for 0 to {rows - 1} only"
        raise InputError(f"'{card.slug}': the image token's id in config.json is {token}, {there}")
    if (other := processor.image_token_ids) != [token]:
        there = f"but {other} in the processor: one of the two is of another checkpoint"
        raise InputError(f"'{card.slug}': the image token's id is {token} in config.json, {there}")
    return model


def check_memory(card: Checkpoint, parameters: int, precision: str, spread: bool) -> None:
    """Raises InputError for weights that need more than this process's device has; where they are `spread` by a device
    map, more than all devices of the machine and its own memory together."""
    devices = accelerators()
    if spread:
        place, there = "all devices of this machine and its memory together have", sum(devices) + machine()
    elif devices:
        place, there = "the device has", devices[processes().device.index or 0]
    else:
        place, there = "this machine has", machine()
    needed = parameters * getattr(torch, precision).itemsize
    if needed <= there:
        return
    mends = ["a larger machine"]
    if precision != "bfloat16":
        mends.insert(0, "`precision: bfloat16`, half as much")
    if devices and not spread and processes().num_processes == 1:
        mends.insert(0, "`device_map: auto`, which spreads it over all devices and the machine's memory")
    raise InputError(
        f"{card.called}: its weights alone need {needed / 2**30:.1f} GiB in {precision}, and {place} "
        f"{there / 2**30:.1f} GiB. Take {', or '.join(mends)}"
    )


def accelerators() -> list[int]:
    """The memory of each accelerator of this machine, in bytes."""
    return [torch.accelerator.get_memory_info(index)[1] for index in range(torch.accelerator.device_count())]


def machine() -> int:
    """The machine's own memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def to_device(inputs: dict, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The inputs where the model is, floating-point ones in its precision."""
    own = loaded.model.dtype
    return {key: value.to(loaded.device, own if value.is_floating_point() else None) for key, value in inputs.items()}


def load_processor(card: Checkpoint) -> ProcessorMixin:
    """The model's own processor, with what the card says of chat template and pixels.

    Raises:
        InputError: it cannot be read, there is no chat template, or a pixel cap that the family has no use for.
    """
    return _processor(card, _checkpoint(card))


def _processor(card: Checkpoint, found: _Checkpoint) -> ProcessorMixin:
    with _reading(card):
        processor = found.family.read_processor(found.folder, found.config)
        if not isinstance(processor, ProcessorMixin):
            raise InputError(f"{card.source!r} says nothing of images: it has no preprocessor_config.json")
        if card.max_pixels is not None:
            found.family.cap_pixels(processor, card.max_pixels)
    template = card.chat_template or processor.chat_template or processor.tokenizer.chat_template
    if template is None:
        raise InputError(f"'{card.slug}' ships no chat template: give one as chat_template (jinja)")
    processor.chat_template = template
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # nothing attends to it
    return processor


def _checkpoint(card: Checkpoint) -> _Checkpoint:
    folder = fetched(card, NOT_WEIGHTS)
    with _reading(card):
        if (folder / "adapter_config.json").is_file():  # transformers would get its base from another repository
            raise InputError(
                f"{card.source!r} has an adapter (adapter_config.json): load its base with this folder as `adapter`, "
                "or merge it into the model and save that"
            )
        published, _ = PreTrainedConfig.get_config_dict(folder)
        if not published:
            raise InputError(f"{card.source!r} has no config.json")
        if "safetensors" not in published.get("transformers_weights", "safetensors"):
            raise InputError(f"config.json of {card.source!r} names a pickle as transformers_weights: {SAFE}")
        try:
            family = family_named(published.get("architectures") or [])
        except InputError:
            if any("vision" in field and isinstance(value, dict | str) for field, value in published.items()):
                raise
            raise InputError("it has no vision part (config.json has none): take a model of images") from None
        if card.family is not None and card.family != name_of(family):
            its = f"{published['architectures'][0]}, of the family {name_of(family)!r}"
            raise InputError(f"family is {card.family!r}, but the class is {its}")
    with _reading(card, "config.json"):
        return _Checkpoint(folder, family, family.config_of(published))


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    return sorted({*json.loads(index.read_text())["weight_map"].values()}) if index.is_file() else ["model.safetensors"]


@contextlib.contextmanager
def _reading(card: Checkpoint, file: str = "") -> Iterator[None]:
    """As `identity.reading`, and transformers is quiet."""
    with reading(card, file), quiet():
        yield
