"""What full-size models cost on an accelerator: extraction, sweeps of interventions, and LoRA fine-tuning with the
paper's recipe.

Random weights in the real classes and shapes of data/architectures, so that nothing need be downloaded. Speed does not
depend on what weights hold; answers and features mean nothing here.
"""

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import mlprobe_utils.models.compat

import intervene
import numpy as np
import pandas as pd
import torch
from extraction import bare, ours
from operations import operations
from paired import compare, enough_repetitions, interleaved, machine, peak, seconds_of, start_of_peak, synchronize
from peft import get_peft_model
from random_model import full_size
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.training.fine_tuning import lora_config, settings_of
from mlprobe_utils.training.settings import FineTuning
from mlprobe_utils.training.trainer import AnswerTrainer, Examples, training_arguments

MODELS = ("qwen2.5-vl-7b", "gemma-3-4b")
RECIPE = load_protocol("paper").fine_tuning
PARTS = ("extraction", "sweeps", "fine-tuning")
PAIR = 2  # images of a sweep
WARM_UP = 2  # steps before the clock starts: kernels are chosen and memory is laid out there


def matrix_rate(size: int, precision: torch.dtype = torch.bfloat16, repetitions: int = 20) -> float:
    """The chip's measured rate, operations a second: the median of products of two square matrices."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    one, other = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    seconds = [seconds_of(lambda: one @ other) for _ in range(WARM_UP + repetitions)][WARM_UP:]
    return 2 * size**3 / float(np.median(seconds))


def images_of(side: int, count: int) -> list[np.ndarray]:
    """Noise, uint8 [side, side, 3]."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def timed(work: dict[str, Callable[[], object]], repetitions: int) -> pd.DataFrame:
    """One row a contestant, against the first one; peak memory is above the model's."""
    memory = {}
    for name, run in work.items():
        run()
        before = start_of_peak()
        run()
        memory[name] = peak() - before
    seconds = interleaved({name: lambda run=run: seconds_of(run) for name, run in work.items()}, repetitions)
    return compare(seconds, next(iter(work)), memory).set_index("contestant")


def in_words(row: pd.Series) -> str:
    return f"{row['ratio'] - 1:+.1%} ({row['low'] - 1:+.1%} to {row['high'] - 1:+.1%})"


@torch.inference_mode()
def extraction_row(loaded: LoadedModel, encoder: Encoder, side: int, batch: int, repetitions: int, rate: float) -> dict:
    """Extraction of one batch against the bare forward pass on it."""
    inputs = to_device(encoder.questions(images_of(side, batch)), loaded)
    work = {"bare forward": bare(loaded, inputs), "mlprobe_utils": ours(loaded, inputs)}
    row = timed(work, repetitions).loc["mlprobe_utils"]
    return {
        "what": "extraction",
        "batch": batch,
        "tokens": inputs["input_ids"].shape[1],
        "images/s": batch / row["seconds"],
        "over the bare forward": in_words(row),
        "peak, GiB": row["memory_mib"] / 2**10,
        "share of the chip's rate": operations(work["bare forward"]) / row["seconds"] / rate,
    }


@torch.inference_mode()
def sweep_rows(loaded: LoadedModel, encoder: Encoder, side: int, repetitions: int, rate: float) -> list[dict]:
    """One pair of images with every LLM layer patched, and with the last token cut from the image from every layer on,
    against as many bare passes. Logits are compared with those of passes that replay nothing."""
    inputs = to_device(encoder.questions(images_of(side, PAIR)), loaded)
    case = intervene.Case(loaded, inputs)
    works = [*intervene.bare(case)["sweeps"], *intervene.ours(case)["sweeps"]]
    print(f"{case.formula()} {intervene.agree(works, loaded.model.dtype)}\n", flush=True)
    first, *swept = [work for work in works if work.contestant == intervene.OWN or work is works[0]]
    table = timed({work.edit: work.run for work in (first, *swept)}, repetitions)
    return [
        {
            "what": f"{work.edit} sweep, {len(case.layers)} layers",
            "batch": PAIR,
            "tokens": inputs["input_ids"].shape[1],
            "images/s": PAIR / table.loc[work.edit, "seconds"],
            "over the bare forward": f"{in_words(table.loc[work.edit])}, expected {work.expected - 1:+.1%}",
            "peak, GiB": table.loc[work.edit, "memory_mib"] / 2**10,
            "share of the chip's rate": operations(work.run) / table.loc[work.edit, "seconds"] / rate,
        }
        for work in swept
    ]


class Clock(TrainerCallback):
    """The time at the end of every step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.times = []

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        self.times.append(time.perf_counter())


def train_steps(model, loaded: LoadedModel, encoder: Encoder, side: int, steps: int, recipe: FineTuning) -> Clock:
    """Training steps as `mlprobe_utils.training.trainer.train` runs them, images made into inputs included."""
    pictures, clock = images_of(side, recipe.batch_size), Clock()
    options = load_data_card("busi").options
    answers = [options[i % len(options)] for i in range(recipe.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(settings_of(recipe, 0), Path(folder), max_steps=steps, save_strategy="no")
        trainer = AnswerTrainer(
            model=model,
            args=arguments,
            train_dataset=Examples(pictures.__getitem__, list(range(recipe.batch_size)) * steps, answers * steps),
            data_collator=partial(AnswerTrainer.encoded, encoder),
            callbacks=[clock],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else one more around it every time
    return clock


def training_row(loaded: LoadedModel, encoder: Encoder, side: int, steps: int, rate: float) -> dict:
    """Fine-tuning steps after the warm-up; peak memory is above the model's."""
    adapted = get_peft_model(loaded.model, lora_config(loaded, RECIPE))
    work = (adapted, loaded, encoder, side)
    train_steps(*work, WARM_UP, RECIPE)
    done = operations(lambda: train_steps(*work, 1, RECIPE))
    before = start_of_peak()
    times = train_steps(*work, WARM_UP + steps, RECIPE).times[WARM_UP - 1 :]
    used, seconds = peak() - before, (times[-1] - times[0]) / steps
    adapted.unload()
    return {
        "what": f"fine-tuning, {steps} steps",
        "batch": RECIPE.batch_size,
        "tokens": encoder.questions(images_of(side, 1))["input_ids"].shape[1],
        "images/s": RECIPE.batch_size / seconds,
        "over the bare forward": "",
        "peak, GiB": used / 2**30,
        "share of the chip's rate": done / seconds / rate,
    }


def measure(
    loaded: LoadedModel,
    side: int,
    batches: list[int],
    steps: int,
    repetitions: int,
    rate: float,
    only: Sequence[str] = PARTS,
) -> pd.DataFrame:
    """One row a batch size of extraction, one a sweep, and one for fine-tuning."""
    encoder, rows = Encoder(loaded.processor, load_data_card("busi").template), []
    if "extraction" in only:
        rows += [extraction_row(loaded, encoder, side, batch, repetitions, rate) for batch in batches]
    if "sweeps" in only:
        rows += sweep_rows(loaded, encoder, side, repetitions, rate)
    if "fine-tuning" in only:
        rows.append(training_row(loaded, encoder, side, steps, rate))
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    words = table.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    lines = [list(words), ["---"] * len(words.columns), *words.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="files in data/architectures")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--side", type=int, default=500, help="of the square images, in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="images in a batch of extraction")
    parser.add_argument("--steps", type=int, default=20, help="of fine-tuning, after the warm-up")
    parser.add_argument("--repetitions", type=enough_repetitions, default=20, help="but of fine-tuning, at least 6")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices that measure the chip's rate")
    parser.add_argument("--csv", type=Path, help="the table's numbers, to a file")
    options = parser.parse_args(arguments)
    if not torch.accelerator.is_available():
        parser.error("there is no accelerator: full-size models need one")
    rate = matrix_rate(options.matrix)
    print(
        f"{datetime.date.today()}; {machine()}; {rate / 1e12:.0f} TFLOP/s in bfloat16 products of {options.matrix}.\n"
    )
    tables = []
    for name in options.models:
        loaded = full_size(name, "bfloat16")
        weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters()) / 2**30
        what = (options.side, options.batches, options.steps, options.repetitions, rate, options.only)
        table = measure(loaded, *what)
        table.insert(0, "model", f"{name}, {weights:.1f} GiB")
        tables.append(table)
        print(as_markdown(table), flush=True)  # a time limit may end the next one
        del loaded  # before the next one comes
        torch.accelerator.empty_cache()
    if options.csv:
        pd.concat(tables, ignore_index=True).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
