"""Time and memory of one LoRA training step: logits at the answer's columns only, against a plain Trainer with all."""

import argparse
import tempfile
import time
from pathlib import Path

import mlprobe_utils.models.compat

import pandas as pd
import torch
from paired import (
    compare,
    enough_repetitions,
    in_child,
    interleaved,
    machine,
    markdown,
    peak,
    start_of_peak,
    synchronize,
)
from peft import PeftModel, get_peft_model
from random_model import SIZES, describe, random_images, random_model
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.training.fine_tuning import lora_config
from mlprobe_utils.training.trainer import AnswerTrainer, Examples, TrainingSettings, training_arguments

RECIPE = load_protocol("paper").fine_tuning
BASE = "Trainer, all logits"
CONTESTANTS = {BASE: Trainer, "AnswerTrainer": AnswerTrainer}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # relative, of loss and gradients


class Meter(TrainerCallback):
    """Seconds, peak memory, loss and gradients of a step: forward, backward, clipping and optimizer."""

    def __init__(self, keep_gradients: bool):
        self.keep_gradients = keep_gradients

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = start_of_peak()
        synchronize()
        self.start = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.keep_gradients:
            self.gradients = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        self.seconds, self.peak = time.perf_counter() - self.start, peak() - self.before

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:  # the line at the end of training has none
            self.loss = logs["loss"]


class Bench:
    """A model with LoRA, a batch, and a step of either trainer on it."""

    def __init__(self, size: str, vocabulary: int, precision: str, batch: int):
        loaded = random_model(size, precision, vocabulary)
        self.description, self.precision, self.batch = describe(loaded), precision, batch
        card = load_data_card("busi")
        encoder = Encoder(loaded.processor, card.template)
        answers = [card.options[i % len(card.options)] for i in range(batch)]
        self.short = encoder.answered(random_images(size, batch), answers)
        config = lora_config(loaded, RECIPE)
        config.init_lora_weights = False  # with B = 0, as training begins, half of the gradients would be zero
        self.model: PeftModel = get_peft_model(loaded.model, config)

    def inputs(self, name: str) -> dict[str, torch.Tensor]:
        """The batch as a contestant reads it: labels for the answer's columns, or for all, -100 before the answer."""
        if CONTESTANTS[name] is AnswerTrainer:
            return dict(self.short)
        ids, labels = self.short["input_ids"], self.short["labels"]
        prompt = torch.full((len(ids), ids.shape[1] - labels.shape[1]), -100)
        return self.short | {"labels": torch.cat([prompt, labels], dim=1)}

    def step(self, name: str, checkpointing: bool, keep_gradients: bool = False) -> Meter:
        """One training step; only the step itself is measured, and the adapter keeps its weights."""
        kept = {key: p.detach().clone() for key, p in self.model.named_parameters() if p.requires_grad}
        meter = Meter(keep_gradients)
        with tempfile.TemporaryDirectory() as folder:
            trainer = CONTESTANTS[name](
                model=self.model,
                args=self.arguments(folder, checkpointing, clipped=not keep_gradients),
                train_dataset=Examples(lambda i: i, list(range(self.batch)), [""] * self.batch),
                data_collator=lambda _: self.inputs(name),
                callbacks=[meter],
            )
            trainer.pop_callback(PrinterCallback)
            trainer.train()
        trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)  # else one more around it every time
        self.model.base_model.model.activation_checkpointing_disable()
        self.model.zero_grad()
        with torch.no_grad():
            for key, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(kept[key])
        return meter

    def arguments(self, folder: str, checkpointing: bool, clipped: bool) -> TrainingArguments:
        """Those of `mlprobe_utils.training.trainer.train`, for a single step."""
        settings = TrainingSettings(
            learning_rate=RECIPE.learning_rate,
            epochs=1,
            batch_size=self.batch,
            warmup_ratio=0.0,
            weight_decay=RECIPE.weight_decay,
            seed=0,
            max_gradient_norm=RECIPE.max_gradient_norm if clipped else 0,  # clipping would hide a wrong scale
            precision=self.precision,
            gradient_checkpointing=checkpointing,
        )
        return training_arguments(settings, Path(folder), max_steps=1, save_strategy="no", logging_steps=1)

    def agree(self, checkpointing: bool) -> str:
        """What was compared, in words.

        Raises:
            RuntimeError: the two trainers' losses or gradients differ.
        """
        plain, own = (self.step(name, checkpointing, keep_gradients=True) for name in CONTESTANTS)
        loss = abs(own.loss - plain.loss) / abs(plain.loss)
        gradients = float((own.gradients - plain.gradients).norm() / plain.gradients.norm())
        tolerance = TOLERANCE[self.precision]
        if not (loss <= tolerance and gradients <= tolerance):  # written so that nan raises too
            again = self.step(BASE, checkpointing, keep_gradients=True)
            itself = float((again.gradients - plain.gradients).norm() / plain.gradients.norm())
            raise RuntimeError(
                f"the trainers differ: loss by {loss:.1e}, gradients by {gradients:.1e}; {BASE} from itself, again, by "
                f"{itself:.1e}"
            )
        return f"loss {own.loss:.4f}, relative difference {loss:.0e}, of the gradients {gradients:.0e}"


def memory_of(name: str, checkpointing: bool, threads: int, *bench) -> int:
    """Peak of a step in bytes above model and batch, in a second step: the first one is all that is lazy."""
    torch.set_num_threads(threads)
    own = Bench(*bench)
    own.step(name, checkpointing)
    return own.step(name, checkpointing).peak


def measure(
    size: str, vocabulary: int, precision: str, batch: int, repetitions: int, threads: int, each: list[bool]
) -> pd.DataFrame:
    """One row a setting of gradient checkpointing and a contestant; prints what is measured, and that they agree."""
    setting = (size, vocabulary, precision, batch)
    bench = Bench(*setting)
    print(f"{bench.description}; {machine()}; {repetitions} repetitions.\n")
    rows, width = bench.short["input_ids"].shape
    print(
        f"Batch {rows}: {width} tokens a row, so {rows * width:,} columns of logits; "
        f"AnswerTrainer's are {rows * (bench.short['labels'].shape[1] + 1)}.\n"
    )
    tables = []
    for checkpointing in each:
        kind = "with" if checkpointing else "without"
        print(f"{kind.capitalize()} gradient checkpointing: {bench.agree(checkpointing)}.\n")
        memory = {name: in_child(memory_of, name, checkpointing, threads, *setting) for name in CONTESTANTS}
        steps = {
            name: lambda name=name, checkpointing=checkpointing: bench.step(name, checkpointing).seconds
            for name in CONTESTANTS
        }
        table = compare(interleaved(steps, repetitions), BASE, memory)
        table.insert(0, "checkpointing", kind)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SIZES), default="base")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="default: Qwen2.5-VL-3B's")
    parser.add_argument("--precision", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--batch", type=int, default=2, help="images in a batch")
    parser.add_argument("--repetitions", type=enough_repetitions, default=10, help="at least 6")
    parser.add_argument("--checkpointing", choices=["with", "without"], nargs="+", default=["without", "with"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path, help="the table's numbers, to a file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    table = measure(
        options.model,
        options.vocabulary,
        options.precision,
        options.batch,
        options.repetitions,
        options.threads,
        [kind == "with" for kind in options.checkpointing],
    )
    print(markdown(table))
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
