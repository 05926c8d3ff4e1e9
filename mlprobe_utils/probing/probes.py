"""Probes: one classifier a probe point (paper section 3.2), trained in blocks of one width, each equal to one alone.

A step on a few images costs memory traffic and calls. So gradients are computed by hand, AdamW updates the weights of a
block in one call, and batches are gathered for many steps at a time."""

import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from mlprobe_utils.models.compat import fused_adamw

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import one_hot, pad

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import Notes
from mlprobe_utils.common.settings import paper
from mlprobe_utils.evaluation.points import POOLING_NAMES, is_point
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.probing.settings import Probe

STACK_BYTES = 2**30  # features that are in memory at a time; how probes are grouped changes no result
CACHE = 2**23  # a core's, with the third level: blocks so large were fastest with 0.5 MiB of the second and with more
STEPS = 32  # prepared at a time, and launched as one on CUDA; changes no result
Key = TypeVar("Key", bound=Hashable)


def probe(
    features: Mapping[str, np.ndarray], images, *, seeds: int = 5, device: torch.device | str | None = None, **fields
) -> pd.DataFrame:
    """Fits probes of the label on the training images, one per set of features and seed.

    >>> rows = mp.probe(features, images, seeds=2, epochs=5, learning_rate=0.003)
    >>> [*rows]
    ['image', 'label', 'split', 'cluster', 'point', 'pooling', 'seed', 'p_ill', 'p_normal']

    Args:
        features: from `extract`, or any name -> array [images, width], rows in the order of the images.
        seeds: how many probes are fitted at each point; intervals of retrained probes need five.
        device: the CPU or CUDA; None: this process's CUDA device if there is one.
        fields: of `probing.settings.Probe`, else as in the protocol `paper`: an MLP on standardised features. With many
            images, a larger `batch_size` with a higher rate is faster, and about as good.

    Returns one row per validation or test image, set of features and seed; `cluster` numbers patients or files, and
    features that are not from `extract` have their name as point and no pooling. InputError for features of other
    images or that are not finite, fewer than two labels, and an unknown field."""
    recipe, rows = paper(Probe, "probe", **fields), images.rows("train", "validation", "test")
    classes = sorted({*rows["label"].dropna()})
    if len(classes) < 2:
        raise InputError(f"the images have {len(classes)} labels: a probe needs two or more")
    if (given := getattr(features, "images", images.names)) != images.names:
        apart = sorted({*given}.symmetric_difference(images.names))
        words = f"{apart[0]} is among one of them alone" if apart else "they are in another order"
        raise InputError(f"features of {len(given)} images do not fit these {len(images)}, {words}: extract them again")
    tensors = {name: torch.as_tensor(np.asarray(own)) for name, own in features.items()}
    for name, own in tensors.items():
        if own.ndim != 2 or len(own) != len(rows):
            raise InputError(f"features {name!r} are {list(own.shape)}, expected [{len(rows)} images, width]")
        if not torch.isfinite(own).all():
            raise InputError(f"features {name!r} hold values that are not finite (nan): recompute them")
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
        known = is_point(point) and pooling in POOLING_NAMES
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
    at: Mapping[Key, torch.Tensor] | None = None,
) -> dict[Any, np.ndarray]:
    """Fits one probe for each key of `features`, float32 [images, width], and applies it to all images: key ->
    probabilities, float32 [images, classes]. With `at`, features of the same width, every probe is applied to each of
    them: (fitted at, applied at) -> probabilities.

    `labels` are class indices, int [images]; `training` positions of the images to fit on; `seeds` those of initial
    weights, batches and dropout. All features are standardised by their own statistics on the training images: what
    transfers is the direction in which the classes lie, whatever the features' size."""
    device, training = torch.device(device or processes().device), torch.tensor(training)
    device, notes, done, found = device if device.type == "cuda" else "cpu", Notes(), 0, {}

    def prepared(stack: torch.Tensor) -> torch.Tensor:
        stack = stack.to(device)
        return with_ones(standardise(stack, training) if settings.standardised else stack)

    for keys in blocks(features, classes, settings, device):
        inputs = prepared(torch.stack([features[key].float() for key in keys]))
        targets = one_hot(torch.tensor(np.stack([labels[key] for key in keys]), device=device), classes).float()
        block = train(inputs, targets, training, settings, [seeds[key] for key in keys])
        if at is None:
            found |= dict(zip(keys, block.probabilities(inputs).cpu().numpy(), strict=True))
        for key, tensor in (at or {}).items():
            probabilities = block.probabilities(prepared(tensor.float()[None]).expand(len(keys), -1, -1)).cpu().numpy()
            found |= {(fitted_at, key): own for fitted_at, own in zip(keys, probabilities, strict=True)}
        notes.note(done := done + len(keys), len(features), "probe")
    return {key: found[key] for key in features} if at is None else found


def share_of_each_class(labels: np.ndarray, share: float) -> np.ndarray:
    """Positions of a share of the images of each class, one at least; a smaller share is part of every larger one."""
    order = np.random.default_rng(0).permutation(len(labels))
    drawn = [own[: max(1, round(share * len(own)))] for own in (order[labels[order] == k] for k in np.unique(labels))]
    return np.sort(np.concatenate(drawn))


def blocks(
    features: Mapping[Key, torch.Tensor], classes: int, settings: Probe, device: torch.device | str = "cpu"
) -> list[list[Key]]:
    """The keys in blocks of one width, of one probe at least, whose features take at most STACK_BYTES; on a CPU,
    weights, gradients and moments fit into the cache: smaller blocks cost calls, larger ones memory traffic."""
    grouped = []
    for width in sorted({tensor.shape[1] for tensor in features.values()}):
        keys = [key for key, tensor in features.items() if tensor.shape[1] == width]
        most = STACK_BYTES // (4 * features[keys[0]].numel())
        if torch.device(device).type == "cpu":
            parameters = sum((inputs + 1) * outputs for inputs, outputs in layer_sizes(width, classes, settings))
            most = min(most, CACHE * torch.get_num_threads() // (4 * 4 * parameters))
        grouped += [keys[i : i + max(most, 1)] for i in range(0, len(keys), max(most, 1))]
    return grouped


def standardise(stack: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance of each feature on the training images; a constant feature becomes zero."""
    mean = stack[:, training].mean(dim=1, keepdim=True)
    deviation = stack[:, training].std(dim=1, keepdim=True, correction=0)
    return (stack - mean) / torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)


def train(
    inputs: torch.Tensor, targets: torch.Tensor, training: torch.Tensor, settings: Probe, seeds: list[int]
) -> "Block":
    """Trains a block of probes with AdamW and a cosine schedule (paper section 3.2). Probes of one seed draw the same
    numbers, whatever block they are in. `inputs` are float32 [probes, images, width + 1], the last column 1; `targets`
    one-hot, float32 [probes, images, classes]."""
    device, generators = inputs.device, {seed: torch.Generator().manual_seed(seed) for seed in seeds}

    def drawn(draw: Callable, *arguments) -> torch.Tensor:
        """[probes, ...], by the seed of each."""
        by_seed = {seed: draw(*arguments, generator) for seed, generator in generators.items()}
        return torch.stack([by_seed[seed] for seed in seeds]).to(device)

    sizes = layer_sizes(inputs.shape[2] - 1, targets.shape[2], settings)
    block = Block([drawn(initial, *size) for size in sizes], settings)
    hidden = sizes[-1][0] if len(sizes) == 2 else 0
    steps = math.ceil(len(training) / settings.batch_size)
    factors = cosine(settings.epochs * steps, settings.warmup_ratio)
    rates = torch.tensor([settings.learning_rate * factor for factor in factors], device=device)
    take_steps, probe = replayed(block.take_steps), torch.arange(len(seeds), device=device)[:, None]
    torch.set_flush_denormal(True)  # moments of a dead unit fade below 1e-38, which slows a CPU several times
    try:
        for epoch in rates.split(steps):
            orders = drawn(lambda generator: training[torch.randperm(len(training), generator=generator)])
            prepared = orders.split(STEPS * settings.batch_size, dim=1)
            for images, their_rates in zip(prepared, epoch.split(STEPS), strict=True):
                masks = drawn(dropout_masks, images.shape[1], hidden, settings.dropout)
                take_steps(inputs[probe, images], targets[probe, images], masks, their_rates)
    finally:
        torch.set_flush_denormal(False)
    return block


def layer_sizes(width: int, classes: int, settings: Probe) -> list[tuple[int, int]]:
    return [*itertools.pairwise([width, *[settings.hidden] * (settings.kind == "mlp"), classes])]


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
        """Steps of AdamW, one a batch of the images and a learning rate."""
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
        *first, last = self.layers
        for layer in first:
            inputs = with_ones(torch.bmm(inputs, layer).relu_())
        return torch.bmm(inputs, last).softmax(dim=-1)


def with_ones(inputs: torch.Tensor) -> torch.Tensor:
    return pad(inputs, (0, 1), value=1.0)


def replayed(work: Callable[..., None]) -> Callable[..., None]:
    """`work(*tensors)`, on CUDA launched as one graph, as its dozen kernels each take less time than a launch: of each
    shapes of tensors the first call warms up, the second is captured, and later ones fill its copies."""
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


def cosine(steps: int, warmup_ratio: float) -> list[float]:
    """The learning rate's factor at each step: linear warm-up, then a cosine to zero."""
    warmup = math.ceil(steps * warmup_ratio)
    rising = [(step + 1) / (warmup + 1) for step in range(warmup)]
    falling = steps - warmup
    return rising + [0.5 * (1 + math.cos(math.pi * step / falling)) for step in range(falling)]
