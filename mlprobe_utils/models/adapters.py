"""LoRA adapters on a loaded model: put on, removed, and checked against their base."""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlprobe_utils.models.compat

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import FILES, MADE_FROM, damage, read_record

if TYPE_CHECKING:
    from mlprobe_utils.models.loading import LoadedModel

CONFIGURATION, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HASHED = 64  # numbers of each parameter that a fingerprint is of


@contextlib.contextmanager
def adapter(loaded: "LoadedModel", folder: Path | None) -> Iterator[None]:
    """While it lasts, `loaded.model` works with the adapter in `folder` (None: as it was pretrained)."""
    if folder is None:
        yield
        return
    edits = loaded.family.interventions
    without_edits = edits.paused if edits else contextlib.nullcontext
    with flags_kept(loaded.model), without_edits():
        adapted = PeftModel.from_pretrained(loaded.model, folder).eval()
    try:
        yield
    finally:
        with without_edits():
            adapted.unload()


@contextlib.contextmanager
def flags_kept(model: torch.nn.Module) -> Iterator[None]:
    """Restores afterwards which of the model's own parameters require gradients: peft changes that of all."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def fingerprint(model: torch.nn.Module) -> str:
    """A hash (hex) of the first numbers of each parameter, independent of folder, device and precision."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:  # where a device map has put it out of reach
            first = parameter.detach().flatten()[:HASHED].bfloat16().cpu()
            digest.update(name.encode() + first.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def check_adapter(model: torch.nn.Module, folder: Path, base: str) -> None:
    """Raises InputError where a folder holds no adapter of this model; `base` is the model's hub id or folder."""
    if not ((folder / CONFIGURATION).is_file() and (folder / WEIGHTS).is_file()):
        raise InputError(f"{folder} has no adapter ({CONFIGURATION}, {WEIGHTS}): give one made by fine_tune or peft")
    record, files = folder / MADE_FROM, read_record(folder / FILES)  # of fine_tune
    try:
        named = json.loads((folder / CONFIGURATION).read_bytes()).get("base_model_name_or_path")
        of_another = record.is_file() and json.loads(record.read_bytes()).get("model") != fingerprint(model)
        with safe_open(folder / WEIGHTS, "pt") as opened:
            stored = {*opened.keys()}
        damaged = damage(folder, files) if files else ""
    except (ValueError, OSError, SafetensorError) as error:
        damaged = str(error)
    if damaged:
        raise InputError(f"the adapter in {folder} is damaged ({damaged}): train it again, or copy it again")
    wrong = f"the adapter in {folder} does not fit {base}: it was trained on {named or 'an unnamed base'}, load that"
    local = [n.count("/") != 1 or n.startswith(("/", ".", "~")) or Path(n).exists() for n in (named, base)]
    if of_another or (named != base and not any(local)):
        raise InputError(wrong)
    try:  # peft's errors about missing modules or other shapes have no common class
        with flags_kept(model), warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(model, folder)
    except Exception as error:
        raise InputError(f"{wrong} ({' '.join(str(error).split()):.200})") from error
    placed = {*get_peft_model_state_dict(adapted, save_embedding_layers=False)}
    adapted.unload()
    if lost := sorted({key for key in stored if ".lora_" in key} - placed | placed - stored):
        raise InputError(f"{wrong} ({lost[0]} has no place there)")
