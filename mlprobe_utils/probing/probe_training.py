"""Training of a block of probes of one width, each on its own batches and labels.

With batches of a few images a step costs memory traffic and calls. So gradients are computed by hand, all weights of a
block lie in one tensor that AdamW updates in one call, and batches are gathered for many steps at a time.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator

from mlprobe_utils.models.compat import fused_adamw

import torch

from mlprobe_utils.probing.settings import Probe

STEPS = 32  # prepared at a time, and launched as one on CUDA; changes no result


@contextlib.contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero: the moments of a dead unit fade to them, a CPU is several times slower with
    them, and they change no weight (AdamW's epsilon is 1e-8)."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@without_denormals()
def train(
    inputs: torch.Tensor, targets: torch.Tensor, training: torch.Tensor, settings: Probe, seeds: list[int]
) -> "Block":
    """Trains a block of probes with AdamW and a cosine schedule (paper section 3.2).

    Probes of one seed draw the same numbers, whatever block they are in: initial weights, then in every epoch an order
    of the images and the masks of dropout. `inputs` are float32 [probes, images, width + 1], the last column 1;
    `targets` one-hot, float32 [probes, images, classes]; `training` positions of the images to fit on.
    """
    device, generators = inputs.device, {seed: torch.Generator().manual_seed(seed) for seed in seeds}

    def drawn(draw: Callable, *arguments) -> torch.Tensor:
        """[probes, ...], by the seed of each."""
        by_seed = {seed: draw(*arguments, generator) for seed, generator in generators.items()}
        return torch.stack([by_seed[seed] for seed in seeds]).to(device)

    sizes = layer_sizes(inputs.shape[2] - 1, targets.shape[2], settings)
    block = Block([drawn(initial, *size) for size in sizes], settings)
    hidden = sizes[-1][0] if len(sizes) == 2 else 0
    steps = math.ceil(len(training) / settings.batch_size)
    factor = cosine(settings.epochs * steps, settings.warmup_ratio)
    rates = [settings.learning_rate * factor(step) for step in range(settings.epochs * steps)]
    take_steps, probe = replayed(block.take_steps), torch.arange(len(seeds), device=device)[:, None]
    for epoch in torch.tensor(rates, device=device).split(steps):
        orders = drawn(lambda generator: training[torch.randperm(len(training), generator=generator)])
        for images, epoch_rates in zip(
            orders.split(STEPS * settings.batch_size, dim=1), epoch.split(STEPS), strict=True
        ):
            masks = drawn(dropout_masks, images.shape[1], hidden, settings.dropout)
            take_steps(inputs[probe, images], targets[probe, images], masks, epoch_rates)
    return block


def layer_sizes(width: int, classes: int, settings: Probe) -> list[tuple[int, int]]:
    return [*itertools.pairwise([width, *[settings.hidden] * (settings.kind == "mlp"), classes])]


def parameter_count(width: int, classes: int, settings: Probe) -> int:
    """Weights and biases of one probe."""
    return sum((inputs + 1) * outputs for inputs, outputs in layer_sizes(width, classes, settings))


def initial(inputs: int, outputs: int, generator: torch.Generator) -> torch.Tensor:
    """A layer as torch's Linear draws it, [inputs + 1, outputs], the biases in the last row."""
    bound = 1 / math.sqrt(inputs)
    return torch.empty(inputs + 1, outputs).uniform_(-bound, bound, generator=generator)


def dropout_masks(images: int, hidden: int, dropout: float, generator: torch.Generator) -> torch.Tensor:
    """Factors of the hidden units, [images, hidden]."""
    return (torch.rand(images, hidden, generator=generator) >= dropout) / (1 - dropout)


class Block:
    """One layer or two of a block of probes, float32 [probes, inputs + 1, outputs], and AdamW's state."""

    def __init__(self, layers: list[torch.Tensor], settings: Probe):
        self.settings = settings
        self.weights = torch.cat([layer.flatten() for layer in layers])
        self.gradient, self.mean, self.square = (torch.zeros_like(self.weights) for _ in range(3))
        self.steps_taken = self.weights.new_zeros(())
        counts = [layer.numel() for layer in layers]
        self.layers, self.layer_gradients = (
            [part.view_as(layer) for part, layer in zip(flat.split(counts), layers, strict=True)]
            for flat in (self.weights, self.gradient)
        )
        probes, rows, _ = layers[-1].shape
        self.hidden = self.weights.new_ones(probes, settings.batch_size, rows)  # the last column stays 1

    def take_steps(self, inputs: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor, rates: torch.Tensor) -> None:
        """Steps of AdamW, one a batch of the images and a learning rate; `masks` are those of dropout."""
        batches = (tensor.split(self.settings.batch_size, dim=1) for tensor in (inputs, targets, masks))
        for *batch, rate in zip(*batches, rates.unbind(), strict=True):
            self._differentiate(*batch)
            self.steps_taken.add_(1)
            state = self.weights, self.gradient, self.mean, self.square, self.steps_taken
            # AdamW(fused=True), without torch's own step around it, which takes as long as a small block
            fused_adamw(*state, rate, self.settings.weight_decay)

    def _differentiate(self, inputs: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor) -> None:
        """The gradients of each probe's mean cross-entropy over the batch."""
        *first, last = self.layers
        *first_gradient, last_gradient = self.layer_gradients
        images, reached = inputs.shape[1], inputs
        if first:
            reached = self.hidden[:, :images]
            torch.mul(torch.bmm(inputs, first[0]).relu_(), masks, out=reached[..., :-1])
        error = torch.bmm(reached, last).softmax(dim=-1).sub_(targets)
        last_gradient.baddbmm_(reached.mT, error, beta=0, alpha=1 / images)
        if first:
            # units that are off or dropped pass on nothing; the others' scale is part of alpha
            error = torch.ops.aten.threshold_backward(torch.bmm(error, last[:, :-1].mT), reached[..., :-1], 0)
            scale = 1 / (1 - self.settings.dropout)
            first_gradient[0].baddbmm_(inputs.mT, error, beta=0, alpha=scale / images)

    def probabilities(self, inputs: torch.Tensor) -> torch.Tensor:
        """[probes, images, classes]."""
        *first, last = self.layers
        for layer in first:
            inputs = with_ones(torch.bmm(inputs, layer).relu_())
        return torch.bmm(inputs, last).softmax(dim=-1)


def with_ones(inputs: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(inputs, (0, 1), value=1.0)


def replayed(work: Callable[..., None]) -> Callable[..., None]:
    """`work(*tensors)`, on CUDA launched as one graph, as its dozen kernels each take less time than a launch.

    For tensors of the same shapes the first call warms up, the second is captured, and later ones fill its copies.
    """
    captured = {}

    def run(*tensors: torch.Tensor) -> None:
        shapes = tuple(tensor.shape for tensor in tensors)
        if tensors[0].device.type != "cuda" or shapes not in captured:
            captured[shapes] = None
            work(*tensors)
            return
        if captured[shapes] is None:
            copies, graph = [tensor.clone() for tensor in tensors], torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work(*copies)
            captured[shapes] = copies, graph
        copies, graph = captured[shapes]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)
        graph.replay()

    return run


def cosine(steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """The learning rate's factor at each step: linear warm-up, then a cosine to zero."""
    warmup = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return factor
