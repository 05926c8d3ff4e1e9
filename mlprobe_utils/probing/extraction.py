"""Features at every probe point in one pass: hooks that reduce inside, kept in shards, resumed after a kill."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlprobe_utils.common.files import claim, hash_of, write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.common.settings import paper
from mlprobe_utils.common.shards import own_missing, remove_shards, shards_of
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.models.adapters import adapter, state_of
from mlprobe_utils.models.encoding import Questions, names_of, questions_about
from mlprobe_utils.models.families.registry import name_of
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.settings import Extraction

FEATURES, POINTS = "features.safetensors", "points.parquet"


class Features(dict):
    """`point/pooling` -> float32 array [images, width], points in the order the data flows.

    Attributes:
        images: the names of the rows.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], images: Iterable[str]):
        super().__init__(arrays)
        self.images = list(images)


def extract(
    model: LoadedModel,
    images: Sequence[np.ndarray],
    question: Question,
    folder: str | Path | None = None,
    *,
    batch_size: int = 8,
) -> Features:
    """The pooled states of every probe point about all images, in one pass.

    >>> features = mp.extract(model, images, question)
    >>> features["L.00/last_token"].shape == (len(images), 32)
    True

    `V.00`… are vision blocks, `C.00`… layers of the connector, `L.00`… layers of the LLM. `image_mean` is the mean over
    the image's tokens; `last_token`, of the LLM alone, the state that the answer's first token is predicted from.

    Args:
        model: from `load` or `fine_tune`.
        images: from `image_folder` or `image_list`, or arrays, uint8 [height, width, 3].
        folder: where the features are kept: an interrupted pass goes on there, a whole one is read back.
        batch_size: images at a time; changes no result.

    Raises:
        InputError: no images, one that is no RGB array, a folder with features of another model, question or images.
    """
    names, questions = names_of(images), questions_about(model.processor, question, images)
    positions, settings = range(len(names)), paper(Extraction, "extraction", batch_size=batch_size)
    if folder is not None:
        folder = claim(folder, made_of(model, question, images))
    with adapter(model, model.adapter):
        if folder is None:
            notes, parts = Notes(), []
            for first in positions[::batch_size]:
                batch = positions[first : first + batch_size]
                parts.append(features_of(model, questions.batch(batch)))
                notes.note(batch.stop, len(names), "features of image")
            whole = _joined(parts)
        else:
            if not (folder / FEATURES).is_file():
                write_features(model, questions, list(positions), settings, folder)
            whole = load_features(folder / FEATURES)
    return Features({key: whole[key].numpy() for key in sorted(whole, key=_place)}, names)


def made_of(model: LoadedModel, question: Question, images: Sequence[np.ndarray]) -> dict:
    """What a result about images is made of, for `files.claim`."""
    processor = model.processor
    return {
        "model": state_of(model),
        "precision": str(model.model.dtype),
        "preprocessing": hash_of([processor.image_processor.to_dict(), processor.chat_template]),
        "question": [question.template, question.order],
        "images": hash_of([names_of(images), getattr(images, "data_hash", None)]),
    }


@contextlib.contextmanager
def capture(model: LoadedModel, images: Sequence[np.ndarray], question: Question) -> Iterator[dict[str, torch.Tensor]]:
    """One forward pass about a few images, with gradients where torch's mode has them.

    >>> with mp.capture(model, images[:2], question) as states:
    ...     states["L.00/last_token"].shape
    torch.Size([2, 32])

    While the block lasts the model's adapter is on, if it has one; the hooks are gone as soon as the pass has ended.

    Args: as of `extract`.

    Returns:
        `point/pooling` -> float32 tensor [images, width] where the model is.

    Raises:
        InputError: as `extract`.
    """
    inputs = to_device(questions_about(model.processor, question, images).batch(range(len(images))), model)
    with adapter(model, model.adapter):
        with capturing(model, inputs, model.device) as states:
            model.model(**inputs, logits_to_keep=1, use_cache=False)
        yield states


@contextlib.contextmanager
def capturing(
    loaded: LoadedModel, inputs: dict, device: torch.device | str = "cpu"
) -> Iterator[dict[str, torch.Tensor]]:
    """While it lasts, one forward pass on `inputs` is captured: `point/pooling` -> float32 [images, width].

    The vectors stay where the model is, so that nothing waits for them, and are on `device` at the end of the block.

    Raises:
        RuntimeError: an output of another shape than the inputs imply; a probe point that captured nothing or more than
            once; a value that is not finite.
    """
    captured: dict[str, torch.Tensor] = {}
    poolers = loaded.family.poolers(inputs)

    def keep(key: str, output) -> None:
        if key in captured:
            raise RuntimeError(f"probe point {key} captured twice: its module was called again, or a second pass")
        try:
            pool = poolers[f"{key[0]}/{key.split('/')[1]}"]
            captured[key] = pool(output[0] if isinstance(output, tuple) else output)
        except RuntimeError as error:
            raise RuntimeError(f"probe point {key}: {error}") from error

    wanted = {f"{point.name}/{how}": point.module for point in loaded.family.probe_points() for how in point.poolings}
    handles = [
        module.register_forward_hook(lambda *given, key=key: keep(key, given[-1])) for key, module in wanted.items()
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
    for key in wanted:
        if key not in captured:
            raise RuntimeError(f"probe point {key} captured nothing: its module was not called")
        captured[key] = captured[key].to(device)
        if not torch.isfinite(captured[key]).all():
            raise RuntimeError(f"probe point {key} holds values that are not finite")


@torch.inference_mode()
def write_features(
    loaded: LoadedModel, questions: Questions, positions: list[int], settings: Extraction, folder: Path
) -> None:
    """Writes the pooled features of the images at `positions` to `folder`, and which points they are of.

    `features.safetensors` has one tensor a point and pooling, float32 [images, width], rows in the order of
    `positions`; `points.parquet` the table of `describe_points`. Shards of an interrupted run are used again.
    """
    shards = shards_of(folder, positions, settings.shard_images, ".safetensors")
    for path, batches in own_missing(shards, settings.batch_size, "features of image"):
        save_whole(_joined([features_of(loaded, questions.batch(batch)) for batch in batches]), path)
    processes().wait_for_everyone()
    if processes().is_main_process:
        whole = _joined([load_features(shard.path) for shard in shards])
        save_whole(whole, folder / FEATURES)
        write_parquet(describe_points(loaded, whole), folder / POINTS)
        remove_shards(folder)


@torch.inference_mode()
def features_of(loaded: LoadedModel, questions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The features of one batch, `point/pooling` -> float32 [images, width]; `questions` are the encoder's."""
    inputs = to_device(questions, loaded)
    with capturing(loaded, inputs) as captured:
        loaded.model(**inputs, logits_to_keep=1, use_cache=False)
    return captured


def describe_points(loaded: LoadedModel, features: dict[str, torch.Tensor]) -> pd.DataFrame:
    """point, path, module (class), width, poolings and family of the model: one row a probe point, in flow order."""
    points = loaded.family.probe_points()
    columns = {
        "point": [point.name for point in points],
        "path": [point.path for point in points],
        "module": [type(point.module).__name__ for point in points],
        "width": [features[f"{point.name}/image_mean"].shape[1] for point in points],
        "poolings": [", ".join(point.poolings) for point in points],
        "family": name_of(type(loaded.family)),
    }
    return pd.DataFrame(columns)


def save_whole(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Saves tensors so that the file appears whole or not at all."""
    temporary = path.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    temporary.replace(path)


def load_features(file: Path) -> dict[str, torch.Tensor]:
    """`point/pooling` -> float32 [images, width], points in the order the data flows."""
    with safe_open(file, "pt") as opened:
        return {key: opened.get_tensor(key) for key in sorted(opened.keys(), key=_place)}


def _joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The features of images one part after the other."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _place(key: str) -> tuple:
    """What to sort `point/pooling` by."""
    return flow_order(key.split("/")[0]), key
