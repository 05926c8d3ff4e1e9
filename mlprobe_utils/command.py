"""The command of a module that does the heavy work of one model, or of one baseline, on several data sets."""

import argparse
import gc
from collections.abc import Callable, Mapping

import torch

from mlprobe_utils.datasets.image_set import SPLITS

MODEL = ("model", "slug of a model card in data/models")


def command(
    module: str,
    description: str,
    run: Callable[..., None],
    positional: tuple[str, str] = MODEL,
    lists: Mapping[str, str] | None = None,
    several: bool = False,
    flags: Mapping[str, str] | None = None,
) -> None:
    """Reads the command line and runs it.

    Args:
        run: takes what `positional` names, data sets, protocol and split, and by name what `lists` and `flags` name.
        positional: name and meaning of the command's one positional argument.
        several: whether that argument takes several values, of which `run` gets the list.
        flags: names of options without a value, and their meanings.
        lists: names of options that take several values each, and their meanings; None where they are not given.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("of", metavar=positional[0], help=positional[1], **{"nargs": "+"} if several else {})
    lists, flags = lists or {}, flags or {}
    for name, meaning in lists.items():
        parser.add_argument(f"--{name}", nargs="+", help=meaning)
    for name, meaning in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    parser.add_argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets")
    parser.add_argument("--protocol", default="miniature", help="slug of a protocol in data/protocols")
    parser.add_argument("--split", default="paper", choices=SPLITS)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    gc.freeze()  # what is imported stays: every training would look through it for garbage, a fifth of a second each
    given = {name: getattr(arguments, name) for name in (*lists, *flags)}
    run(arguments.of, arguments.datasets, arguments.protocol, arguments.split, **given)
