"""Makes what a chapter reads and is not current, by the jobs of `make book`, each in a process of its own.

The pages of `make book` are executed once all of it is current, which MLPROBE_PREPARED says.
"""

import os
import subprocess
import sys
from collections.abc import Iterable

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.cards import load_model_card
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.discussion_card import Discussion
from mlprobe_utils.pipeline.jobs import Job, baselines_job, due, image_jobs, miniature_jobs, model_job

# of every step: one torch thread each, and no library's warnings between the lines of progress
STEP_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def prepare(run: Run) -> None:
    """Makes the image sets, checkpoints and results of a run.

    Raises:
        InputError: what the command that failed said.
    """
    before = inputs(run)
    make([*before, *(model_job(run, slug, before) for slug in run.models)])


def prepare_baselines(run: Run, cards: Iterable[BaselineCard]) -> None:
    """Trains baselines on the data sets of a run. Raises InputError as `prepare`."""
    before = image_jobs(run, run.datasets)
    make([*before, baselines_job(run, cards, before)])


def prepare_faults(run: Run, model: str, datasets: tuple[str, ...]) -> None:
    """Plants the book's faults in a model of a run, on phantom sets. Raises InputError as `prepare`."""
    before = [*image_jobs(run, [*run.datasets, *datasets]), *miniature_jobs([model])]
    make([*before, model_job(run, model, before, planted=datasets)])


def prepare_discussion(run: Run, card: Discussion, models: Iterable[str]) -> None:
    """Makes what a discussion needs of the models of a run that take part. Raises InputError as `prepare`."""
    before = inputs(run)
    make([*before, *(model_job(run, slug, before, [card]) for slug in models)])


def inputs(run: Run) -> list[Job]:
    """The jobs of a run's image sets and checkpoints."""
    return [*image_jobs(run, run.datasets), *miniature_jobs(run.models)]


def make(jobs: list[Job]) -> None:
    """Runs the jobs that have something to do; their progress goes to the terminal as it comes, not to the page.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    for job in due(jobs):
        run_command(*job.command)


def look_at(models: Iterable[str]) -> None:
    """Looks at the files of those models that are not made here, before anything is run on one of them.

    Raises:
        InputError: what is wrong with the first that cannot be loaded.
    """
    if own := [slug for slug in models if not load_model_card(slug).made_by]:
        run_command("look", *own)


def run_command(*command: str) -> None:
    """Runs a command of the package in a process of its own. Raises InputError, with what it said."""
    whole = [sys.executable, "-m", "mlprobe_utils", *command]
    lines = []
    with subprocess.Popen(whole, env=os.environ | STEP_ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.__stderr__, flush=True)
            lines.append(line)
    if process.returncode:
        message = "".join(lines).rpartition("error: ")[2].strip() or f"exit code {process.returncode}"
        raise InputError(f"{message} (while running python -m mlprobe_utils {' '.join(command)})")
