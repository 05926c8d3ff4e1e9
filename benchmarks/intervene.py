"""Time and memory of interventions against the bare forward pass and nnsight's, of single passes and of sweeps."""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from extraction import FORWARD, relative, wrapped_by_nnsight
from operations import shares
from paired import (
    compare,
    enough_repetitions,
    in_child,
    interleaved,
    judge,
    machine,
    markdown,
    median_interval,
    peak,
    seconds_of,
    start_of_peak,
)
from random_model import SIZES, describe, random_images, random_model

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.probing.edits import Erase, Keep, KnockOut, Patch, Skip, Steer, head
from mlprobe_utils.probing.interventions import (
    ALL,
    IMAGE_TOKENS,
    LAST_TOKEN,
    OF_HEADS,
    Edit,
    intervene,
    recorded,
    replayed,
)
from mlprobe_utils.synthetic.editing import states_of

TARGET = 1.05  # an edit takes at most 5 % longer than the bare pass, a sweep than its share of the operations
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  # relative; kernels and orders of summation differ
MOVED = 1e-4  # relative; an edit moves the logits by more, or agreement would say nothing
OWN = "mlprobe_utils"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Work(NamedTuple):
    """What one contestant does for one row of a table, and which share of the first row's operations that takes."""

    edit: str
    contestant: str
    run: Callable[[], torch.Tensor]  # logits of the last token, [rows, vocabulary], or [passes, rows, vocabulary]
    expected: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.edit}: {self.contestant}"


Groups = dict[str, list[Work]]  # what is timed together: single edits, passes that replay blocks, sweeps


class Case:
    """A batch of pairs of images of one size, with all that edits of it are made of. An image's donor is the other one
    of its pair."""

    def __init__(self, loaded: LoadedModel, inputs: dict[str, torch.Tensor]):
        self.loaded, self.inputs = loaded, inputs
        self.layers = [point.name for point in loaded.family.probe_points() if point.name[0] == "L"]
        self.middle = self.layers[len(self.layers) // 2]
        numbers = np.arange(len(inputs["input_ids"]))
        image, last = (states_of(loaded, inputs, self.layers, tokens) for tokens in (IMAGE_TOKENS, LAST_TOKEN))
        self.donors = [image[self.middle][number] for number in numbers ^ 1]
        self.last = {point: [own[number] for number in numbers ^ 1] for point, own in last.items()}
        features = torch.stack([own.float().mean(dim=0) for own in image[self.middle]])
        self.direction = features[1::2].mean(dim=0) - features[::2].mean(dim=0)
        made = Erase.mean_difference(self.middle, features.cpu(), numbers % 2)
        self.mean, self.projection = (part.to(features) for part in (made.mean, made.projection))
        with intervene(loaded, keep := Keep(self.middle + OF_HEADS, ALL)):
            self.logits()
        self.mean_of_heads = torch.cat(keep.kept).mean(dim=0)

    def logits(self, edits: Sequence[Edit] = ()) -> torch.Tensor:
        if not edits:
            return self.loaded.model(**self.inputs, **FORWARD).logits[:, -1]
        with intervene(self.loaded, edits):
            return self.logits()

    @functools.cached_property
    def kept(self) -> dict:
        with recorded(self.loaded) as kept:
            self.logits()
        return kept

    @functools.cached_property
    def needed(self) -> dict[str, float]:
        """Of a pass's operations, the share that is left for an edit of a layer: blocks before it are replayed."""
        own = shares(self.loaded, self.logits)
        blocks = list(own)
        return {point: 1 - sum(own[block] for block in blocks[: blocks.index(point)]) for point in self.layers}

    @property
    def share_of_sweep(self) -> float:
        """The pass that records, and one for each layer, as a share of as many whole ones."""
        return (1 + sum(self.needed.values())) / (1 + len(self.layers))

    def formula(self) -> str:
        """The expected shares in words; layers of one shape do equally much."""
        layer, count = self.needed[self.layers[0]] - self.needed[self.layers[1]], len(self.layers)
        tower, llm = 1 - self.needed[self.layers[0]], layer * count
        return (
            f"Expected, in forward passes: vision blocks do {tower:.1%} of a pass's operations, {count} LLM layers "
            f"{llm:.1%}. An edit at layer l = 0, 1, ... needs 1 - {tower:.3f} - {llm:.3f} l/{count}; a sweep of all, "
            f"with the pass that records, {self.share_of_sweep * (1 + count):.2f} instead of {1 + count}."
        )


def edits_of(case: Case) -> dict[str, Edit]:
    """One edit of each kind, of a middle layer."""
    point = case.middle
    return {
        "patch": Patch(point, case.donors),
        "steer": Steer(point, case.direction),
        "erase": Erase(point, case.mean, case.projection),
        "skip": Skip(point),
        "cut one layer": KnockOut(point),
        "cut all layers": KnockOut(case.layers[0], case.layers[-1]),
        "ablate a head": Patch(point + OF_HEADS, case.mean_of_heads, ALL, head(case.loaded, point, 0)),
    }


def sweeps_of(case: Case) -> dict[str, list[Edit]]:
    """An edit of every layer: the last token's state patched; the last token kept from image tokens from there on."""
    return {
        "patch": [Patch(point, case.last[point], LAST_TOKEN) for point in case.layers],
        "cut": [KnockOut(point, case.layers[-1]) for point in case.layers],
    }


def replaying(case: Case, edits: Sequence[Edit]) -> torch.Tensor:
    """A sweep as `mlprobe_utils.probing.sweeps` runs it: one pass records, the others compute what is behind."""
    with recorded(case.loaded) as kept:
        logits = [case.logits()]
    for edit in edits:
        with replayed(case.loaded, kept, edit.point):
            logits.append(case.logits([edit]))
    return torch.stack(logits)


def whole(case: Case, edits: Sequence[Edit]) -> torch.Tensor:
    """A sweep whose passes all compute everything."""
    return torch.stack([case.logits(), *(case.logits([edit]) for edit in edits)])


def bare(case: Case) -> Groups:
    """Forward passes and nothing else. The second row's ratio shows what the noise of this machine makes of 1."""
    once, passes = Work("none", "bare forward", case.logits), 1 + len(case.layers)

    def repeated() -> torch.Tensor:
        return torch.stack([case.logits() for _ in range(passes)])

    return {
        "edits": [once, Work("none", "bare forward, again", case.logits)],
        "passes": [once],
        "sweeps": [Work("none", f"bare forward, {passes} times", repeated)],
    }


def ours(case: Case) -> Groups:
    def behind(point: str) -> torch.Tensor:
        with replayed(case.loaded, case.kept, point):
            return case.logits([Patch(point, case.last[point], LAST_TOKEN)])

    groups = {
        "edits": [Work(name, OWN, functools.partial(case.logits, [edit])) for name, edit in edits_of(case).items()],
        "passes": [
            Work(f"patch at {point}", OWN, functools.partial(behind, point), case.needed[point])
            for point in case.layers
        ],
        "sweeps": [],
    }
    for name, edits in sweeps_of(case).items():
        groups["sweeps"] += [
            Work(name, f"{OWN}, whole passes", functools.partial(whole, case, edits)),
            Work(name, OWN, functools.partial(replaying, case, edits), case.share_of_sweep),
        ]
    return groups


def traced(case: Case) -> Groups:
    """nnsight: the same edits, written as its users write them. It replays nothing by itself; `skip` lets one do it."""
    from nnsight import save

    wrapped, modules = wrapped_by_nnsight(case.loaded)
    blocks = [point for point in modules if point[0] in "VL"]

    def logits(change: Callable[[], None] = lambda: None) -> torch.Tensor:
        with wrapped.trace(**case.inputs, **FORWARD):
            change()
            found = save(wrapped.output.logits[:, -1])
        return found

    def patch(point: str) -> Callable[[], None]:
        def change() -> None:
            modules[point].output[:, -1] = torch.cat(case.last[point])

        return change

    def sweep() -> torch.Tensor:
        return torch.stack([logits(), *(logits(patch(point)) for point in case.layers)])

    def replay() -> torch.Tensor:
        with wrapped.trace(**case.inputs, **FORWARD):
            kept = save({point: modules[point].output for point in blocks})
            first = save(wrapped.output.logits[:, -1])

        def change(point: str) -> None:
            for earlier in blocks[: blocks.index(point)]:
                modules[earlier].skip(kept[earlier])
            patch(point)()

        return torch.stack([first, *(logits(functools.partial(change, point)) for point in case.layers)])

    return {
        "edits": [
            Work(name, "nnsight", functools.partial(logits, change))
            for name, change in in_a_trace(case, modules).items()
        ],
        "passes": [],
        "sweeps": [
            Work("patch", "nnsight, whole passes", sweep),
            Work("patch", "nnsight, replayed by hand", replay, case.share_of_sweep),
        ],
    }


def in_a_trace(case: Case, modules: dict) -> dict[str, Callable[[], None]]:
    """The edits of `edits_of` in nnsight's words, on batches padded on the left; no code of the package."""
    layer, own_head = modules[case.middle], head(case.loaded, case.middle, 0)
    image = case.inputs["input_ids"] == case.loaded.model.config.image_token_id

    def patch() -> None:
        layer.output[image] = torch.cat(case.donors)

    def steer() -> None:
        layer.output[image] += case.direction.to(layer.output.dtype)

    def erase() -> None:
        own = layer.output[image].float()
        layer.output[image] = (own - (own - case.mean) @ case.projection).to(layer.output.dtype)

    def skip() -> None:
        layer.skip(layer.input)

    def ablate() -> None:
        layer.self_attn.o_proj.input[..., own_head] = case.mean_of_heads[own_head]

    def cut(points: Sequence[str]) -> None:
        present = case.inputs["attention_mask"].bool()
        seen = present[:, None, None, :] & torch.ones_like(present[0]).expand(present.shape[1], -1).tril()
        seen[:, :, -1] &= ~image[:, None]
        mask = torch.zeros(seen.shape, dtype=case.loaded.model.dtype, device=seen.device)
        mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)
        for point in points:
            given, named = modules[point].inputs
            modules[point].inputs = given, named | {"attention_mask": mask}

    return {
        "patch": patch,
        "steer": steer,
        "erase": erase,
        "skip": skip,
        "cut one layer": functools.partial(cut, [case.middle]),
        "cut all layers": functools.partial(cut, case.layers),
        "ablate a head": ablate,
    }


CONTESTANTS = {"bare forward": bare, OWN: ours, "nnsight": traced}


def agree(works: Sequence[Work], precision: torch.dtype) -> str:
    """How far the logits of each edit are from ours, and how far ours are from those of no edit.

    Raises:
        RuntimeError: a contestant's logits differ, or the edit does nothing to them.
    """
    results = {work.name: work.run().float() for work in works}
    own = {work.edit: results[work.name] for work in works if work.contestant == OWN}
    none, tolerance, said = results[works[0].name], TOLERANCE[precision], []
    for edit, logits in own.items():
        if not (moved := distance(logits, none)) > MOVED:
            raise RuntimeError(f"{edit} moves the logits by {moved:.1e} alone: that others agree would say nothing")
        others = [work for work in works if work.edit == edit and work.contestant != OWN]
        found = {work.contestant: distance(results[work.name], logits) for work in others}
        for name, far in found.items():
            if not far <= tolerance:  # written so that nan raises too
                raise RuntimeError(f"{edit}: {name} and {OWN} differ by {far:.1e}, more than {tolerance:.0e}")
        differ = "".join(f", {name} differs by {far:.0e}" for name, far in found.items())
        said.append(f"{edit} moves them by {moved:.1g}{differ}")
    return "Logits, relative: " + "; ".join(said) + "."


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return relative(one.flatten(end_dim=-2), other.flatten(end_dim=-2))


def case_of(size: str, loaded: LoadedModel, batch: int) -> Case:
    """Pairs of images of several sizes with the question of a data card, where the model is."""
    encoder = Encoder(loaded.processor, load_data_card("busi").template)
    return Case(loaded, to_device(encoder.questions(random_images(size, batch, each=2)), loaded))


@torch.inference_mode()
def memory_of(
    contestant: str, size: str, precision: str, batches: list[int], threads: int, only: list[str]
) -> dict[tuple[int, str, str], int]:
    """Batch size, group and name of a work -> peak in bytes above model and inputs, in a second run."""
    torch.set_num_threads(threads)
    loaded, peaks = random_model(size, precision), {}
    for batch in batches:
        groups = CONTESTANTS[contestant](case_of(size, loaded, batch))
        for group in only:
            for work in groups[group]:
                work.run()
                before = start_of_peak()
                work.run()
                peaks[batch, group, work.name] = peak() - before
    return peaks


def timed(
    works: Sequence[Work], memory: dict[str, int], repetitions: int, clock: Callable[[], float]
) -> tuple[pd.DataFrame, list[str]]:
    """A row a work, with its ratio to the first; and of each edit our time to nnsight's, in words."""
    for work in works:
        work.run()
    seconds = interleaved({work.name: lambda run=work.run: seconds_of(run, clock) for work in works}, repetitions)
    table = compare(seconds, works[0].name, memory).drop(columns="contestant")
    for place, column in enumerate(("edit", "contestant", "expected")):
        table.insert(place, column, [getattr(work, column) for work in works])
    pairs = [(own, other) for own in works for other in works if own.edit == other.edit]
    pairs = [pair for pair in pairs if pair[0].contestant == OWN and pair[1].contestant.startswith("nnsight")]
    said = []
    for own, other in pairs:
        ratio, low, high = median_interval((seconds[own.name] / seconds[other.name]).to_numpy())
        said.append(f"{own.edit}: {ratio:.3f} ({low:.3f} to {high:.3f}) times {other.contestant}")
    return table, said


@torch.inference_mode()
def measure(
    size: str, precision: str, batches: list[int], repetitions: int, threads: int, only: list[str], clock: str
) -> pd.DataFrame:
    """One row a batch size, group and work; prints what it is measured on, and that the contestants agree."""
    loaded = random_model(size, precision)
    print(f"{describe(loaded)}; {machine()}; {repetitions} repetitions, {clock} clock.\n")
    names = [name for name in CONTESTANTS if name != "nnsight" or importlib.util.find_spec("nnsight")]
    if "nnsight" not in names:
        print('nnsight is not installed, so it is not measured: `pip install -e ".[benchmark]"`.\n')
    memory = {}
    for name in names:
        memory |= in_child(memory_of, name, size, precision, batches, threads, only)
    tables = []
    for batch in batches:
        case = case_of(size, loaded, batch)
        print(f"Batch {batch}: edits at {case.middle} of {len(case.layers)} layers. {case.formula()}\n")
        groups = [CONTESTANTS[name](case) for name in names]
        for group in only:
            works = [work for of_contestant in groups for work in of_contestant[group]]
            edits = [work.edit for work in works]
            works.sort(key=lambda work: edits.index(work.edit))  # ours beside nnsight's
            if group != "passes":  # they are those of a sweep
                print(agree(works, loaded.model.dtype) + "\n")
            of_group = {work.name: memory[batch, group, work.name] for work in works}
            table, against_nnsight = timed(works, of_group, repetitions, CLOCKS[clock])
            table.insert(0, "batch", batch)
            print(markdown(table.assign(expected=table["expected"].map("{:.3f}".format))) + "\n", flush=True)
            for line in [*verdicts(table), *against_nnsight]:
                print(f"- {line}")
            print()
            tables.append(table.assign(group=group))
    return pd.concat(tables, ignore_index=True)


def verdicts(table: pd.DataFrame) -> list[str]:
    """How far each of our rows is above its share of the operations, by its interval."""
    return [
        f"{row.edit}: {row.ratio / row.expected - 1:+.1%} over what is expected ({row.low / row.expected - 1:+.1%} to "
        f"{row.high / row.expected - 1:+.1%}); at most {TARGET - 1:+.0%} is the target: "
        f"{judge(row.low / row.expected, row.high / row.expected, TARGET)}"
        for row in table[table["contestant"] == OWN].itertuples()
    ]


def pairs(text: str) -> int:
    if (images := int(text)) < 2 or images % 2:
        raise argparse.ArgumentTypeError(f"{text} images are no pairs: give an even number")
    return images


def main(arguments: list[str] | None = None) -> None:
    groups = ["edits", "passes", "sweeps"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SIZES), default="base")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=pairs, nargs="+", default=[2], help="images in a batch, an even number")
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, help="what is timed")
    parser.add_argument("--repetitions", type=enough_repetitions, default=12, help="at least 6")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: where other programs are at work")
    parser.add_argument("--csv", type=Path, help="the tables' numbers, to a file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    given = (options.model, options.precision, options.batches, options.repetitions, options.threads)
    table = measure(*given, options.only, options.clock)
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
