"""The command line: `python -m mlprobe_utils COMMAND …`, or `mlprobe COMMAND …`; `--help` says what there is. Every
command but `chapter` skips what is current. What does the work is imported once it is needed."""

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mlprobe_utils.common.errors import InputError, of_file_system
from mlprobe_utils.common.progress import end_with, end_with_parent, step
from mlprobe_utils.evaluation.rows import SPLIT_RULES

Argument = tuple[tuple[str, ...], dict]  # as ArgumentParser.add_argument takes it
CACHES = {"XDG_CACHE_HOME": "~/.cache", "IPYTHONDIR": "~/.ipython"}  # of Snakemake and others, of kernels
COMMANDS: dict[str, tuple[str, tuple[Argument, ...], Callable]] = {}  # name -> what it does, its arguments, what runs


def argument(*names: str, **options) -> Argument:
    return names, options


def command(help: str, *arguments: Argument) -> Callable:
    """Registers a function, which takes the arguments by their names, as the command of its name."""

    def register(run: Callable) -> Callable:
        COMMANDS[run.__name__] = help, arguments, run
        return run

    return register


def heavy(module: str, threads: int):
    """A module that trains or runs models."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = import_module(f"mlprobe_utils.{module}")
    gc.freeze()  # what is imported stays: every training would look through it for garbage, a fifth of a second each
    return found


def calls(name: str, help: str, function: str, *arguments: Argument) -> None:
    """Registers a command that calls a function, of which the module is named too, with the arguments by their names;
    with THREADS among these it trains or runs models."""

    def run(threads: int | None = None, **given) -> None:
        module, _, wanted = function.rpartition(".")
        found = import_module(f"mlprobe_utils.{module}") if threads is None else heavy(module, threads)
        getattr(found, wanted)(**given)

    COMMANDS[name] = help, arguments, run


PROTOCOL = argument("--protocol", default="miniature", help="slug of a protocol in data/protocols")
SPLIT = argument("--split", dest="split_rule", default="paper", choices=SPLIT_RULES, help="the split rule")
THREADS = argument("--threads", type=int, default=1, help="torch threads")
DATASETS = argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets")
DATA = (DATASETS, PROTOCOL, SPLIT, THREADS)
MODEL = argument("model", help="slug of a model card in data/models")
MODELS = argument("models", metavar="model", nargs="+", help="slugs of model cards")
BASELINES = argument("baselines", metavar="baseline", nargs="+", help="slugs of cards in data/baselines")
DISCUSSIONS = argument("--discussions", nargs="*", help="slugs of cards in data/discussions; default: all")
PLANTED = argument("--planted", nargs="+", help="slugs of phantom sets on which faults are planted in the model")
FILE = argument("--file", type=Path, help="output file; default: <model>.results.zip")
UNDAMAGED = argument("--undamaged", action="store_true", help="plant no fault")

WHOLE = "fine-tunes a model and probes it before and after; on request with discussions and planted faults"
calls("model", WHOLE, "synthetic.faults.planting.run_whole_model", MODEL, DISCUSSIONS, PLANTED, *DATA)
calls("baselines", "trains traditional classifiers", "baselines.training.run_baselines", BASELINES, *DATA)
CASES = "computes a model's cases for the fault-injection benchmark"
calls("trial", CASES, "synthetic.faults.planting.run_trial", MODEL, UNDAMAGED, *DATA)
JUDGED = "evaluates the cases of `trial`: how often the diagnosis is correct"
calls("laboratory", JUDGED, "synthetic.faults.planting.write_confusion", MODELS, *DATA)
EXPORTED = "writes a model's results to one file, without images and weights, for others to put into MODELS"
calls("export", EXPORTED, "pipeline.exchange.export_results", MODEL, FILE, *DATA)
FITS = "checks that imported results match the protocol and images here"
calls("fits", FITS, "pipeline.exchange.check_imported", MODEL, *DATA)


@command(
    "computes everything and builds the book, as `make book` does; or runs the fault-injection benchmark",
    argument("--models", nargs="*", default=[], help="slugs of model cards, or files of `export`"),
    argument("--datasets", nargs="*", default=[], help="slugs of data cards"),
    PROTOCOL,
    argument("--split", dest="split_rule", default="paper", help="the split rule"),
    argument("--data", default="", help="folder with the real images, from the project's root"),
    argument("--laboratory", action="store_true", help="run the fault-injection benchmark of the diagnosis instead"),
    argument("--jobs", default=str(os.cpu_count()), help="processes at a time"),
    argument("--dry-run", action="store_true", help="list what is not up to date, and compute nothing"),
    argument("--verify", action="store_true", help="first compare all files with their hashes"),
)
def book(laboratory: bool, jobs: str, dry_run: bool, verify: bool, models: list[str], **selected) -> None:
    from mlprobe_utils.book.make_book import make_book
    from mlprobe_utils.pipeline.configuration import configure
    from mlprobe_utils.pipeline.exchange import SUFFIX, import_results

    if not re.fullmatch(r"[1-9][0-9]*", jobs):
        raise InputError(f"JOBS={jobs}: give the number of processes at a time, 1 or more")
    models = [import_results(Path(model)) if model.endswith(SUFFIX) else model for model in models]
    if os.environ.get("MAKELEVEL"):  # started by make
        end_with_parent()
    make_book(configure(models, **selected), int(jobs), laboratory, dry_run, verify)


@command(
    "executes the notebooks whose pages are not up to date, and builds the HTML book",
    argument("run", type=json.loads, help="what the book runs over: a chapter's parameters, JSON"),
    argument("--jobs", type=int, default=1, help="notebooks at a time"),
)
def pages(run: dict, jobs: int) -> None:
    from mlprobe_utils.book.book_pages import stale_pages
    from mlprobe_utils.book.make_book import planned, publish
    from mlprobe_utils.pipeline.configuration import configure
    from mlprobe_utils.pipeline.jobs import book_jobs, due

    run = configure(**run)
    if behind := planned(due(book_jobs(run))):
        raise InputError(f"not up to date, so pages would show outdated results: {behind[0]}; run `make book`")
    if stale := stale_pages(run):
        from mlprobe_utils.book.run_chapter import run_pages

        run_pages(stale, run, jobs)
    with step("pages"):
        publish(run)


calls(
    "chapter",
    "executes a notebook of the book with papermill",
    "book.run_chapter.run_chapter",
    argument("name", metavar="notebook", help="its name in notebooks/, without suffix"),
    argument("output", type=Path, help="the executed notebook"),
    argument("--parameters", type=json.loads, default={}, help="JSON object"),
)
calls(
    "notebooks",
    "synchronises the scripts in notebooks/ with their notebooks: the changed one updates the other",
    "book.pairing.sync_notebooks",
    argument("--keep", type=Path, nargs="+", default=[], metavar="FILE", help="if both changed, keep this one"),
)


@command(
    "prepares image sets: draws the synthetic ones, writes manifests and working copies",
    argument("slugs", nargs="+", help="data cards in data/datasets"),
    argument("--protocol", required=True, help="protocol in data/protocols"),
    argument("--data", type=Path, help="folder or zip of the release; not for synthetic sets"),
)
def manifest(slugs: list[str], protocol: str, data: Path | None) -> None:
    from mlprobe_utils.pipeline.cards import load_data_card
    from mlprobe_utils.pipeline.images import build_manifest
    from mlprobe_utils.synthetic.phantoms.making import make

    for slug in slugs:
        if load_data_card(slug).synthetic:
            with step(slug, "images drawn"):
                make(slug)
        with step(slug, "manifest"):
            build_manifest(slug, protocol, data)


calls(
    "card",
    "inspects a folder of images and writes a data card to data/datasets/",
    "pipeline.images.propose_card",
    argument("folder", type=Path, help="a folder, a zip or a .npz of images"),
    argument("--slug", help="name of the card; default: the folder's"),
)


@command(
    "trains miniatures, after the bases that they are adapted from",
    argument("slugs", nargs="+", help="miniatures' model cards in data/models"),
    THREADS,
)
def miniatures(slugs: list[str], threads: int) -> None:
    from mlprobe_utils.pipeline.configuration import lineages

    making = heavy("synthetic.miniatures.making", threads)
    for root, members in lineages(slugs).items():
        adapted = f" and {len(members) - 1} adapted from it" if len(members) > 1 else ""
        with step(root + adapted, "made as miniatures"):
            for slug in members:
                making.make_miniature(slug)


@command(
    "checks models' files without loading them: configuration, class, tokenizer, weights",
    argument("slugs", nargs="+", help="model cards"),
)
def look(slugs: list[str]) -> None:
    from mlprobe_utils.pipeline.cards import load_model_card

    loading = heavy("models.loading", 1)
    for slug in slugs:
        loading.look_at(load_model_card(slug))


def main(arguments: list[str] | None = None) -> None:
    sys.modules.setdefault("rfc3987_syntax", None)  # as in a page's kernel (book.run_chapter)
    parser = argparse.ArgumentParser(prog="mlprobe", description="Layer-wise probing of medical multimodal LLMs.")
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (does, own, _) in COMMANDS.items():
        added = names.add_parser(name, help=does, description=does)
        for flags, options in own:
            added.add_argument(*flags, **options)
    given = vars(parser.parse_args(arguments))
    run = COMMANDS[given.pop("command")][2]
    if sys.flags.optimize > 1:  # transformers and altair read docstrings when they are imported: once more, with them
        os.environ.pop("PYTHONOPTIMIZE", None)
        os.execv(sys.executable, [sys.executable, "-m", "mlprobe_utils", *(arguments or sys.argv[1:])])
    if progress := os.environ.get("MLPROBE_PROGRESS"):
        end_with(progress)
    try:
        settle()
        run(**given)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from mlprobe_utils.pipeline.artefacts import OUTPUTS

        if not (mendable := error if isinstance(error, InputError) else of_file_system(error, OUTPUTS)):
            raise
        print(f"error: {mendable}", file=sys.stderr)
        sys.exit(2)


def settle() -> None:
    """Makes the paths in the environment absolute, for processes in other folders, and gives libraries another place
    for what they keep in the home folder where that cannot be written. InputError for a path that is not UTF-8."""
    for name in ("MLPROBE_OUTPUTS", "MLPROBE_CARDS", "MLPROBE_HTML"):
        if given := os.environ.pop(name, ""):
            os.environ[name] = os.path.abspath(given)
    from mlprobe_utils.pipeline.artefacts import OUTPUTS, ROOT

    for path in map(str, (ROOT, OUTPUTS)):
        if (shown := os.fsencode(path).decode(errors="backslashreplace")) != path:
            raise InputError(f"the name of the folder {shown} is not UTF-8: rename it")
    if OUTPUTS.is_symlink() and not OUTPUTS.exists():
        raise InputError(f"{OUTPUTS} links to {os.readlink(OUTPUTS)}, which does not exist: create or mount it")
    for name, usual in CACHES.items():
        folder = Path(os.environ.get(name) or os.path.expanduser(usual))
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not (folder.is_absolute() and there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            os.environ[name] = str(OUTPUTS / ".cache")
            if os.path.isdir(known := folder / "huggingface"):  # whose models and token can be read
                os.environ.setdefault("HF_HOME", str(known))


if __name__ == "__main__":
    sys.exit(main())
