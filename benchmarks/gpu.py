"""What full-size models cost on an accelerator: extraction, and LoRA fine-tuning with the paper's recipe.

Random weights in the real classes and shapes of data/architectures, so that nothing need be downloaded. Speed does not
depend on what weights hold; answers and features mean nothing here.
"""

import argparse
import datetime
import tempfile
import time
from functools import partial
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from extraction import bare, ours
from paired import compare, enough_repetitions, interleaved, machine, peak, seconds_of, start_of_peak, synchronize
from peft import get_peft_model
from random_model import full_size
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count
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
WARM_UP = 2  # steps before the clock starts: kernels are chosen and memory is laid out there


def forward_operations(query, key, value, *_, out_shape=None, **__) -> int:
    """Of attention in which several query heads share a key head, which torch's own formulas refuse; shapes."""
    return sdpa_flop_count(query, *(shape[:1] + query[1:2] + shape[2:] for shape in (key, value)))


def backward_operations(gradient, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, *(s[:1] + query[1:2] + s[2:] for s in (key, value)))


GROUPED = {
    operator: backward_operations if "backward" in str(operator) else forward_operations
    for operator in flop_registry
    if "scaled_dot_product" in str(operator)
}


def matrix_rate(size: int, precision: torch.dtype = torch.bfloat16, repetitions: int = 20) -> float:
    """The chip's measured rate, operations a second: the median of products of two square matrices."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    one, other = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    seconds = [seconds_of(lambda: one @ other) for _ in range(WARM_UP + repetitions)][WARM_UP:]
    return 2 * size**3 / float(np.median(seconds))


def operations(work) -> int:
    """Floating-point operations of the matrix products and attention of `work()`, recomputed ones included."""
    with FlopCounterMode(display=False, custom_mapping=GROUPED) as counter:
        work()
    return counter.get_total_flops()


def images_of(side: int, count: int) -> list[np.ndarray]:
    """Noise, uint8 [side, side, 3]."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


@torch.inference_mode()
def extraction_row(loaded: LoadedModel, encoder: Encoder, side: int, batch: int, repetitions: int, rate: float) -> dict:
    """Extraction of one batch against the bare forward pass on it; peak memory is above the model's."""
    inputs = to_device(encoder.questions(images_of(side, batch)), loaded)
    work = {"bare forward": bare(loaded, inputs), "mlprobe_utils": ours(loaded, inputs)}
    memory = {}
    for name, run in work.items():
        run()
        before = start_of_peak()
        run()
        memory[name] = peak() - before
    seconds = interleaved({name: lambda run=run: seconds_of(run) for name, run in work.items()}, repetitions)
    row = compare(seconds, "bare forward", memory).set_index("contestant").loc["mlprobe_utils"]
    return {
        "what": "extraction",
        "batch": batch,
        "tokens": inputs["input_ids"].shape[1],
        "images/s": batch / row["seconds"],
        "over the bare forward": f"{row['ratio'] - 1:+.1%} ({row['low'] - 1:+.1%} to {row['high'] - 1:+.1%})",
        "peak, GiB": row["memory_mib"] / 2**10,
        "share of the chip's rate": operations(work["bare forward"]) / row["seconds"] / rate,
    }


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
    loaded: LoadedModel, side: int, batches: list[int], steps: int, repetitions: int, rate: float
) -> pd.DataFrame:
    """One row a batch size of extraction, and one for fine-tuning."""
    encoder = Encoder(loaded.processor, load_data_card("busi").template)
    rows = [extraction_row(loaded, encoder, side, batch, repetitions, rate) for batch in batches]
    return pd.DataFrame([*rows, training_row(loaded, encoder, side, steps, rate)])


def as_markdown(table: pd.DataFrame) -> str:
    words = table.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    lines = [list(words), ["---"] * len(words.columns), *words.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="files in data/architectures")
    parser.add_argument("--side", type=int, default=500, help="of the square images, in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="images in a batch of extraction")
    parser.add_argument("--steps", type=int, default=20, help="of fine-tuning, after the warm-up")
    parser.add_argument("--repetitions", type=enough_repetitions, default=20, help="of extraction, at least 6")
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
        table = measure(loaded, options.side, options.batches, options.steps, options.repetitions, rate)
        table.insert(0, "model", f"{name}, {weights:.1f} GiB")
        tables.append(table)
        print(as_markdown(table), flush=True)  # a time limit may end the next one
        del loaded  # before the next one comes
        torch.accelerator.empty_cache()
    if options.csv:
        pd.concat(tables, ignore_index=True).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
