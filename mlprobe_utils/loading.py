"""Loading a model by its card: the same code for the hub's models, a user's folder and the miniatures."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from mlprobe_utils import artefacts
from mlprobe_utils.cards import ModelCard
from mlprobe_utils.errors import InputError
from mlprobe_utils.families.base import Family
from mlprobe_utils.families.registry import family_named, name_of
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


@cache
def _commit_of(card: ModelCard, source: str) -> str:
    """The commit that a hub id stands for; without a connection that of the cached copy, which would be loaded.

    Looked up once a process, so that all its files are of one commit.
    """
    try:
        return HfApi().model_info(source, revision=card.revision).sha
    except Exception as error:  # the hub's client has no common class for all that a connection can do
        cached = try_to_load_from_cache(source, "config.json", revision=card.revision)
        if isinstance(cached, str):
            return Path(cached).parent.name  # .../snapshots/<commit>/config.json
        raise _unreadable(card, source, error) from error


def reading_of(card: ModelCard) -> dict:
    """What a card says of how its model is read, as far as it can change a result: part of what results are made of."""
    return card.model_dump(include={"precision", "max_pixels", "attention", "chat_template"}, exclude_none=True)


def load(card: ModelCard, precision: str = "float32") -> LoadedModel:
    """Loads model and processor on this process's accelerator (CPU where there is none), or as the device map says.

    Args:
        precision: of the weights, where the card says none.

    Raises:
        InputError: a source that cannot be read, a class no family knows, a family other than the card asserts, weights
            that do not fit the class (the keys are listed), an image token that the model has no embedding for.
    """
    source, revision = _place(card)
    published = _published(card, source, revision)
    family = _family(card, published)
    model, report = _weights(card, family, published, precision)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := {kind: sorted(report[kind]) for kind in kinds if report[kind]}:
        raise InputError(f"the checkpoint of '{card.slug}' does not fit {type(model).__name__}: {wrong}")
    processor = load_processor(card)
    _check_image_token(card, model, processor)
    if card.device_map is None:
        model = model.to(processes().device)
    return LoadedModel(model.eval(), processor, family(model))


def to_device(inputs: dict, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The inputs where the model is, floating-point ones in its precision."""
    return {
        key: value.to(loaded.device, loaded.model.dtype if value.is_floating_point() else None)
        for key, value in inputs.items()
    }


def load_processor(card: ModelCard) -> ProcessorMixin:
    """The model's own processor, with what the card says of chat template and pixels.

    Raises:
        InputError: it cannot be read, there is no chat template, or a pixel cap that the family has no use for.
    """
    source, revision = _place(card)
    family = _family(card, _published(card, source, revision))
    try:
        processor = family.read_processor(source, revision)
    except (OSError, ValueError) as error:
        raise _unreadable(card, source, error) from error
    template = card.chat_template or processor.chat_template or processor.tokenizer.chat_template
    if template is None:
        raise InputError(f"'{card.slug}' ships no chat template: give its card one as chat_template (jinja)")
    processor.chat_template = template
    if card.max_pixels is not None:
        family.cap_pixels(processor, card.max_pixels)
    return processor


def _place(card: ModelCard) -> tuple[str, str | None]:
    """Folder and None, or hub id and commit."""
    source = source_of(card)
    return source, None if os.path.isdir(source) else _commit_of(card, source)


def _published(card: ModelCard, source: str, revision: str | None) -> dict:
    """The content of the checkpoint's config.json."""
    try:
        published, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except (OSError, ValueError) as error:
        raise _unreadable(card, source, error) from error
    return published


def _family(card: ModelCard, published: dict) -> type[Family]:
    try:
        family = family_named(published.get("architectures") or [])
    except InputError as error:
        raise InputError(f"model card '{card.slug}': {error}") from error
    if card.family is not None and card.family != name_of(family):
        raise InputError(
            f"model card '{card.slug}': family is {card.family!r}, but the class is {published['architectures'][0]}, "
            f"of the family {name_of(family)!r}"
        )
    return family


def _weights(card: ModelCard, family: type[Family], published: dict, precision: str) -> tuple[PreTrainedModel, dict]:
    source, revision = _place(card)
    try:
        return family.transformers_class().from_pretrained(
            source,
            config=family.config_of(published),
            revision=revision,
            key_mapping=family.key_mapping_of(published),
            dtype=getattr(torch, card.precision or precision),
            device_map=card.device_map,
            attn_implementation=card.attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed with the others, see load()
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise _unreadable(card, source, error) from error


def _check_image_token(card: ModelCard, model: PreTrainedModel, processor: ProcessorMixin) -> None:
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


def _unreadable(card: ModelCard, source: str, error: Exception) -> InputError:
    local = os.path.isdir(source)
    if not local and (card.gated or _of_kind(error, GatedRepoError)):
        mend = f"It is gated: accept its terms at https://huggingface.co/{source}, then `hf auth login`."
    else:
        mend = "" if local else "Offline, give a folder as source; a private repository needs `hf auth login`."
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"model card '{card.slug}': cannot read {source!r} ({reason}). {mend}".rstrip())


def _of_kind(error: BaseException | None, kind: type) -> bool:
    """Whether an error is of a kind, or was caused by one that is."""
    return error is not None and (isinstance(error, kind) or _of_kind(error.__cause__ or error.__context__, kind))
