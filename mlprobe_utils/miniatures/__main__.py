"""`python -m mlprobe_utils.miniatures SLUG ...`: makes miniatures (and their bases), or returns at once."""

import argparse
import gc

import torch
from filelock import FileLock

from mlprobe_utils import artefacts
from mlprobe_utils.configuration import lineages
from mlprobe_utils.errors import run_command
from mlprobe_utils.progress import step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.miniatures", description=__doc__)
    parser.add_argument("slugs", nargs="+", help="miniatures' model cards in data/models")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from mlprobe_utils.miniatures.making import make_miniature

    gc.freeze()  # what is imported stays: every training would look through it for garbage, a fifth of a second each

    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    for root, slugs in lineages(arguments.slugs).items():
        adapted = f" and {len(slugs) - 1} adapted from it" if len(slugs) > 1 else ""
        with FileLock(artefacts.OUTPUTS / f".{root}.lock"), step(root + adapted, "made as miniatures"):
            for slug in slugs:
                make_miniature(slug)


if __name__ == "__main__":
    run_command(main)
