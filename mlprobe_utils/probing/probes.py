"""Probes: one classifier a probe point (paper section 3.2), trained in blocks of one width, each equal to one alone."""

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import one_hot

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.common.settings import paper
from mlprobe_utils.evaluation.points import POOLINGS, is_point
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.probing.probe_training import Block, parameter_count, train, with_ones
from mlprobe_utils.probing.settings import Probe

STACK_BYTES = 2**30  # features that are in memory at a time; how probes are grouped changes no result
CACHE = 2**23  # a core's, with the third level: blocks so large were fastest with 0.5 MiB of the second and with more
Key = TypeVar("Key", bound=Hashable)


def probe(
    features: Mapping[str, np.ndarray],
    images,
    *,
    seeds: int = 5,
    device: torch.device | str | None = None,
    **fields,
) -> pd.DataFrame:
    """Fits probes of the label on the train images, one for each features and seed.

    >>> rows = mp.probe(features, images, seeds=2, epochs=5, learning_rate=0.003)
    >>> [*rows]
    ['image', 'label', 'split', 'cluster', 'point', 'pooling', 'seed', 'p_ill', 'p_normal']

    Args:
        features: from `extract`, or any name -> array [images, width], rows in the order of the images.
        images: from `image_folder` or `image_list`, with labels.
        seeds: how many probes are fitted at each point; intervals of the recipe need five.
        device: a CPU or CUDA; None: this process's CUDA device where there is one.
        fields: of `probing.settings.Probe`, by default those of the protocol `paper`: an MLP on standardised features.
            With many images, a larger `batch_size` is faster, and with a rate raised alike about as good.

    Returns:
        One row a validation or test image, features and seed: image, label, split, cluster (one number a patient or
        file), point and pooling (of other features than `extract`'s their name and null), seed, p_<label>.

    Raises:
        InputError: features of other images, or that are not finite; images of fewer than two labels; an unknown field.
    """
    recipe, rows = paper(Probe, "probe", **fields), images.rows("train", "validation", "test")
    classes = sorted({*rows["label"].dropna()})
    if len(classes) < 2:
        raise InputError(f"the images have {len(classes)} labels: a probe needs two or more")
    if (given := getattr(features, "images", images.names)) != images.names:
        apart = sorted({*given}.symmetric_difference(images.names))
        words = f"{apart[0]} is among one of them alone" if apart else "they are in another order"
        raise InputError(f"features of {len(given)} images do not fit these {len(images)}, {words}: extract them anew")
    tensors = {name: torch.as_tensor(np.asarray(own)) for name, own in features.items()}
    for name, own in tensors.items():
        if own.ndim != 2 or len(own) != len(rows):
            raise InputError(f"features {name!r} are {list(own.shape)}, expected [{len(rows)} images, width]")
        if not torch.isfinite(own).all():
            raise InputError(f"features {name!r} hold values that are not finite (nan): make them anew")
    if not tensors or seeds < 1:
        raise InputError(f"there are {len(tensors)} features and {seeds} seeds: a probe needs one of each")
    labels = rows["label"].map(classes.index).to_numpy(copy=True)
    training, shown = np.flatnonzero(rows["split"] == "train"), np.flatnonzero(rows["split"] != "train")
    training = training[share_of_each_class(labels[training], recipe.training_fraction)]
    keys = {(name, seed): own for name, own in tensors.items() for seed in range(seeds)}
    numbers = {key: key[1] for key in keys}
    fitted = fit_probes(keys, dict.fromkeys(keys, labels), training, len(classes), recipe, numbers, device)
    frames = []
    for (name, seed), probabilities in fitted.items():
        point, _, pooling = name.partition("/")
        known = is_point(point) and pooling in POOLINGS.values()
        place = {"point": point if known else name, "pooling": pooling if known else None, "seed": seed}
        columns = {OPTION + label: probabilities[shown, i].astype(float) for i, label in enumerate(classes)}
        frames.append(rows.iloc[shown].assign(**place, **columns))
    return pd.concat(frames, ignore_index=True)


def fit_probes(
    features: Mapping[Key, torch.Tensor],
    labels: Mapping[Key, np.ndarray],
    training: np.ndarray,
    classes: int,
    settings: Probe,
    seeds: Mapping[Key, int],
    device: torch.device | str | None = None,
) -> dict[Key, np.ndarray]:
    """Fits one probe for each key of `features` and applies it to all images: probabilities, float32 [images, classes].

    Args:
        features: float32 [images, width]; widths may differ, probes may share a tensor.
        labels: class index of each image, int [images].
        training: positions of the images to fit on, and to standardise by.
        seeds: of initial weights, batches and dropout.
    """
    found = {}
    for keys, block, inputs in _fitted(features, labels, training, classes, settings, seeds, device):
        found |= dict(zip(keys, block.probabilities(inputs).cpu().numpy(), strict=True))
    return {key: found[key] for key in features}


def _fitted(
    features: Mapping[Key, torch.Tensor],
    labels: Mapping[Key, np.ndarray],
    training: np.ndarray,
    classes: int,
    settings: Probe,
    seeds: Mapping[Key, int],
    device: torch.device | str | None,
) -> Iterator[tuple[list[Key], Block, torch.Tensor]]:
    """Blocks of probes, as of `fit_probes`, with their inputs, float32 [probes, images, width + 1]."""
    own, notes, done = torch.device(device or processes().device), Notes(), 0
    device = own if own.type == "cuda" else "cpu"
    for keys in blocks(features, classes, settings, device):
        inputs = _inputs(torch.stack([features[key].float() for key in keys]).to(device), training, settings)
        targets = one_hot(torch.tensor(np.stack([labels[key] for key in keys]), device=device), classes).float()
        yield keys, train(inputs, targets, torch.tensor(training), settings, [seeds[key] for key in keys]), inputs
        notes.note(done := done + len(keys), len(features), "probe")


def share_of_each_class(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Positions of a share of the images of each class, one at least; a smaller share is part of every larger one."""
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = [own[: max(1, round(share * len(own)))] for own in (order[labels[order] == k] for k in np.unique(labels))]
    return np.sort(np.concatenate(drawn))


def fit_and_transfer(
    features: Mapping[Key, torch.Tensor],
    labels: np.ndarray,
    training: np.ndarray,
    classes: int,
    settings: Probe,
    seed: int,
    device: torch.device | str | None = None,
) -> dict[tuple[Key, Key], np.ndarray]:
    """(fitted at, applied at) -> probabilities, float32 [images, classes], of all pairs of points of one width.

    Each point's features are standardised by their own statistics: what transfers is the direction in which the classes
    lie, whatever the features' size. Arguments as of `fit_probes`; ValueError where widths differ.
    """
    if len(widths := {tensor.shape[1] for tensor in features.values()}) > 1:
        raise ValueError(f"a probe reads features of one width, found {sorted(widths)}: take points of one module")
    every, seeds, found = dict.fromkeys(features, labels), dict.fromkeys(features, seed), {}
    for keys, block, inputs in _fitted(features, every, training, classes, settings, seeds, device):
        for key, tensor in features.items():
            applied = _inputs(tensor.float()[None].to(inputs.device), training, settings).expand(len(keys), -1, -1)
            probabilities = block.probabilities(applied).cpu().numpy()
            found |= {(fitted_at, key): own for fitted_at, own in zip(keys, probabilities, strict=True)}
    return found


def _inputs(stack: torch.Tensor, training: np.ndarray, settings: Probe) -> torch.Tensor:
    """The probes' input, [points, images, width + 1], from features [points, images, width]."""
    return with_ones(standardise(stack, torch.tensor(training)) if settings.standardised else stack)


def blocks(
    features: Mapping[Key, torch.Tensor], classes: int, settings: Probe, device: torch.device | str = "cpu"
) -> list[list[Key]]:
    """The keys in blocks of one width, of one probe at least, whose features take at most STACK_BYTES.

    On a CPU, weights, gradients and moments fit into the cache of its cores: smaller blocks cost more calls, larger
    ones more memory traffic.
    """
    grouped = []
    for width in sorted({tensor.shape[1] for tensor in features.values()}):
        keys = [key for key, tensor in features.items() if tensor.shape[1] == width]
        most = STACK_BYTES // (4 * features[keys[0]].numel())
        if torch.device(device).type == "cpu":
            cache = CACHE * torch.get_num_threads()
            most = min(most, cache // (4 * 4 * parameter_count(width, classes, settings)))
        grouped += [keys[i : i + max(most, 1)] for i in range(0, len(keys), max(most, 1))]
    return grouped


def standardise(stack: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance of each feature on the training images; a constant feature becomes zero."""
    mean = stack[:, training].mean(dim=1, keepdim=True)
    deviation = stack[:, training].std(dim=1, keepdim=True, correction=0)
    return (stack - mean) / torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)
