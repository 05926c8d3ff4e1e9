"""Probes: one two-layer MLP a probe point (paper section 3.2), all points of a width trained in one stacked program.

Stacking changes nothing but the speed: every probe of a stack sees the same batches, the same dropout masks and the
same initial weights that it would see if it were trained alone with the same seed (tests hold the two equal).
"""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mlprobe_utils.cards import Probe


def fit_probes(
    features: dict[str, torch.Tensor],
    labels: np.ndarray,
    training: np.ndarray,
    classes: int,
    settings: Probe,
    seed: int,
) -> dict[str, np.ndarray]:
    """Fits one probe for each entry of `features` and applies it to all images.

    Args:
        features: name -> float32 [images, width]; widths may differ.
        labels: class index of each image, int [images].
        training: positions of the images to fit on; statistics for standardisation come from them alone.
        classes: number of classes.
        seed: of initial weights, batches and dropout.

    Returns:
        name -> probabilities, float32 [images, classes].
    """
    probabilities = {}
    for width in sorted({tensor.shape[1] for tensor in features.values()}):
        names = [name for name, tensor in features.items() if tensor.shape[1] == width]
        stack = torch.stack([features[name].float() for name in names])
        if settings.standardised:
            stack = standardise(stack, training)
        fitted = _fit_stack(stack, torch.as_tensor(labels), torch.as_tensor(training), classes, settings, seed)
        probabilities |= dict(zip(names, fitted.numpy(), strict=True))
    return {name: probabilities[name] for name in features}


def standardise(stack: torch.Tensor, training: np.ndarray) -> torch.Tensor:
    """Zero mean and unit variance on the training images, a feature at a time; a constant feature becomes zero."""
    mean = stack[:, training].mean(dim=1, keepdim=True)
    deviation = stack[:, training].std(dim=1, keepdim=True, correction=0)
    return (stack - mean) / torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)


def _fit_stack(stack, labels, training, classes: int, settings: Probe, seed: int) -> torch.Tensor:
    """Trains [probes] MLPs on a stack [probes, images, width]; returns probabilities [probes, images, classes]."""
    probes, _, width = stack.shape
    generator = torch.Generator().manual_seed(seed)
    weights = [
        w.expand(probes, *w.shape).clone().requires_grad_() for w in _initial(width, classes, settings, generator)
    ]
    steps = settings.epochs * math.ceil(len(training) / settings.batch_size)
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(steps, settings.warmup_ratio))
    for _ in range(settings.epochs):
        for batch in training[torch.randperm(len(training), generator=generator)].split(settings.batch_size):
            keep = torch.rand(len(batch), settings.hidden, generator=generator) >= settings.dropout
            logits = _forward(stack[:, batch], weights, keep / (1 - settings.dropout))
            target = labels[batch].expand(probes, -1)
            # a mean over the batch for each probe, summed over probes: no probe feels another
            loss = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return _forward(stack, weights, None).softmax(dim=-1)


def _initial(width: int, classes: int, settings: Probe, generator: torch.Generator) -> list[torch.Tensor]:
    """Weights and biases of both layers, as torch's Linear draws them."""
    shapes = [(width, settings.hidden), (1, settings.hidden), (settings.hidden, classes), (1, classes)]
    bounds = [1 / math.sqrt(width)] * 2 + [1 / math.sqrt(settings.hidden)] * 2
    return [torch.empty(s).uniform_(-b, b, generator=generator) for s, b in zip(shapes, bounds, strict=True)]


def _forward(inputs: torch.Tensor, weights: list[torch.Tensor], dropout: torch.Tensor | None) -> torch.Tensor:
    first, first_bias, second, second_bias = weights
    hidden = torch.baddbmm(first_bias, inputs, first).relu()
    return torch.baddbmm(second_bias, hidden if dropout is None else hidden * dropout, second)


def cosine(steps: int, warmup_ratio: float):
    """Linear warm-up, then a cosine to zero: the learning rate's factor at each step."""
    warmup = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return factor
