"""Loading a model by its card: the same code for the hub's models, a user's folder and the miniatures."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin
from transformers.utils import logging

from mlprobe_utils import artefacts
from mlprobe_utils.cards import ModelCard
from mlprobe_utils.errors import InputError
from mlprobe_utils.families.base import Family
from mlprobe_utils.families.registry import family_of
from mlprobe_utils.processes import processes

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass
class LoadedModel:
    """A model ready to be fine-tuned or probed."""

    model: torch.nn.Module
    processor: ProcessorMixin
    family: Family

    @property
    def device(self) -> torch.device:
        return self.model.device


def source_of(card: ModelCard) -> str:
    """The folder of a local model, as an absolute path, or the hub id.

    Raises:
        InputError: the card names a folder that does not exist.
    """
    if card.made_by:
        folder = artefacts.OUTPUTS / card.source
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} is not there: make it with `python -m {card.made_by} {card.slug}`")
        return str(folder)
    folder = (artefacts.ROOT / Path(card.source).expanduser()).resolve()
    if folder.is_dir():
        return str(folder)
    if card.source.startswith((".", "/", "~")) or card.source.count("/") != 1:
        raise InputError(
            f"model card '{card.slug}': source {card.source!r} is neither a folder nor a hub id (owner/name)"
        )
    return card.source


def identity_of(card: ModelCard) -> str:
    """What the weights of a model are: the hub's resolved commit, or a fingerprint of the folder. Loads nothing.

    Raises:
        InputError: the folder does not exist, or the hub cannot be reached and holds nothing of it in its cache.
    """
    source = source_of(card)
    if not os.path.isdir(source):
        return _commit_of(card, source)
    if (Path(source) / "made_from.json").is_file():
        return artefacts.record_hash(Path(source))
    files = sorted(path for path in Path(source).rglob("*") if path.is_file())
    return artefacts.hash_of([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def _commit_of(card: ModelCard, source: str) -> str:
    """The commit that a hub id stands for; without a connection that of the cached copy, which would be loaded."""
    try:
        return HfApi().model_info(source, revision=card.revision).sha
    except Exception as error:  # the hub's client has no common class for all that a connection can do
        cached = try_to_load_from_cache(source, "config.json", revision=card.revision)
        if isinstance(cached, str):
            return Path(cached).parent.name  # .../snapshots/<commit>/config.json
        raise _unreadable(card, source, error) from error


def load(card: ModelCard, precision: str = "float32") -> LoadedModel:
    """Loads model and processor on this process's accelerator (CPU where there is none).

    Raises:
        InputError: a source that cannot be read, weights that do not fit the class (the keys are listed), a class no
            family knows, a family other than the card asserts.
    """
    source = source_of(card)
    model, report = _weights(card, source, precision)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := {kind: sorted(report[kind]) for kind in kinds if report[kind]}:
        raise InputError(f"the checkpoint of '{card.slug}' does not fit {type(model).__name__}: {wrong}")
    family = family_of(model)
    if card.family is not None and card.family != type(family).__module__.rsplit(".", 1)[-1]:
        raise InputError(
            f"model card '{card.slug}': family is {card.family!r}, but the class is {type(model).__name__}"
        )
    return LoadedModel(model.to(processes().device).eval(), load_processor(card), family)


def to_device(inputs: dict, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The inputs where the model is, floating-point ones in its precision."""
    return {
        key: value.to(loaded.device, loaded.model.dtype if value.is_floating_point() else None)
        for key, value in inputs.items()
    }


def load_processor(card: ModelCard) -> ProcessorMixin:
    """The model's own processor.

    Raises:
        InputError: it cannot be read, or ships no chat template.
    """
    source = source_of(card)
    try:
        processor = AutoProcessor.from_pretrained(source, revision=card.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(card, source, error) from error
    if processor.chat_template is None:
        raise InputError(f"'{card.slug}' ships no chat template: save one as chat_template.jinja beside its processor")
    return processor


def _weights(card: ModelCard, source: str, precision: str):
    try:
        return AutoModelForImageTextToText.from_pretrained(
            source,
            revision=card.revision,
            dtype=getattr(torch, precision),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the others, see load()
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(card, source, error) from error


def _unreadable(card: ModelCard, source: str, error: Exception) -> InputError:
    mend = "Gated models need `hf auth login` and their terms accepted; offline, give a folder as source."
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"model card '{card.slug}': cannot read {source!r} ({reason}). {'' if os.path.isdir(source) else mend}".rstrip()
    )
