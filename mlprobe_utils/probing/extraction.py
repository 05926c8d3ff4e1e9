"""Features at every probe point in one pass: hooks that reduce inside, kept in shards, resumed after a kill."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import claimed, file_hash, hash_of, write_parquet
from mlprobe_utils.common.processes import own_missing, processes, remove_shards, shards_of
from mlprobe_utils.common.settings import paper
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.models.adapters import WEIGHTS, adapter, fingerprint
from mlprobe_utils.models.encoding import Questions, names_of, questions_about
from mlprobe_utils.models.families import name_of
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.settings import Extraction

FEATURES, POINTS = "features.safetensors", "points.parquet"


class Features(dict):
    """`point/pooling` -> float32 array [images, width], in the order the data flows; `images` names the rows."""

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
    """The pooled states of all images at every probe point, in one pass.

    >>> features = mp.extract(model, images, question)
    >>> features["L.00/last_token"].shape == (len(images), 32)
    True

    `V.00`… are vision blocks, `C.00`… layers of the connector, `L.00`… layers of the LLM. `image_mean` is the mean over
    the image's tokens; `image_places` keeps their positions, in at most 64 regions of 32 numbers; `last_token` (of the
    LLM) is the state from which the first token of the answer is predicted.

    Args:
        images: from `image_folder` or `image_list`, or arrays, uint8 [height, width, 3].
        folder: saves the features; an interrupted pass continues there, a finished one is loaded.
        batch_size: images at a time; does not change results.

    InputError for no images, one that is not an RGB array, and a folder with features of another model, question or
    set of images."""
    names, questions = names_of(images), questions_about(model, question, images)
    settings = paper(Extraction, "extraction", batch_size=batch_size)
    place = tempfile.TemporaryDirectory() if folder is None else claimed(folder, made_of(model, question, images))
    with place as kept:
        kept = Path(kept)
        if not (kept / FEATURES).is_file():
            with adapter(model, model.adapter):
                write_features(model, questions, list(range(len(names))), settings, kept)
        whole = load_features(kept / FEATURES)
    return Features({key: tensor.numpy() for key, tensor in whole.items()}, names)


def made_of(model: LoadedModel, question: Question, images: Sequence[np.ndarray]) -> dict:
    """What a result about images depends on, for `files.claimed`."""
    processor, state = model.processor, fingerprint(model.model)
    return {
        "model": state if model.adapter is None else f"{state} {file_hash(model.adapter / WEIGHTS)}",
        "precision": str(model.model.dtype),
        "preprocessing": hash_of([processor.image_processor.to_dict(), processor.chat_template]),
        "question": [question.template, question.order, model.card.system_prompt],
        "images": hash_of([names_of(images), getattr(images, "data_hash", None)]),
    }


@contextlib.contextmanager
def capture(model: LoadedModel, images: Sequence[np.ndarray], question: Question) -> Iterator[dict[str, torch.Tensor]]:
    """One forward pass of a few images, with gradients if torch's mode has them: `point/pooling` -> float32
    [images, width], on the model's device, whose adapter stays on in the block. Arguments and errors as of `extract`.

    >>> with mp.capture(model, images[:2], question) as states:
    ...     states["L.00/last_token"].shape
    torch.Size([2, 32])
    """
    inputs = to_device(questions_about(model, question, images).batch(range(len(images))), model)
    with adapter(model, model.adapter):
        with capturing(model, inputs, model.device) as states:
            model.model(**inputs, logits_to_keep=1, use_cache=False)
        yield states


@contextlib.contextmanager
def capturing(
    loaded: LoadedModel, inputs: dict, device: torch.device | str = "cpu"
) -> Iterator[dict[str, torch.Tensor]]:
    """Captures one forward pass on `inputs` in the block: `point/pooling` -> float32 [images, width], on `device` after
    it. RuntimeError for an output of another shape than the inputs imply, or a probe point that captured nothing or
    more than once; InputError for a value that is not finite."""
    captured: dict[str, torch.Tensor] = {}
    poolers = loaded.family.poolers(inputs)

    def keep(key: str, module, arguments, output) -> None:
        if key in captured:
            raise RuntimeError(f"probe point {key} captured twice: its module was called again, or a second pass")
        try:
            pool = poolers[f"{key[0]}/{key.split('/')[1]}"]
            captured[key] = pool(output[0] if isinstance(output, tuple) else output)
        except RuntimeError as error:
            raise RuntimeError(f"probe point {key}: {error}") from error

    wanted = {f"{point.name}/{how}": point.module for point in loaded.family.probe_points() for how in point.poolings}
    with contextlib.ExitStack() as hooks:
        for key, module in wanted.items():
            hooks.callback(module.register_forward_hook(partial(keep, key)).remove)
        yield captured
    for key in wanted:
        if key not in captured:
            raise RuntimeError(f"probe point {key} captured nothing: its module was not called")
        captured[key] = captured[key].to(device)
        if not torch.isfinite(captured[key]).all():
            mend = "run the model in float32 (`precision`), or train its adapter again"
            raise InputError(f"{loaded.card.called}: probe point {key} holds values that are not finite (nan): {mend}")


@torch.inference_mode()
def write_features(
    loaded: LoadedModel, questions: Questions, positions: list[int], settings: Extraction, folder: Path
) -> None:
    """Writes the features of the images at `positions` to FEATURES in `folder`, one tensor a point and pooling, float32
    [images, width], and to POINTS a row per probe point. Shards of an interrupted run are used again."""

    def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {key: stacked([part[key] for part in parts]) for key in parts[0]}

    shards = shards_of(folder, positions, settings.shard_images, ".safetensors")
    for path, batches in own_missing(shards, settings.batch_size, "features of image"):
        save_whole(joined([features_of(loaded, questions.batch(batch)) for batch in batches]), path)
    processes().wait_for_everyone()
    if processes().is_main_process:
        whole = joined([load_features(shard) for shard in shards])
        save_whole(whole, folder / FEATURES)
        points = [
            {"point": point.name, "path": point.path, "module": type(point.module).__name__}
            | {"width": whole[f"{point.name}/image_mean"].shape[1], "poolings": ", ".join(point.poolings)}
            | {"family": name_of(type(loaded.family))}
            for point in loaded.family.probe_points()
        ]
        write_parquet(pd.DataFrame(points), folder / POINTS)
        remove_shards(folder)


@torch.inference_mode()
def features_of(loaded: LoadedModel, questions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The features of one batch of `Encoder.questions`."""
    inputs = to_device(questions, loaded)
    with capturing(loaded, inputs) as captured:
        loaded.model(**inputs, logits_to_keep=1, use_cache=False)
    return captured


def stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    """One below the other; the places of images of fewer tokens end with zeros."""
    widest = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, widest - part.shape[1])) for part in parts])


def save_whole(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """The file appears whole or not at all."""
    temporary = path.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    temporary.replace(path)


def load_features(file: Path) -> dict[str, torch.Tensor]:
    """`point/pooling` -> float32 [images, width], points in the order the data flows; InputError as `load_tensors`."""
    tensors = load_tensors(file)
    return {key: tensors[key] for key in sorted(tensors, key=lambda key: (flow_order(key.split("/")[0]), key))}


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """As safetensors' `load_file`. InputError where the file cannot be read."""
    try:
        return load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): delete it, and the same command makes it again") from error
