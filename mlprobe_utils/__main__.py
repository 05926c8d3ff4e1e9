"""The command line: `python -m mlprobe_utils COMMAND …`, or `mlprobe COMMAND …`; `--help` says what there is.

Every command but `chapter` and `parameters` skips what is current. What does the work is imported once it is needed.
"""

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mlprobe_utils.common.errors import InputError, run_command
from mlprobe_utils.evaluation.rows import SPLITS

COMMANDS: dict[str, tuple[str, Callable, Callable]] = {}  # name -> what it does, what it is given, what it runs


def command(help: str, *given: Callable[[argparse.ArgumentParser], None]) -> Callable:
    """Registers a function as the command of its name; `given` add its arguments to a parser."""

    def register(run: Callable[[argparse.Namespace], None]) -> Callable:
        COMMANDS[run.__name__] = help, given, run
        return run

    return register


def argument(*names: str, **options) -> Callable[[argparse.ArgumentParser], None]:
    return lambda parser: parser.add_argument(*names, **options)


def worked_on(name: str, of: str, **options) -> tuple[Callable[[argparse.ArgumentParser], None], ...]:
    """What a command is given that works on several data sets."""
    return (
        argument("of", metavar=name, help=of, **options),
        argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets"),
        argument("--protocol", default="miniature", help="slug of a protocol in data/protocols"),
        argument("--split", default="paper", choices=SPLITS),
    )


THREADS = argument("--threads", type=int, default=1, help="torch threads")
MODEL = *worked_on("model", "slug of a model card in data/models"), THREADS
DISCUSSIONS = argument("--discussions", nargs="+", help="slugs of cards in data/discussions; without it, all")


def heavy(module: str, threads: int):
    """A module that trains or reads models."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = import_module(f"mlprobe_utils.{module}")
    gc.freeze()  # what is imported stays: every training would look through it for garbage, a fifth of a second each
    return found


@command(
    "makes everything and builds the book, as `make book` does; or runs the laboratory",
    argument("--models", nargs="*", default=[], help="slugs of model cards; none: those of data/book.yml"),
    argument("--datasets", nargs="*", default=[], help="slugs of data cards"),
    argument("--protocol", default="miniature"),
    argument("--split", default="paper"),
    argument("--data", default="", help="folder with the real images, from the project's root"),
    argument("--laboratory", action="store_true", help="plant faults instead, to judge the diagnosis by"),
    argument("--jobs", default=str(os.cpu_count()), help="processes at a time"),
    argument("--dry-run", action="store_true", help="say what is not current, and make nothing"),
)
def book(given: argparse.Namespace) -> None:
    from mlprobe_utils.book.launch import load_launch
    from mlprobe_utils.book.make_book import BOOK, LABORATORY, make_book, result_of
    from mlprobe_utils.pipeline.configuration import configure

    if not re.fullmatch(r"[1-9][0-9]*", given.jobs):
        raise InputError(f"JOBS={given.jobs}: give the number of processes at a time, 1 or more")
    run = configure(given.models, given.datasets, given.protocol, given.split, given.data)
    load_launch()  # a mistake in it is an error now, not when the pages are due
    target = LABORATORY if given.laboratory else BOOK
    make_book(run, int(given.jobs), target, given.dry_run)
    if not given.dry_run:
        print(f"the {'laboratory' if given.laboratory else 'book'}: {result_of(target)}")


@command(
    "executes the notebooks whose pages are not current, and builds the HTML book",
    argument("run", type=json.loads, help="what the book runs over: a chapter's parameters, JSON"),
    argument("--jobs", type=int, default=1, help="notebooks at a time"),
)
def pages(given: argparse.Namespace) -> None:
    from mlprobe_utils.book import make_book, pages
    from mlprobe_utils.book.book_pages import stale_pages
    from mlprobe_utils.common.progress import step
    from mlprobe_utils.pipeline.configuration import configure
    from mlprobe_utils.pipeline.jobs import book_jobs, due

    run = configure(**given.run)
    if behind := make_book.planned(due(book_jobs(run))):
        raise InputError(f"not current, so that pages would show what is not so: {behind[0]}; run `make book`")
    if stale := stale_pages(run):
        from mlprobe_utils.book.run_chapter import run_pages

        run_pages(stale, run, given.jobs)
    with step("pages"):
        pages.publish(run)


@command(
    "executes a notebook of the book with papermill",
    argument("notebook", help="its name in notebooks/, without suffix"),
    argument("output", type=Path, help="the executed notebook"),
    argument("--parameters", type=json.loads, default={}, help="JSON object"),
)
def chapter(given: argparse.Namespace) -> None:
    from mlprobe_utils.book.run_chapter import run_chapter

    run_chapter(given.notebook, given.parameters, given.output)


@command("draws a phantom's images", argument("slug", help="data card of a phantom, e.g. busi-phantom"))
def phantoms(given: argparse.Namespace) -> None:
    from mlprobe_utils.common.progress import step
    from mlprobe_utils.synthetic.phantoms.making import make

    with step(given.slug, "images drawn"):
        make(given.slug)


@command(
    "reads a data set: its manifest and working copies",
    argument("slug", help="data card in data/datasets"),
    argument("--protocol", required=True, help="protocol in data/protocols"),
    argument("--data", type=Path, help="folder or zip that holds the release; not for synthetic sets"),
)
def manifest(given: argparse.Namespace) -> None:
    from mlprobe_utils.common.progress import step
    from mlprobe_utils.pipeline.manifest import build_manifest

    with step(given.slug, "manifest"):
        build_manifest(given.slug, given.protocol, given.data)


@command(
    "trains miniatures, and first the bases that they are adapted from",
    argument("slugs", nargs="+", help="miniatures' model cards in data/models"),
    THREADS,
)
def miniatures(given: argparse.Namespace) -> None:
    from filelock import FileLock

    from mlprobe_utils.common.progress import step
    from mlprobe_utils.pipeline.artefacts import OUTPUTS
    from mlprobe_utils.pipeline.configuration import lineages

    making = heavy("synthetic.miniatures.making", given.threads)
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    for root, members in lineages(given.slugs).items():
        adapted = f" and {len(members) - 1} adapted from it" if len(members) > 1 else ""
        with FileLock(OUTPUTS / f".{root}.lock"), step(root + adapted, "made as miniatures"):
            for slug in members:
                making.make_miniature(slug)


@command("fine-tunes a model and probes it before and after: adapters, predictions, features, probes", *MODEL)
def probe(given: argparse.Namespace) -> None:
    steps = heavy("pipeline.model_steps", given.threads)
    steps.run_model(given.of, given.datasets, given.protocol, given.split)


@command("makes what discussions need of a model that has been probed", *MODEL, DISCUSSIONS)
def discuss(given: argparse.Namespace) -> None:
    discussions = heavy("pipeline.discussions", given.threads)
    discussions.run_discussions(given.of, given.datasets, given.protocol, given.split, given.discussions)


@command(
    "all that a book wants of one model: `probe`, discussions, planted faults",
    *MODEL,
    argument("--discussions", nargs="+", help="slugs of cards in data/discussions that the model takes part in"),
    argument("--planted", nargs="+", help="slugs of phantom sets on which faults are planted in it"),
)
def model(given: argparse.Namespace) -> None:
    whole = heavy("synthetic.faults.planting", given.threads)
    whole.run_whole_model(given.of, given.datasets, given.protocol, given.split, given.discussions, given.planted)


@command(
    "trains traditional classifiers",
    *worked_on("baseline", "slugs of cards in data/baselines", nargs="+"),
    THREADS,
)
def baselines(given: argparse.Namespace) -> None:
    running = heavy("baselines.running", given.threads)
    running.run_baselines(given.of, given.datasets, given.protocol, given.split)


@command(
    "makes the laboratory's cases of a model, every fault at every strength",
    *MODEL,
    argument("--undamaged", action="store_true", help="plant no fault"),
)
def trial(given: argparse.Namespace) -> None:
    trials = heavy("synthetic.faults.cases", given.threads)
    trials.run_trial(given.of, given.datasets, given.protocol, given.split, given.undamaged)


@command(
    "judges the laboratory's cases: how often the diagnosis is right",
    *worked_on("model", "slugs of model cards that have gone through `trial`", nargs="+"),
)
def laboratory(given: argparse.Namespace) -> None:
    from mlprobe_utils.pipeline.results import Selection
    from mlprobe_utils.synthetic.faults.confusion import write_confusion

    write_confusion(Selection(tuple(given.of), tuple(given.datasets), given.protocol, given.split))


@command(
    "looks at models' files without loading them: configuration, class, tokenizer, weights",
    argument("slugs", nargs="+", help="model cards"),
)
def look(given: argparse.Namespace) -> None:
    from mlprobe_utils.pipeline.cards import load_model_card

    loading = heavy("models.loading", 1)
    for slug in given.slugs:
        loading.look_at(load_model_card(slug))


@command(
    "counts models' parameters and sets Table S1's beside them",
    argument("slugs", nargs="*", metavar="SLUG", help="a model card; none: all that name an architecture"),
)
def parameters(given: argparse.Namespace) -> None:
    from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
    from mlprobe_utils.pipeline.parameter_counts import table

    cards = [load_model_card(slug) for slug in given.slugs or slugs(ModelCard)]
    print(table([card for card in cards if given.slugs or card.architecture]).to_string(index=False))


def main(arguments: list[str] | None = None) -> None:
    sys.modules.setdefault("rfc3987_syntax", None)  # as in a page's kernel (book.run_chapter)
    parser = argparse.ArgumentParser(prog="mlprobe", description="Layer-wise probing of medical multimodal LLMs.")
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (does, given, _) in COMMANDS.items():
        own = names.add_parser(name, help=does, description=does)
        for add in given:
            add(own)
    found = parser.parse_args(arguments)
    run_command(lambda: COMMANDS[found.command][2](found))


if __name__ == "__main__":
    sys.exit(main())
