"""The door on an accelerator, from `load` to `answer`: a checkpoint of full size with random weights, and real images.

Its answers and probes mean nothing; where the time goes, and what memory it takes, do not depend on what weights hold.
"""

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlprobe_utils.models.compat

import pandas as pd
import torch
from gpu import as_markdown
from paired import machine, peak, start_of_peak, synchronize
from random_model import full_size

import mlprobe_utils as mp

PNEUMONIA = mp.Question(
    "<image> Is there pneumonia? Please answer 'Yes' or 'No'.", {"NORMAL": "No", "PNEUMONIA": "Yes"}
)


class Steps:
    """What each step takes: seconds, and memory on the device above what was there before it."""

    def __init__(self):
        self.rows = []

    def run(self, step: str, work: Callable[[], object], images: int | None = None):
        before = start_of_peak()
        start = time.perf_counter()
        made = work()
        synchronize()
        seconds = time.perf_counter() - start
        rate = "" if images is None else f"{images / seconds:.1f}"
        self.rows.append({"step": step, "seconds": seconds, "images/s": rate, "peak, GiB": (peak() - before) / 2**30})
        return made


def five_lines(checkpoint: Path, folder: Path, precision: str, device_map: str | None, batch: int) -> pd.DataFrame:
    """One row a step of the door, on a checkpoint and a folder of images of the classes of `PNEUMONIA`."""
    steps = Steps()
    model = steps.run("load", lambda: mp.load(checkpoint, precision, device_map=device_map))
    images = steps.run("image_folder", lambda: mp.image_folder(folder))
    count = len(images)
    features = steps.run("extract", lambda: mp.extract(model, images, PNEUMONIA, batch_size=batch), count)
    rows = steps.run("probe", lambda: mp.probe(features, images))
    steps.run("answer", lambda: mp.answer(model, images, PNEUMONIA), count)
    seeds = rows["seed"].nunique()
    print(f"{count} images; {len(features)} features, up to {max(f.shape[1] for f in features.values())} wide; "
          f"{seeds} seeds a probe\n")  # fmt: skip
    return pd.DataFrame(steps.rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder with the folders NORMAL and PNEUMONIA")
    parser.add_argument("--model", default="qwen2.5-vl-7b", help="a file in data/architectures")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--device-map", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args(arguments)
    print(f"{datetime.date.today()}; {machine()}; {options.model}, {options.precision}, random weights.\n")
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place)
        loaded = full_size(options.model, options.precision)
        loaded.model.save_pretrained(checkpoint)
        loaded.processor.save_pretrained(checkpoint)
        del loaded
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        table = five_lines(checkpoint, options.images, options.precision, options.device_map, options.batch)
        print(as_markdown(table))


if __name__ == "__main__":
    main()
