"""`make book` and `make laboratory`: check what was asked for, run what is not current, say how it goes."""

import collections
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from mlprobe_utils.book.book_pages import book_pages, stale_pages
from mlprobe_utils.book.pages import HTML
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.baseline_card import STEP as BASELINES
from mlprobe_utils.pipeline.baseline_card import baselines_of
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, load_protocol, slugs
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.damaged_models import damaged_models, damaged_selection
from mlprobe_utils.pipeline.discussion_card import discussed_on, discussions, taking_part
from mlprobe_utils.pipeline.prepare import STEP_ENVIRONMENT
from mlprobe_utils.pipeline.step_names import CALIBRATED, NOTEBOOK, PLANTED, STEPS
from mlprobe_utils.pipeline.time_spent import account, expected, remember
from mlprobe_utils.pipeline.trial_card import STEPS as TRIAL_STEPS
from mlprobe_utils.pipeline.trial_card import laboratory_files

BOOK, LABORATORY = "pages", "laboratory"  # rules of the Snakefile


def make_book(run: Run, processes: int, target: str = BOOK) -> None:
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
        atomic_write(artefacts.OUTPUTS / "run.json", json.dumps(run.parameters(), indent=1))
        command = [sys.executable, "-m", "snakemake", target, "--snakefile", str(artefacts.ROOT / "Snakefile")]
        command += ["--directory", str(artefacts.OUTPUTS), "--cores", str(processes), "--nolock", "--rerun-incomplete"]
        command += ["--configfile", str(artefacts.OUTPUTS / "run.json")]
        for slug in slugs(ModelCard):  # a page shows all: a card that is not valid is told now, not after the work
            load_model_card(slug)
        baselines_of(load_protocol(run.protocol))  # of these a package may be missing, too
        discussions()
        jobs = planned_jobs(command)
        if not jobs:
            return
        steps = collections.Counter(step for job in jobs for step in steps_of(*job, run))
        steps[NOTEBOOK] = pages_due(jobs, run)
        print(expected(steps, len(jobs), processes, run.protocol), file=sys.stderr, flush=True)
        start = time.time()
        command += ["--quiet", "all"]
        if target == BOOK and (longest := longest_models(run)):  # begun last, one would keep one core only
            command += ["--prioritize", *longest]
        code = run_to_the_end(command, environment(steps.total()))
        if code:
            print("stopped; nothing made before is lost, and the same command goes on from there", file=sys.stderr)
            sys.exit(code)
        print(account(progress_file(), time.time() - start))
        remember(progress_file(), time.time() - start, len(jobs), processes, run.protocol)


def result_of(target: str) -> str:
    """The file to look at, named from the project's root."""
    return artefacts.relative(laboratory_files()[0] if target == LABORATORY else HTML / "index.html")


def run_to_the_end(command: list[str], environment: dict[str, str]) -> int:
    """Exit code of the graph: 0, 2 if a step failed, 130 on Ctrl-C (which reaches the steps too)."""
    process = subprocess.Popen(command, env=environment)
    try:
        return 2 if process.wait() else 0
    except KeyboardInterrupt:
        process.wait()
        return 130


def longest_models(run: Run) -> list[str]:
    """The stamps of the models whose process does more than the pipeline: planted faults first, then discussions."""
    planted = [one.model for one in damaged_models(run.models)]
    discussed = [model for card in discussions() for model in taking_part(card, run.models)]
    stamps = artefacts.OUTPUTS / ".stamps" / "models" / run.protocol / run.split
    return [str(stamps / model) for model in dict.fromkeys([*planted, *discussed])]


def planned_jobs(command: list[str]) -> list[tuple[str, str]]:
    """What Snakemake plans, none if everything is current: rule, and the value of its wildcard (a model, a page).

    Raises:
        InputError: the graph cannot be planned.
    """
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    if plan.returncode:
        raise InputError(f"the graph cannot be planned:\n{plan.stderr.strip()}")
    jobs = re.split(r"^(?:local)?rule (\w+):$", plan.stdout + plan.stderr, flags=re.MULTILINE)[1:]
    wildcards = [re.search(r"^ +wildcards: \w+=(\S+)$", block, re.MULTILINE) for block in jobs[1::2]]
    return [(rule, found[1] if found else "") for rule, found in zip(jobs[::2], wildcards, strict=True)]


def pages_due(jobs: list[tuple[str, str]], run: Run) -> int:
    """How many pages the planned jobs execute: all, if there will be new results."""
    rules = {rule for rule, _ in jobs}
    return len(book_pages(run) if rules & {"model", "baselines"} else stale_pages(run)) if BOOK in rules else 0


def steps_of(rule: str, wildcard: str, run: Run) -> list[str]:
    """The stages of the lines of progress that a job prints, but for the pages that it executes."""
    if rule == "model":
        planted = (
            damaged_selection(run).datasets if wildcard in {one.model for one in damaged_models(run.models)} else ()
        )
        steps = [step for step in STEPS for _ in {*run.datasets, *planted}]
        steps += [step for step in (CALIBRATED, PLANTED) for _ in planted]
        for card in discussions():
            about = discussed_on(card, run.datasets) if taking_part(card, [wildcard]) else []
            steps += [card.slug] * len(about)
        return steps
    if rule == "baselines":
        return [BASELINES] * len(run.datasets) * len(baselines_of(load_protocol(run.protocol)))
    if rule == "trial":
        return [*TRIAL_STEPS] * len(run.datasets)
    return [{"images": "images drawn", "miniatures": "made as miniatures"}.get(rule, rule)]


def environment(steps: int) -> dict[str, str]:
    """The environment of the steps: one thread each, quiet, counted together."""
    atomic_write(progress_file(), "")
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
