"""Makes what a chapter reads and is not current, by the jobs of `make book`, each in a process of its own.

The pages of `make book` are executed once all of it is current, which MLPROBE_PREPARED says.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.cards import load_model_card
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.discussion_card import Discussion
from mlprobe_utils.pipeline.jobs import due, jobs_of

# of every step: one torch thread each, and no library's warnings between the lines of progress
STEP_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def prepare(
    run: Run, discussions: Sequence[Discussion] = (), faults: bool = False, baselines: Sequence[BaselineCard] = ()
) -> None:
    """Makes what is not current of `jobs_of` the run; progress goes to the terminal as it comes, not to the page.

    Raises InputError with the message of the command that failed.
    """
    if not os.environ.get("MLPROBE_PREPARED"):
        for job in due(jobs_of(run, discussions, faults, baselines)):
            run_command(*job.command)


def look_at(models: Iterable[str]) -> None:
    """Checks the files of models that are not made here. Raises InputError for the first that cannot be loaded."""
    if own := [slug for slug in models if not load_model_card(slug).made_by]:
        run_command("look", *own)


def run_command(*command: str) -> None:
    """Runs a command of the package in a process of its own. Raises InputError with its message if it fails."""
    whole = [sys.executable, "-m", "mlprobe_utils", *command]
    lines = []
    with subprocess.Popen(whole, env=os.environ | STEP_ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.__stderr__, flush=True)
            lines.append(line)
    if process.returncode:
        message = "".join(lines).rpartition("error: ")[2].strip() or f"exit code {process.returncode}"
        raise InputError(f"{message} (while running python -m mlprobe_utils {' '.join(command)})")
