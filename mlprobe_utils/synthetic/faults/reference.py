"""Statistics of the intact states of image tokens, which a damage keeps: their mean, and how they spread around it."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from sklearn.covariance import LedoitWolf

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.extraction import features_of


@torch.inference_mode()
def statistics_of(
    loaded: LoadedModel, encoder: Encoder, batches: Iterable[list[np.ndarray]], points: list[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """Of image tokens' states at some probe points: point -> name -> float32.

    `mean` [width]; standard deviations [width] of images' means, `between`, and of an image's tokens around their own
    mean, `within`; and in the connector `root` and `inverse`, [width, width], the square root of the covariance of
    images' means and its inverse, shrunk after Ledoit and Wolf (2004) as there may be fewer images than numbers.

    Args:
        batches: images, uint8 [height, width, 3].
    """
    means, squares = [], []
    for images in batches:
        questions = encoder.questions(images)
        with _squaring(loaded, questions, points) as squared:
            features = features_of(loaded, questions)
        means.append({point: features[f"{point}/image_mean"] for point in points})
        squares.append({point: squared[point].cpu() for point in points})
    found = {}
    for point in points:
        mean, square = (torch.cat([part[point] for part in parts]) for parts in (means, squares))
        within = (square - mean**2).mean(dim=0).clamp(min=0).sqrt()
        found[point] = {"mean": mean.mean(dim=0), "between": mean.std(dim=0), "within": within}
        if point[0] == "C":
            found[point] |= _roots(mean)
    return found


def _roots(states: torch.Tensor) -> dict[str, torch.Tensor]:
    variances, vectors = np.linalg.eigh(LedoitWolf().fit(states.double().numpy()).covariance_)
    spread = np.sqrt(variances.clip(min=variances.max() * np.finfo(np.float32).eps))
    roots = {"root": vectors * spread @ vectors.T, "inverse": vectors / spread @ vectors.T}
    return {name: torch.from_numpy(value).float() for name, value in roots.items()}


@contextlib.contextmanager
def _squaring(loaded: LoadedModel, questions: dict, points: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """While it lasts, the mean squares of image tokens' states are kept: point -> float32 [images, width]."""
    kept: dict[str, torch.Tensor] = {}
    poolers = loaded.family.poolers(to_device(questions, loaded))

    def hook_of(point: str):
        pool = poolers[f"{point[0]}/image_mean"]

        def hook(module, arguments, output):
            kept[point] = pool((output[0] if isinstance(output, tuple) else output).float() ** 2)

        return hook

    wanted = [point for point in loaded.family.probe_points() if point.name in points]
    handles = [point.module.register_forward_hook(hook_of(point.name)) for point in wanted]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
