"""Loading a model, the same way from the hub, a folder or a miniature."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlprobe_utils.models.compat import initialised, quiet, save_under_own_names, whole_layers

import torch
from accelerate import dispatch_model, infer_auto_device_map
from transformers import PreTrainedConfig, ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.settings import settings
from mlprobe_utils.models.adapters import check_adapter
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.families import family_named, name_of
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.identity import NOT_WEIGHTS, SAFE, errors_named, fetched, missing_files
from mlprobe_utils.models.settings import RANDOM_SEED, UNNAMED, Checkpoint


class _Checkpoint(NamedTuple):
    folder: Path  # of all but the weights
    family: type[Family]
    config: PreTrainedConfig
    processor: ProcessorMixin


@dataclass
class LoadedModel:
    """A model ready to be fine-tuned or probed. Functions of this package put on the adapter in its folder while they
    work, so that several share the weights of `model`. `card` says how it is prompted and how it answers."""

    model: torch.nn.Module
    processor: ProcessorMixin
    family: Family
    adapter: Path | None = None
    card: Checkpoint = UNNAMED

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(
    source: str | Path | Checkpoint, precision: str = "float32", *, adapter: str | Path | None = None, **fields
) -> LoadedModel:
    """Loads model and processor on this process's accelerator (the CPU if there is none), or as the device map says.

    >>> import mlprobe_utils as mp
    >>> model = mp.load(checkpoint)  # a folder, or a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct"

    Args:
        source: hub id or folder; or a card, which sets all of the following except `adapter`.
        precision: of the weights, `float32` or `bfloat16`; a card's own takes precedence.
        adapter: folder of a LoRA adapter from `fine_tune` or peft; `model.model` stays the base.
        fields: of `models.settings.Checkpoint`: revision, device_map (`auto`, `balanced` or `sequential`), attention
            (`eager`, `sdpa` or `flash_attention_2`), max_pixels, pad_to_square, chat_template (jinja), system_prompt,
            thought (the marks that open and close one), max_new_tokens (of an answer), and family (asserts it).

    InputError for a source that cannot be read, a class of no family, a model without a vision part, a family other
    than asserted, an image token that the model has no embedding for, more weights than there is memory, weights that
    do not fit the class (the keys are listed), an adapter of another base, and an unknown field."""
    card = source
    if not isinstance(source, Checkpoint):
        own = {"slug": str(source), "source": str(source), "precision": precision}
        card = settings(Checkpoint, "load", own | fields)
    found, precision, device_map = _checked(card, precision)
    folder = fetched(card, _weight_files(card, found.folder))
    names, safe = found.family.key_mapping or None, {"use_safetensors": True, "trust_remote_code": False}
    with errors_named(card), quiet():
        model, report = found.family.transformers_class().from_pretrained(
            folder,
            config=found.config,
            key_mapping=names,
            dtype=getattr(torch, precision),
            device_map=device_map,
            attn_implementation=card.attention,  # None: not what config.json may say, but as transformers chooses
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the others
            **safe,
        )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := {kind: sorted(report[kind]) for kind in kinds if report[kind]}:
        raise InputError(f"the checkpoint of '{card.slug}' does not fit {type(model).__name__}: {wrong}")
    if names:  # with the hub's names and a config.json of transformers, it could not be read again
        save_under_own_names(model)
    whole_layers(model)
    model = model if device_map else model.to(processes().device)
    if adapter is not None:
        check_adapter(model, adapter := Path(adapter), card.source)
    return LoadedModel(model.eval(), found.processor, found.family(model), adapter, card)


def look_at(card: Checkpoint) -> None:
    """Raises InputError for a model that could not be loaded, as far as no weight has to be read to know it."""
    found = _checkpoint(card)
    _parameters(card, found)
    if missing := missing_files(card, _weight_files(card, found.folder)):
        raise InputError(f"{card.called}: {card.source!r} has no {missing[0]}: {SAFE}, or complete the checkpoint")


def load_random(card: Checkpoint, precision: str = "float32") -> LoadedModel:
    """A model of the same shape with reproducible random weights, as its class draws them."""
    found, precision, device_map = _checked(card, precision)
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        options = {"dtype": getattr(torch, precision), "attn_implementation": card.attention}
        model = initialised(found.family.transformers_class(), found.config, **options)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():  # Gemma 3's projection: no image would get through
                torch.nn.init.normal_(parameter, std=found.config.get_text_config().initializer_range)
    whole = whole_layers(model)
    if device_map:
        model = dispatch_model(model, infer_auto_device_map(model, no_split_module_classes=whole))
    else:
        model = model.to(processes().device)
    return LoadedModel(model.eval(), found.processor, found.family(model), card=card)


def _checked(card: Checkpoint, precision: str) -> tuple[_Checkpoint, str, str | None]:
    """A checkpoint that fits into memory, with precision and device map."""
    found, precision = _checkpoint(card), card.precision or precision
    # each of several processes has a device of its own, and FSDP spreads what is too large for one
    device_map = card.device_map if processes().num_processes == 1 else None
    check_memory(card, _parameters(card, found), precision, bool(device_map))
    return found, precision, device_map


def _parameters(card: Checkpoint, found: _Checkpoint) -> int:
    """How many the model has; InputError where it lacks an embedding for a special token that is used."""
    with errors_named(card), quiet(), torch.device("meta"):
        model = initialised(found.family.transformers_class(), found.config, attn_implementation=card.attention)
    # some classes would embed an id out of range as whatever lies there, or take no token for an image's
    token, rows = model.config.image_token_id, model.get_input_embeddings().num_embeddings
    tokenizer, there = found.processor.tokenizer, f"but the model has embeddings for 0 to {rows - 1} only"
    if not 0 <= token < rows:
        raise InputError(f"'{card.slug}': the image token's id in config.json is {token}, {there}")
    if (other := found.processor.image_token_ids) != [token]:
        wrong = f"the image token's id is {token} in config.json, but {other} in the processor"
        raise InputError(f"'{card.slug}': {wrong}: they are from different checkpoints")
    used = {"pad": tokenizer.pad_token_id, "begin": tokenizer.bos_token_id, "end": tokenizer.eos_token_id}
    used["end-of-turn"] = Encoder(found.processor, "<image> Which?", card=card).end
    for name, own in used.items():
        if own is not None and own >= rows:
            wrong = f"the {name} token of the tokenizer, {tokenizer.convert_ids_to_tokens(own)!r}, has the id {own}"
            raise InputError(f"'{card.slug}': {wrong}, {there}: use tokenizer and weights of one checkpoint")
    return model.num_parameters()


def check_memory(card: Checkpoint, parameters: int, precision: str, spread: bool) -> None:
    """Raises InputError for weights beyond the memory of the device, or (`spread`) of all devices and the machine."""
    machine, devices = memory()
    if spread:
        place, there = "all devices of this machine and its memory together have", sum(devices) + machine
    elif devices:
        place, there = "the device has", devices[processes().device.index or 0]
    else:
        place, there = "this machine has", machine
    needed = parameters * getattr(torch, precision).itemsize
    could_spread = devices and not spread and processes().num_processes == 1
    mends = {
        "`device_map: auto`, which spreads it over all devices and the machine's memory": could_spread,
        "`precision: bfloat16`, half as much": precision != "bfloat16",
        "a larger machine": True,
    }
    if needed > there:
        sizes = f"{needed / 2**30:.1f} GiB in {precision}, and {place} {there / 2**30:.1f} GiB"
        mend = ", or ".join(mend for mend, helps in mends.items() if helps)
        raise InputError(f"{card.called}: its weights alone need {sizes}. Take {mend}")


def memory() -> tuple[int, list[int]]:
    """Bytes of the machine's own memory, and of each of its accelerators."""
    devices = [torch.accelerator.get_memory_info(index)[1] for index in range(torch.accelerator.device_count())]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), devices


def to_device(inputs: dict, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The inputs where the model is, floating-point ones in its precision."""
    own = loaded.model.dtype
    return {key: value.to(loaded.device, own if value.is_floating_point() else None) for key, value in inputs.items()}


def load_processor(card: Checkpoint) -> ProcessorMixin:
    """The model's own processor, with the card's chat template and pixels; InputError as `load`."""
    return _checkpoint(card).processor


def _checkpoint(card: Checkpoint) -> _Checkpoint:
    folder = fetched(card, NOT_WEIGHTS)
    with errors_named(card), quiet():
        if (folder / "adapter_config.json").is_file():  # transformers would get its base from another repository
            mend = "load its base with this folder as `adapter`, or merge it into the model and save that"
            raise InputError(f"{card.source!r} has an adapter (adapter_config.json): {mend}")
        published, _ = PreTrainedConfig.get_config_dict(folder)
        if not published:
            raise InputError(f"{card.source!r} has no config.json")
        if quantised := published.get("quantization_config"):
            how = quantised.get("quant_method", "a method it does not name")
            mend = "give the checkpoint as it was before (`precision: bfloat16` and `device_map: auto` save memory)"
            raise InputError(f"{card.source!r} is quantised ({how}), which changes the states that are probed: {mend}")
        if "safetensors" not in published.get("transformers_weights", "safetensors"):
            raise InputError(f"config.json of {card.source!r} names a pickle as transformers_weights: {SAFE}")
        try:
            family = family_named(published.get("architectures") or [])
        except InputError:
            if any("vision" in field and isinstance(value, dict | str) for field, value in published.items()):
                raise
            raise InputError("it has no vision part (config.json has none): use a vision-language model") from None
        if card.family not in (None, name_of(family)):
            its = f"{published['architectures'][0]}, of the family {name_of(family)!r}"
            raise InputError(f"family is {card.family!r}, but the class is {its}")
    with errors_named(card, "config.json"), quiet():
        config = family.config_of(published)
    with errors_named(card), quiet():
        processor = family.read_processor(folder, config)
        if not isinstance(processor, ProcessorMixin):
            raise InputError(f"{card.source!r} has no preprocessor_config.json, and so no image processor")
        if card.max_pixels is not None:
            family.cap_pixels(processor, card.max_pixels)
        if card.pad_to_square:
            family.pad_to_square(processor)
    tokenizer = processor.tokenizer
    processor.chat_template = card.chat_template or processor.chat_template or tokenizer.chat_template
    if processor.chat_template is None:
        raise InputError(f"'{card.slug}' ships no chat template: give one as chat_template (jinja)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # nothing attends to it
    return _Checkpoint(folder, family, config, processor)


def _weight_files(card: Checkpoint, folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        if shards := sorted(path.name for path in folder.glob("model-*-of-*.safetensors")):
            wrong = f"{card.source!r} has {shards[0]}, but no {index.name}"
            raise InputError(f"{card.called}: {wrong}: copy that file, too")
        return ["model.safetensors"]
    with errors_named(card):
        return sorted({*json.loads(index.read_text())["weight_map"].values()})
