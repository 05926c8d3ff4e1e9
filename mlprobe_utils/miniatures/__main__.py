"""`python -m mlprobe_utils.miniatures SLUG`: makes one miniature (and its base), or returns at once."""

import argparse

import torch
from filelock import FileLock

from mlprobe_utils import artefacts
from mlprobe_utils.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.miniatures", description=__doc__)
    parser.add_argument("slug", help="a miniature's model card in data/models")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from mlprobe_utils.miniatures.making import make_miniature

    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    with FileLock(artefacts.OUTPUTS / ".miniatures.lock"):
        make_miniature(arguments.slug)


if __name__ == "__main__":
    run_command(main)
