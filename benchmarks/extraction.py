"""Time and memory of extraction against the bare forward pass, `output_hidden_states` and nnsight, side by side."""

import argparse
import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from paired import (
    compare,
    enough_repetitions,
    in_child,
    interleaved,
    judge,
    machine,
    markdown,
    peak,
    seconds_of,
    start_of_peak,
)
from random_model import SIZES, describe, random_images, random_model

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.probing.extraction import capturing

TARGET = 1.05  # our extraction takes at most 5 % longer than the bare forward pass
TOLERANCE = 1e-5  # relative; all pool in float32, in different orders
FORWARD = {"logits_to_keep": 1, "use_cache": False}
Features = dict[str, torch.Tensor]


def bare(loaded: LoadedModel, inputs: dict) -> Callable[[], Features]:
    """The forward pass and nothing else: no features."""

    def run() -> Features:
        loaded.model(**inputs, **FORWARD)
        return {}

    return run


def ours(loaded: LoadedModel, inputs: dict) -> Callable[[], Features]:
    """What `mlprobe_utils.probing.extraction.extract` does with a batch."""

    def run() -> Features:
        with capturing(loaded, inputs) as captured:
            loaded.model(**inputs, **FORWARD)
        return dict(captured)

    return run


def hidden_states(loaded: LoadedModel, inputs: dict) -> Callable[[], Features]:
    """transformers' own: LLM layers only, the last one behind the final norm and so no feature of ours."""

    def run() -> Features:
        states = loaded.model(**inputs, **FORWARD, output_hidden_states=True).hidden_states
        pool = Pooling(loaded, inputs)
        features = {}
        for i, state in enumerate(states[1:-1]):  # the first is the embedding
            features |= pool(f"L.{i:02d}", state)
        return {key: vector.cpu() for key, vector in features.items()}

    return run


def wrapped_by_nnsight(loaded: LoadedModel) -> tuple:
    """nnsight's model, and by probe point its modules."""
    from nnsight import NNsight  # of the benchmark's extra: the others run without it

    # nnsight puts a `forward` of its own into every module, for good: it gets modules of its own over the same
    # weights, or the others would pay for it
    shared = {id(tensor): tensor for tensor in (*loaded.model.parameters(), *loaded.model.buffers())}
    wrapped = NNsight(copy.deepcopy(loaded.model, shared))
    names = {module: name for name, module in loaded.model.named_modules()}
    return wrapped, {point.name: wrapped.get(names[point.module]) for point in loaded.family.probe_points()}


def traced(loaded: LoadedModel, inputs: dict) -> Callable[[], Features]:
    """nnsight: the same modules, pooled inside the trace."""
    from nnsight import save

    wrapped, points = wrapped_by_nnsight(loaded)

    def run() -> Features:
        pool = Pooling(loaded, inputs)
        with wrapped.trace(**inputs, **FORWARD):
            features = save({})
            for name, module in points.items():
                features |= pool(name, module.output)
        return {key: vector.cpu() for key, vector in features.items()}

    return run


CONTESTANTS = {
    "bare forward": bare,
    "bare forward, again": bare,  # its ratio shows what the noise of this machine makes of 1
    "mlprobe_utils": ours,
    "output_hidden_states": hidden_states,
    "nnsight": traced,
}


class Pooling:
    """The pooling as one would write it for a batch of one image a prompt, padded on the left: no code of the package.

    So the agreement of the contestants also checks the package's own.
    """

    def __init__(self, loaded: LoadedModel, inputs: dict):
        config = loaded.model.config
        self.patches = inputs["image_grid_thw"].prod(dim=-1).tolist()
        self.tokens = [count // config.vision_config.spatial_merge_size**2 for count in self.patches]
        self.first = (inputs["input_ids"] == config.image_token_id).int().argmax(dim=1).tolist()

    def __call__(self, point: str, output: torch.Tensor) -> Features:
        """`point/pooling` -> float32 [images, width] of a probe point's output."""
        if point.startswith("L"):
            spans = zip(output, self.first, self.tokens, strict=True)
            images = [row[first : first + count] for row, first, count in spans]
        else:
            images = output.split(self.patches if point.startswith("V") else self.tokens)
        features = {f"{point}/image_mean": torch.stack([image.mean(dim=0, dtype=torch.float32) for image in images])}
        if point.startswith("L"):
            features[f"{point}/last_token"] = output[:, -1].float()
        return features


def encoded(loaded: LoadedModel, size: str, batch: int) -> dict[str, torch.Tensor]:
    """A batch of images of several sizes with the question of a data card, where the model is."""
    encoder = Encoder(loaded.processor, load_data_card("busi").template)
    return to_device(encoder.questions(random_images(size, batch)), loaded)


def agree(features: dict[str, Features]) -> str:
    """What was compared, in words.

    Raises:
        RuntimeError: a contestant has a vector that we have not, or another value for it.
    """
    reference, said = features["mlprobe_utils"], []
    for name, own in features.items():
        if unknown := sorted(set(own) - set(reference)):
            raise RuntimeError(f"{name} has features that mlprobe_utils has not: {unknown}")
        distance = float(np.max([relative(vector, reference[key]) for key, vector in own.items()], initial=0.0))
        if not distance <= TOLERANCE:  # written so that nan raises too
            raise RuntimeError(f"{name} and mlprobe_utils differ by {distance:.1e}, more than {TOLERANCE:.0e}")
        said.append(f"{name} {len(own)} of {len(reference)} (up to {distance:.0e})")
    return "Vectors an image, and their relative distance to ours: " + "; ".join(said) + "."


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest relative distance between two sets of vectors, [images, width]."""
    return float(((one - other).norm(dim=1) / other.norm(dim=1)).max())


@torch.inference_mode()
def memory_of(name: str, size: str, precision: str, batches: list[int], threads: int) -> dict[int, int]:
    """Batch size -> peak in bytes above model and inputs, in a second run: the first one is all that is lazy."""
    torch.set_num_threads(threads)
    loaded = random_model(size, precision)
    peaks = {}
    for batch in batches:
        work = CONTESTANTS[name](loaded, encoded(loaded, size, batch))
        work()
        before = start_of_peak()
        work()
        peaks[batch] = peak() - before
    return peaks


@torch.inference_mode()
def measure(size: str, precision: str, batches: list[int], repetitions: int, threads: int) -> pd.DataFrame:
    """One row a batch size and contestant; prints what it is measured on, and that the contestants agree."""
    loaded = random_model(size, precision)
    print(f"{describe(loaded)}; {machine()}; {repetitions} repetitions.\n")
    names = [name for name in CONTESTANTS if name != "nnsight" or importlib.util.find_spec("nnsight")]
    if "nnsight" not in names:
        print('nnsight is not installed, so it is not measured: `pip install -e ".[benchmark]"`.\n')
    memory = {name: in_child(memory_of, name, size, precision, batches, threads) for name in names}
    tables = []
    for batch in batches:
        inputs = encoded(loaded, size, batch)
        tokens = (inputs["image_grid_thw"].prod(dim=-1) // 4).tolist()
        work = {name: CONTESTANTS[name](loaded, inputs) for name in names}
        features = {name: run() for name, run in work.items()}  # also everyone's warm-up
        print(f"Batch {batch}: {', '.join(map(str, tokens))} image tokens. {agree(features)}\n")
        seconds = interleaved({name: lambda run=run: seconds_of(run) for name, run in work.items()}, repetitions)
        table = compare(seconds, "bare forward", {name: memory[name][batch] for name in names})
        table.insert(0, "batch", batch)
        table.insert(2, "vectors", [len(features[name]) for name in names])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SIZES), default="base")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="images in a batch")
    parser.add_argument("--repetitions", type=enough_repetitions, default=30, help="at least 6")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path, help="the table's numbers, to a file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    table = measure(options.model, options.precision, options.batches, options.repetitions, options.threads)
    print(markdown(table))
    for row in table[table["contestant"] == "mlprobe_utils"].itertuples():
        print(
            f"\nBatch {row.batch}: {row.ratio - 1:+.1%} over the bare forward pass "
            f"({row.low - 1:+.1%} to {row.high - 1:+.1%}); at most {TARGET - 1:+.0%} is the target: "
            f"{judge(row.low, row.high, TARGET)}"
        )
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
