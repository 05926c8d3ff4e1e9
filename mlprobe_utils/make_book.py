"""`make book` and `make laboratory`: check what was asked for, let Snakemake run what is not current, say how it goes.

`python -m mlprobe_utils.make_book [--models M ...] [--datasets D ...] [--protocol P] [--data FOLDER] [--jobs N]
[--laboratory]`
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from mlprobe_utils import artefacts
from mlprobe_utils.baselines.card import baselines_of
from mlprobe_utils.cards import ModelCard, load_model_card, load_protocol, slugs
from mlprobe_utils.configuration import Run, configure
from mlprobe_utils.discussion_card import discussions
from mlprobe_utils.errors import InputError, run_command
from mlprobe_utils.faults.card import all_faults
from mlprobe_utils.faults.trial_card import CONFUSION
from mlprobe_utils.faults.trial_card import STEPS as TRIAL_STEPS
from mlprobe_utils.launch import load_launch
from mlprobe_utils.pages import HTML
from mlprobe_utils.pipeline_steps import STEPS
from mlprobe_utils.prepare import STEP_ENVIRONMENT
from mlprobe_utils.time_spent import account
from mlprobe_utils.warm import warm

BOOK, LABORATORY = "pages", "laboratory"  # rules of the Snakefile


def make_book(run: Run, jobs: int, target: str = BOOK) -> None:
    """Brings the book up to date, or with LABORATORY as the target what tells how far its diagnosis can be trusted.

    Raises:
        InputError: another run is at work in this checkout, a card of a model or baseline is not valid, a package that
            a baseline needs is not installed, the graph cannot be planned.
        SystemExit: a step failed; its own message has been printed.
    """
    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(artefacts.OUTPUTS / ".make_book.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another `make book` is at work in this checkout: wait for it, or stop it") from None
    with lock:
        artefacts.atomic_write(artefacts.OUTPUTS / "run.json", json.dumps(run.parameters(), indent=1))
        command = [sys.executable, "-m", "snakemake", target, "--snakefile", str(artefacts.ROOT / "Snakefile")]
        command += ["--directory", str(artefacts.OUTPUTS), "--cores", str(jobs), "--nolock", "--rerun-incomplete"]
        command += ["--configfile", str(artefacts.OUTPUTS / "run.json")]
        for slug in slugs(ModelCard):  # a page shows all: a card that is not valid is told now, not after the work
            load_model_card(slug)
        baselines_of(load_protocol(run.protocol))  # of these a package may be missing, too
        discussions()
        steps, start = planned_steps(command, run), time.time()
        if not steps:
            return
        # what waits for one model alone is begun first: begun last, its many steps in a row would keep one core only
        command += ["--quiet", "all", *(["--prioritize", "faults"] if target == BOOK else [])]
        with warm(environment(steps)) as surroundings:
            code = run_to_the_end(command, surroundings)
        if code:
            print("stopped; nothing made before is lost, and the same command goes on from there", file=sys.stderr)
            sys.exit(code)
        print(account(progress_file(), time.time() - start))


def run_to_the_end(command: list[str], environment: dict[str, str]) -> int:
    """Exit code of the graph: 0, 2 if a step failed, 130 on Ctrl-C (which reaches the steps too)."""
    process = subprocess.Popen(command, env=environment)
    try:
        return 2 if process.wait() else 0
    except KeyboardInterrupt:
        process.wait()
        return 130


def planned_steps(command: list[str], run: Run) -> int:
    """How many lines of progress the run will print: what Snakemake plans, 0 if everything is current."""
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    if plan.returncode:
        raise InputError(f"the graph cannot be planned:\n{plan.stderr.strip()}")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan.stdout + plan.stderr, re.MULTILINE))
    jobs.pop("total", None)
    lines = {"model": len(run.datasets) * len(STEPS), "faults": len(STEPS) + 1 + len(all_faults())}
    lines |= dict.fromkeys(("baseline", "discussion"), len(run.datasets))
    lines["trial"] = len(run.datasets) * len(TRIAL_STEPS)
    return sum(int(n) * lines.get(rule, 1) for rule, n in jobs.items())


def environment(steps: int) -> dict[str, str]:
    """The environment of the steps: one thread each, quiet, counted together."""
    artefacts.atomic_write(progress_file(), "")
    return (
        os.environ
        | STEP_ENVIRONMENT
        | {
            "MLPROBE_PROGRESS": str(progress_file()),
            "MLPROBE_STEPS": str(steps),
            "MLPROBE_START": str(time.time()),
        }
    )


def progress_file() -> Path:
    """Where the steps of a run are counted."""
    return artefacts.OUTPUTS / ".progress"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.make_book", description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="slugs of model cards")
    parser.add_argument("--datasets", nargs="*", default=[], help="slugs of data cards")
    parser.add_argument("--protocol", default="miniature")
    parser.add_argument("--split", default="paper")
    parser.add_argument("--data", default="", help="folder with the real images, from the project's root")
    parser.add_argument("--laboratory", action="store_true", help="plant faults instead, to judge the diagnosis by")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    arguments = parser.parse_args()
    run = configure(arguments.models, arguments.datasets, arguments.protocol, arguments.split, arguments.data)
    load_launch()  # a mistake in it is told now, not when the pages are due
    make_book(run, arguments.jobs, LABORATORY if arguments.laboratory else BOOK)
    made = artefacts.OUTPUTS / CONFUSION if arguments.laboratory else HTML / "index.html"
    print(f"the {'laboratory' if arguments.laboratory else 'book'}: {artefacts.relative(made)}")


if __name__ == "__main__":
    run_command(main)
