"""Which checkpoint a card stands for. Torch is not imported, and the hub's client only where the hub is needed."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import RECORDS, file_hash, hash_of
from mlprobe_utils.models.settings import Checkpoint

SAFE = "weights are read from safetensors only, never from a pickle (pytorch_model.bin): save them as model.safetensors"
NOT_WEIGHTS = ("*.json", "*.jinja", "*.txt", "*.model")  # of a repository; of its code, nothing
# what saving a model anew may change
NOT_OF_THE_SHAPE = {"_name_or_path", "dtype", "is_local", "local_files_only", "name_or_path", "transformers_version"}
OF_USE = {"padding", "truncation"}  # in tokenizer.json, of the tokenizer's last call
POINTER = b"version https://git-lfs"
UNREACHABLE = "the hub cannot be reached, and its cache lacks this model. Offline, give a folder as source"


def identity_of(card: Checkpoint, hash_file: Callable[[Path], str] = file_hash) -> str:
    """The hub's resolved commit, or a hash of the files in the checkpoint's folder, by `hash_file`."""
    source = card.located()
    if not os.path.isdir(source):
        with errors_named(card):
            return _resolved(source, card.revision)
    return hash_of({path.name: hash_file(path) for path in _files(Path(source))})


def shape_of(card: Checkpoint) -> str:
    """A hash of all but the weights: configuration, tokenizer, how images are preprocessed."""

    def content(path: Path):
        if path.suffix != ".json":
            return file_hash(path)
        dropped = NOT_OF_THE_SHAPE | (OF_USE if path.name == "tokenizer.json" else set())
        kept = lambda block: {key: value for key, value in block.items() if key not in dropped}  # noqa: E731
        return json.loads(path.read_bytes(), object_hook=kept)

    folder = fetched(card, NOT_WEIGHTS)
    with errors_named(card):
        return hash_of({path.name: content(path) for path in _files(folder, NOT_WEIGHTS)})


def loading_fields(card: Checkpoint) -> dict:
    """The fields of a card that can change what its model computes."""
    fields = {"precision", "max_pixels", "attention", "chat_template", "system_prompt", "thought", "pad_to_square"}
    return card.model_dump(mode="json", include=fields, exclude_defaults=True)


@cache  # once a process, so that all files of a model are of one commit
def _resolved(source: str, revision: str | None) -> str:
    """The commit that a hub id stands for; without a connection, the last one known."""
    from huggingface_hub import HfApi

    return HfApi().resolve_revision(source, revision=revision).resolved


def fetched(card: Checkpoint, files: Sequence[str]) -> Path:
    """The folder with some files of a model (of a hub id: in the cache); InputError for a pointer of Git LFS."""
    source = card.located()
    if os.path.isdir(source):
        for path in _files(Path(source)):
            with path.open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    mend = "and not the file itself: run `git lfs pull` in its folder"
                    raise InputError(f"{card.called}: {path} is a pointer of Git LFS {mend}")
        return Path(source)
    from huggingface_hub import snapshot_download

    with errors_named(card):
        commit = _resolved(source, card.revision)
        return Path(snapshot_download(source, revision=commit, allow_patterns=list(files), ignore_patterns="*/*"))


def missing_files(card: Checkpoint, files: Sequence[str]) -> list[str]:
    """Which of some files a checkpoint lacks, on the hub or in its folder."""
    folder, source = fetched(card, NOT_WEIGHTS), card.located()
    missing = [name for name in files if not (folder / name).is_file()]
    if missing and not os.path.isdir(source):
        from huggingface_hub import HfApi

        with errors_named(card):
            listed = HfApi().list_repo_files(source, revision=_resolved(source, card.revision))
        missing = [name for name in missing if name not in listed]
    return missing


def _files(folder: Path, patterns: Sequence[str] = ("*.safetensors", *NOT_WEIGHTS)) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in RECORDS)


@contextlib.contextmanager
def errors_named(card: Checkpoint, file: str = "") -> Iterator[None]:
    """Turns errors in reading a card's source, or a file of it, into InputError with the card's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{card.called}: {error}") from error
    except Exception as error:  # what transformers and the hub's client raise at a wrong file has no common class
        place = f"{file} of {card.source!r}" if file else repr(card.source)
        raise InputError(f"{card.called}: cannot read {place}: {_in_words(card, error)}") from error


def _in_words(card: Checkpoint, error: Exception) -> str:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{card.source}"
    gate = errors.RepositoryNotFoundError if card.gated else errors.GatedRepoError  # to some the hub denies to have it
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for kind, words in (
        (errors.RevisionNotFoundError, f"it has no revision {card.revision!r}: give a branch, tag or commit of {page}"),
        (gate, f"it is gated: accept its terms at {page}, then `hf auth login`"),
        (errors.RepositoryNotFoundError, f"there is no {page}: correct the source, or `hf auth login` if private"),
        ((errors.RevisionResolutionError, errors.LocalEntryNotFoundError), UNREACHABLE),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return words
    message = " ".join(str(error).split())
    return SAFE if "file named model.safetensors" in message else f"{type(error).__name__}: {message}"
