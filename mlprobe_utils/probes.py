"""Probes: one classifier a probe point (paper section 3.2), all points and runs of a width in one stacked program.

Stacking changes nothing but the speed: every probe of a stack sees the same batches, the same dropout masks and the
same initial weights that it would see if it were trained alone with the same seed (tests hold the two equal).
"""

import itertools
import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mlprobe_utils.cards import Probe

STACK_BYTES = 2**30  # features that are in memory at a time; how probes are grouped changes no result
Key = TypeVar("Key", bound=Hashable)


def fit_probes(
    features: Mapping[Key, torch.Tensor],
    labels: np.ndarray,
    training: np.ndarray,
    classes: int,
    settings: Probe,
    seeds: Mapping[Key, int],
) -> dict[Key, np.ndarray]:
    """Fits one probe for each entry of `features` and applies it to all images.

    Args:
        features: key of a probe -> float32 [images, width]; widths may differ, probes may share a tensor.
        labels: class index of each image, int [images].
        training: positions of the images to fit on; statistics for standardisation come from them alone.
        classes: number of classes.
        seeds: key of a probe -> seed of its initial weights, batches and dropout (its run).

    Returns:
        key -> probabilities, float32 [images, classes], in the order of `features`.
    """
    labels, training = torch.tensor(labels), torch.tensor(training)
    probabilities = {}
    for keys in groups(features):
        stack = torch.stack([features[key].float() for key in keys])
        if settings.standardised:
            stack = standardise(stack, training)
        fitted = _fit_stack(stack, labels, training, classes, settings, [seeds[key] for key in keys])
        probabilities |= dict(zip(keys, fitted.numpy(), strict=True))
    return {key: probabilities[key] for key in features}


def groups(features: Mapping[Key, torch.Tensor]) -> list[list[Key]]:
    """The keys in groups of one width whose features take `STACK_BYTES` at most, or of a single probe."""
    grouped = []
    for width in sorted({tensor.shape[1] for tensor in features.values()}):
        keys = [key for key, tensor in features.items() if tensor.shape[1] == width]
        most = max(1, STACK_BYTES // (4 * features[keys[0]].numel()))
        grouped += [keys[i : i + most] for i in range(0, len(keys), most)]
    return grouped


def standardise(stack: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance on the training images, a feature at a time; a constant feature becomes zero."""
    mean = stack[:, training].mean(dim=1, keepdim=True)
    deviation = stack[:, training].std(dim=1, keepdim=True, correction=0)
    return (stack - mean) / torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)


def _fit_stack(stack, labels, training, classes: int, settings: Probe, seeds: list[int]) -> torch.Tensor:
    """Trains [probes] classifiers on a stack [probes, images, width]; returns probabilities [probes, images, classes].

    Probes of one seed draw the same numbers: what is drawn has a row a distinct seed, and `drawn` says whose row each
    probe takes.
    """
    generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
    drawn = torch.tensor([list(generators).index(seed) for seed in seeds])
    initial = [_initial(stack.shape[2], classes, settings, generator) for generator in generators.values()]
    weights = [torch.stack(own)[drawn].requires_grad_() for own in zip(*initial, strict=True)]
    steps = settings.epochs * math.ceil(len(training) / settings.batch_size)
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(steps, settings.warmup_ratio))
    probe = torch.arange(len(seeds))[:, None]
    for _ in range(settings.epochs):
        orders = [training[torch.randperm(len(training), generator=g)] for g in generators.values()]
        for batch in torch.stack(orders)[drawn].split(settings.batch_size, dim=1):
            masks = [_dropout_mask(batch.shape[1], settings, generator) for generator in generators.values()]
            logits = _forward(stack[probe, batch], weights, torch.stack(masks)[drawn])
            # a mean over the batch for each probe, summed over probes: no probe feels another
            target = labels[batch].flatten()
            loss = cross_entropy(logits.flatten(0, 1), target, reduction="sum") / batch.shape[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return _forward(stack, weights, None).softmax(dim=-1)


def _initial(width: int, classes: int, settings: Probe, generator: torch.Generator) -> list[torch.Tensor]:
    """Weights and biases of the layers, as torch's Linear draws them."""
    widths = [width, settings.hidden, classes] if settings.kind == "mlp" else [width, classes]
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        for shape in ((inputs, outputs), (1, outputs)):
            bound = 1 / math.sqrt(inputs)
            layers.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return layers


def _dropout_mask(images: int, settings: Probe, generator: torch.Generator) -> torch.Tensor:
    """What the hidden units of a batch are multiplied by, [images, hidden]; a linear probe has none."""
    hidden = settings.hidden if settings.kind == "mlp" else 0
    keep = torch.rand(images, hidden, generator=generator) >= settings.dropout
    return keep / (1 - settings.dropout)


def _forward(inputs: torch.Tensor, weights: list[torch.Tensor], dropout: torch.Tensor | None) -> torch.Tensor:
    weight, bias, *second = weights
    outputs = torch.baddbmm(bias, inputs, weight)
    if not second:
        return outputs
    hidden = outputs.relu() if dropout is None else outputs.relu() * dropout
    return torch.baddbmm(second[1], hidden, second[0])


def cosine(steps: int, warmup_ratio: float):
    """Linear warm-up, then a cosine to zero: the learning rate's factor at each step."""
    warmup = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return factor
