"""Which checkpoint a card stands for: its files, found on the hub or in a folder, and what they are known by.

Nothing is loaded, and torch is not imported; the hub's client, a third of a second, only where the hub is needed.
"""

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
OF_USE = {"padding", "truncation"}  # of tokenizer.json: how the tokenizer was last called
UNREACHABLE = "the hub cannot be reached, and its cache lacks this model. Offline, give a folder as source"


def identity_of(card: Checkpoint, hash_file: Callable[[Path], str] = file_hash) -> str:
    """What a checkpoint is known by: the hub's resolved commit, or a hash of the files in its folder, by `hash_file`.

    Raises:
        InputError: the folder does not exist, or the hub cannot be reached and its cache holds nothing of it.
    """
    source = card.located()
    if not os.path.isdir(source):
        return commit_of(card, source)
    return hash_of({path.name: hash_file(path) for path in _files(Path(source), ("*.safetensors", *NOT_WEIGHTS))})


def shape_of(card: Checkpoint) -> str:
    """A hash of all but the weights: configuration, tokenizer, how images are read. Raises InputError as `fetched`."""

    def content(path: Path):
        if path.suffix != ".json":
            return file_hash(path)
        dropped = NOT_OF_THE_SHAPE | (OF_USE if path.name == "tokenizer.json" else set())
        kept = lambda block: {key: value for key, value in block.items() if key not in dropped}  # noqa: E731
        return json.loads(path.read_bytes(), object_hook=kept)

    folder = fetched(card, NOT_WEIGHTS)
    with reading(card):
        return hash_of({path.name: content(path) for path in _files(folder, NOT_WEIGHTS)})


def reading_of(card: Checkpoint) -> dict:
    """What a card says of how its model is read, as far as it can change a result."""
    return card.model_dump(include={"precision", "max_pixels", "attention", "chat_template"}, exclude_none=True)


def commit_of(card: Checkpoint, source: str) -> str:
    """The commit that a hub id stands for; without a connection, the one that it stood for when there was one last."""
    with reading(card):
        return _resolved(source, card.revision)


@cache  # once a process, so that all files of a model are of one commit
def _resolved(source: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return HfApi().resolve_revision(source, revision=revision).resolved


def fetched(card: Checkpoint, files: Sequence[str]) -> Path:
    """The folder that some files of a model are in: of a hub id, its commit's in the cache, all from one commit."""
    source = card.located()
    if os.path.isdir(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    commit = commit_of(card, source)
    with reading(card):
        return Path(snapshot_download(source, revision=commit, allow_patterns=list(files), ignore_patterns="*/*"))


def missing_of(card: Checkpoint, files: Sequence[str]) -> list[str]:
    """Which of some files a checkpoint lacks, whether or not they have been fetched. Raises InputError."""
    folder = fetched(card, NOT_WEIGHTS)
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing or os.path.isdir(card.located()):
        return missing
    from huggingface_hub import HfApi

    with reading(card):
        listed = HfApi().list_repo_files(card.located(), revision=commit_of(card, card.located()))
    return [name for name in missing if name not in listed]


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in RECORDS)


@contextlib.contextmanager
def reading(card: Checkpoint, file: str = "") -> Iterator[None]:
    """Says under the card's name what goes wrong in reading its source, or a file of it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{card.called}: {error}") from error
    except Exception as error:  # what transformers and the hub's client raise at a wrong file has no common class
        place = f"{file} of {card.source!r}" if file else repr(card.source)
        raise InputError(f"{card.called}: cannot read {place}: {_in_words(card, error)}") from error


def _in_words(card: Checkpoint, error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    page = f"https://huggingface.co/{card.source}"
    gate = RepositoryNotFoundError if card.gated else GatedRepoError  # to some the hub denies that it has a model
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for kind, words in (
        (RevisionNotFoundError, f"it has no revision {card.revision!r}: give a branch, tag or commit that {page} has"),
        (gate, f"it is gated: accept its terms at {page}, then `hf auth login`"),
        (RepositoryNotFoundError, f"there is no {page}: correct the source, or `hf auth login` if it is private"),
        ((RevisionResolutionError, LocalEntryNotFoundError), UNREACHABLE),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return words
    message = " ".join(str(error).split())
    return SAFE if "file named model.safetensors" in message else f"{type(error).__name__}: {message}"
