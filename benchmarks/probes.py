"""Time to train the probes of many points with the paper's recipe: against a plain loop, scikit-learn and a floor.

The features are random: speed does not depend on what they hold.
"""

import argparse
import copy
import functools
import itertools
import math
import warnings
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from paired import enough_repetitions, interleaved, judge, machine, median_interval, seconds_of
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.probing.probes import blocks, cosine, fit_probes, initial, layer_sizes, standardise
from mlprobe_utils.probing.settings import Probe

RECIPE = load_protocol("paper").probe
CLASSES = 3
DISTINCT = 4  # feature tensors that the points of a cell share, as runs do: one each would be 4.5 GB
TARGETS = {128: 5.6, 512: 3.3, 1280: 1.1, 3584: 1.0}  # width -> times as fast as the loop; a single stack was that
TOLERANCE = 1e-3  # of probabilities after an epoch


class Cell:
    """Probes of so many points on so many training images, and the recipe's steps."""

    def __init__(self, width: int, points: int, samples: int, recipe: Probe = RECIPE):
        random = torch.Generator().manual_seed(0)
        tensors = [torch.randn(samples, width, generator=random) for _ in range(min(DISTINCT, points))]
        self.width, self.recipe = width, recipe
        self.features = {point: tensors[point % DISTINCT] for point in range(points)}
        self.labels = torch.randint(CLASSES, (samples,), generator=random).numpy()
        self.training = np.arange(samples)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * math.ceil(len(self.training) / self.recipe.batch_size)

    def shortened(self, steps: int) -> "Cell":
        """The same with fewer steps: in fewer epochs, and on as many of the images as they take."""
        images = steps * self.recipe.batch_size
        epochs = math.ceil(images / len(self.training))
        own = copy.copy(self)
        own.recipe = self.recipe.model_copy(update={"epochs": epochs})
        own.training = self.training[: images // epochs]
        return own


def device() -> torch.device:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def ours(cell: Cell, points: list[int]) -> dict[int, np.ndarray]:
    """`mlprobe_utils.probing.probes.fit_probes`, as the book runs it."""
    features = {point: cell.features[point] for point in points}
    labels, seeds = dict.fromkeys(points, cell.labels), dict.fromkeys(points, 0)
    return fit_probes(features, labels, cell.training, CLASSES, cell.recipe, seeds, device())


def loop(cell: Cell, points: list[int]) -> dict[int, np.ndarray]:
    """Torch's own layers, loss, schedule and fused AdamW, a probe after the other: what one writes first."""
    fitted = {}
    labels, training, loss = torch.tensor(cell.labels).to(device()), torch.tensor(cell.training), nn.CrossEntropyLoss()
    factors = [*cosine(cell.steps, cell.recipe.warmup_ratio), 0.0]  # the scheduler reads one after the last step
    for point in points:
        generator = torch.Generator().manual_seed(0)
        inputs = standardise(cell.features[point][None].to(device()), training)[0]
        sizes = layer_sizes(cell.width, CLASSES, cell.recipe)
        layers = [nn.Linear(*size) for size in sizes]
        for layer, size in zip(layers, sizes, strict=True):
            drawn = initial(*size, generator)
            layer.load_state_dict({"weight": drawn[:-1].T, "bias": drawn[-1]})
        probe = nn.Sequential(layers[0], nn.ReLU(), nn.Dropout(cell.recipe.dropout), layers[1]).to(device())
        settings = {"lr": cell.recipe.learning_rate, "weight_decay": cell.recipe.weight_decay}
        optimizer = torch.optim.AdamW(probe.parameters(), **settings, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors.__getitem__)
        for _ in range(cell.recipe.epochs):
            order = training[torch.randperm(len(training), generator=generator)].to(device())
            for batch in order.split(cell.recipe.batch_size):
                optimizer.zero_grad()
                loss(probe(inputs[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            fitted[point] = probe.eval()(inputs).softmax(dim=-1).cpu().numpy()
    return fitted


def scikit_learn(cell: Cell, points: list[int]) -> dict[int, np.ndarray]:
    """MLPClassifier, on the CPU. Not the same: no dropout, Adam with an L2 penalty, a constant rate."""
    fitted = {}
    for point in points:
        inputs = standardise(cell.features[point][None], torch.tensor(cell.training))[0].numpy()
        probe = MLPClassifier(
            (cell.recipe.hidden,),
            alpha=cell.recipe.weight_decay,
            batch_size=cell.recipe.batch_size,
            learning_rate_init=cell.recipe.learning_rate,
            max_iter=cell.recipe.epochs,
            n_iter_no_change=cell.recipe.epochs,  # no early end
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(inputs[cell.training], cell.labels[cell.training])
        fitted[point] = probe.predict_proba(inputs)
    return fitted


def floor(cell: Cell, points: list[int]) -> None:
    """What the optimizer must move at least: each weight and its two moments are read once and written once a step.

    Measured as a multiplication in place of as many numbers as a block of ours has, so in the cache or memory where
    they are. Gradients, products and the optimizer's arithmetic are free.
    """
    parameters = sum((inputs + 1) * outputs for inputs, outputs in layer_sizes(cell.width, CLASSES, cell.recipe))
    for block in blocks({point: cell.features[point] for point in points}, CLASSES, cell.recipe, device()):
        state = torch.zeros(len(block) * 3 * parameters, device=device())
        for _ in range(cell.steps):
            state.mul_(1.0)


LOOP, OURS = "PyTorch, one after the other", "mlprobe_utils"
CONTESTANTS = {LOOP: loop, OURS: ours, "scikit-learn": scikit_learn, "floor": floor}
STACKED = (OURS, "floor")  # for the others all points cost the same, and a few of them are enough


def agree(width: int, samples: int) -> str:
    """What was compared, in words: an epoch without dropout, for which the loop draws what we draw.

    Raises:
        RuntimeError: the probabilities of a probe of the loop and of ours differ.
    """
    cell = Cell(width, 2, samples, RECIPE.model_copy(update={"dropout": 0.0})).shortened(samples // RECIPE.batch_size)
    one, other = ours(cell, [0, 1]), loop(cell, [0, 1])
    distance = max(float(np.abs(one[point] - other[point]).max()) for point in one)
    if not distance <= TOLERANCE:  # written so that nan raises too
        raise RuntimeError(f"width {width}: the probabilities differ by {distance:.1e}, more than {TOLERANCE:.0e}")
    return f"Width {width}: after an epoch without dropout the loop's probabilities and ours differ by {distance:.0e}."


def seconds_of_recipe(name: str, cell: Cell, steps: int, alone: int) -> float:
    """What a contestant takes for all points and the whole recipe, extrapolated from some steps.

    What is done once (standardisation, the probabilities of all images) is in the time of a single step.

    Args:
        steps: that are run, more than one.
        alone: points that are run of a contestant that fits them one after the other; they stand for all.
    """
    points = list(cell.features) if name in STACKED else list(cell.features)[:alone]
    runs = [functools.partial(CONTESTANTS[name], cell.shortened(count), points) for count in (1, steps)]
    one, some = map(seconds_of, runs)
    return (one + (some - one) * (cell.steps - 1) / (steps - 1)) * len(cell.features) / len(points)


def measure(widths: list[int], points: list[int], samples: list[int], steps: int, repetitions: int, alone: int):
    """One row a cell and contestant; prints that loop and ours agree."""
    rows = []
    for width in widths:
        print(agree(width, min(samples)) + "\n", flush=True)
        for count, images in itertools.product(points, samples):
            cell = Cell(width, count, images)
            work = {name: functools.partial(seconds_of_recipe, name, cell, steps, alone) for name in CONTESTANTS}
            seconds = interleaved(work, repetitions)
            for name in CONTESTANTS:
                ratio, low, high = median_interval((seconds[name] / seconds[LOOP]).to_numpy())
                floors = float((seconds[name] / seconds["floor"]).median())
                median = float(seconds[name].median())
                each = 1e6 * median / count / cell.steps
                rows.append((width, count, images, name, median, each, 1 / ratio, 1 / high, 1 / low, floors))
    columns = ["width", "points", "images", "contestant", "seconds", "microseconds", "faster", "low", "high", "floors"]
    return pd.DataFrame(rows, columns=columns)


def markdown(table: pd.DataFrame) -> str:
    titles = ["width", "points", "images", "contestant", "seconds", "µs a probe and step", "times as fast (95 %)"]
    titles.append("times the floor")
    lines = ["| " + " | ".join(titles) + " |", "|" + " ---: |" * 3 + " --- |" + " ---: |" * 4]
    for row in table.itertuples():
        faster = f"{row.faster:.2f} ({row.low:.2f} to {row.high:.2f})"
        cells = [f"{row.width:,}", row.points, f"{row.images:,}", row.contestant, f"{row.seconds:,.1f}"]
        cells += [f"{row.microseconds:,.1f}", faster, f"{row.floors:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=list(TARGETS))
    parser.add_argument("--points", type=int, nargs="+", default=[30, 60])
    parser.add_argument("--samples", type=int, nargs="+", default=[624, 5216], help="training images")
    parser.add_argument("--steps", type=int, default=300, help="that are run of the recipe's")
    parser.add_argument("--alone", type=int, default=2, help="points that are run of those fitted one after the other")
    parser.add_argument("--repetitions", type=enough_repetitions, default=6, help="at least 6")
    parser.add_argument("--whole", type=int, nargs=3, metavar="N", help="width, points, samples to run to the end, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path, help="the table's numbers, to a file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.repetitions} repetitions of {options.steps} steps.\n")
    cells = options.widths, options.points, options.samples
    table = measure(*cells, options.steps, options.repetitions, options.alone)
    print(markdown(table))
    for row in table[(table["contestant"] == OURS) & table["width"].isin(TARGETS)].itertuples():
        target = TARGETS[row.width]
        print(
            f"\nWidth {row.width:,}, {row.points} points, {row.images:,} images: {row.faster:.2f} times as fast as the "
            f"loop; {target} is the target: {judge(1 / row.high, 1 / row.low, 1 / target)}"
        )
    if options.whole:
        cell = Cell(*options.whole)
        seconds = {name: seconds_of_recipe(name, cell, cell.steps, len(cell.features)) for name in (LOOP, OURS)}
        said = ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items())
        print("\nThe whole recipe, once, at width {:,} with {} points and {:,} images: ".format(*options.whole) + said)
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
