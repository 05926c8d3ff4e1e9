"""Makes what a chapter reads, by the same commands that `make book` runs, each in a process of its own.

Every command returns at once where its artefact is current. `make book` has run them before the chapters start and
says so in MLPROBE_PREPARED.
"""

import os
import subprocess
import sys
from collections.abc import Iterable

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.cards import load_data_card, load_model_card
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.results import Selection

# of every step: one torch thread each, and no library's warnings between the lines of progress
STEP_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def prepare(run: Run) -> None:
    """Makes the image sets, checkpoints and results of a run.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    for slug in run.datasets:
        made_by = load_data_card(slug).made_by
        if made_by:
            _run(made_by, slug)
        folder = [] if made_by else ["--data", run.data]
        _run("manifest", slug, "--protocol", run.protocol, *folder)
    for slug in run.models:
        card = load_model_card(slug)
        if card.made_by:
            _run(card.made_by, slug)
        options = ["--protocol", run.protocol, "--split", run.split]
        _run("probe", slug, "--datasets", *run.datasets, *options)


def prepare_baselines(place: Selection, baselines: Iterable[str]) -> None:
    """Trains the baselines of these slugs on the data sets of a run whose image sets are made.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    options = ["--datasets", *place.datasets, "--protocol", place.protocol, "--split", place.split]
    _run("baselines", *baselines, *options)


def prepare_faults(model: str, place: Selection) -> None:
    """Makes what the faults planted in a model leave behind, on the phantom sets of a selection, and the images for it.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    for dataset in place.datasets:
        _run(load_data_card(dataset).made_by, dataset)
        _run("manifest", dataset, "--protocol", place.protocol)
    options = ["--datasets", *place.datasets, "--protocol", place.protocol, "--split", place.split]
    _run("model", model, *options, "--planted", *place.datasets)


def prepare_discussion(discussion: str, place: Selection) -> None:
    """Makes what a discussion needs of the models that take part, which have gone through the pipeline.

    Args:
        discussion: slug of its card.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    options = ["--datasets", *place.datasets, "--protocol", place.protocol, "--split", place.split]
    for slug in place.models:
        _run("discuss", slug, "--discussions", discussion, *options)


def _run(name: str, *arguments: str) -> None:
    """Runs a command of the package; its progress goes to the terminal as it comes, not to the page."""
    command = [sys.executable, "-m", "mlprobe_utils", name, *arguments]
    environment = os.environ | STEP_ENVIRONMENT
    said = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.__stderr__, flush=True)
            said.append(line)
    if process.returncode:
        message = "".join(said).rpartition("error: ")[2].strip() or f"exit code {process.returncode}"
        raise InputError(f"{message} (while running python -m mlprobe_utils {name} {' '.join(arguments)})")
