"""Features at every probe point in one pass: hooks that reduce inside, kept in shards, resumed after a kill."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mlprobe_utils.cards import Extraction
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.loading import LoadedModel, to_device
from mlprobe_utils.progress import Notes

FEATURES = "features.safetensors"


@contextlib.contextmanager
def capturing(loaded: LoadedModel, inputs: dict) -> Iterator[dict[str, torch.Tensor]]:
    """While it lasts, a forward pass on `inputs` leaves `point/pooling` -> float32 [images, width] in the dictionary.

    Raises:
        RuntimeError: at the end, if a probe point captured nothing, or a value that is not finite.
    """
    captured: dict[str, torch.Tensor] = {}
    points = loaded.family.probe_points()

    def hook_of(point: str):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            for pooling, vectors in loaded.family.pool(point, output, inputs).items():
                captured[f"{point}/{pooling}"] = vectors.cpu()

        return hook

    handles = [point.module.register_forward_hook(hook_of(point.name)) for point in points]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
    for point in points:
        for pooling in point.poolings:
            key = f"{point.name}/{pooling}"
            if key not in captured:
                raise RuntimeError(f"probe point {key} captured nothing: its module was not called")
            if not torch.isfinite(captured[key]).all():
                raise RuntimeError(f"probe point {key} holds values that are not finite")


@torch.inference_mode()
def extract(
    loaded: LoadedModel, encoder: Encoder, image_set: ImageSet, positions: list[int], settings: Extraction, folder: Path
) -> None:
    """Writes the pooled features of the images at `positions` to `folder/features.safetensors`.

    One tensor a point and pooling, float32 [images, width], rows in the order of `positions`. Works in shards of
    `settings.shard_images`; shards that an interrupted run left in `folder` are kept.
    """
    shards, notes = [], Notes()
    for start in range(0, len(positions), settings.shard_images):
        own = positions[start : start + settings.shard_images]
        shard = folder / f"shard-{start:06d}-{len(own)}.safetensors"  # a shard of another size is not this one
        shards.append(shard)
        if shard.exists():
            continue
        batches = []
        for first in range(0, len(own), settings.batch_size):
            images = [image_set.pixels(i) for i in own[first : first + settings.batch_size]]
            inputs = to_device(encoder.questions(images), loaded)
            with capturing(loaded, inputs) as captured:
                loaded.model(**inputs, logits_to_keep=1)
            batches.append(dict(captured))
            notes.note(start + first + len(images), len(positions), "features of image")
        save_whole({key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}, shard)
    parts = [load_file(shard) for shard in shards]
    save_whole({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, folder / FEATURES)
    for shard in folder.glob("shard-*"):
        shard.unlink()


def save_whole(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Saves tensors so that the file appears whole or not at all."""
    temporary = path.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    temporary.replace(path)


def load_features(folder: Path) -> dict[str, torch.Tensor]:
    """`point/pooling` -> float32 [images, width], points in the order the data flows."""
    features = load_file(folder / FEATURES)
    flow = {"V": 0, "C": 1, "L": 2}
    return {key: features[key] for key in sorted(features, key=lambda key: (flow[key[0]], key))}
