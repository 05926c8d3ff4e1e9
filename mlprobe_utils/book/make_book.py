"""`make book` and `make laboratory`: check what was asked for, run what is not current, say how it goes."""

import collections
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mlprobe_utils.book import pages
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.jobs import Job, book_jobs, due, laboratory_jobs
from mlprobe_utils.pipeline.laboratory_results import laboratory_files
from mlprobe_utils.pipeline.prepare import STEP_ENVIRONMENT, look_at
from mlprobe_utils.pipeline.step_names import NOTEBOOK
from mlprobe_utils.pipeline.time_spent import account, expected, remember

BOOK, LABORATORY = "pages", "laboratory"  # the last job, and its rule of the Snakefile


def graph(run: Run, target: str = BOOK) -> list[Job]:
    """The jobs of `make book`, upstream ones first; or with LABORATORY those of `make laboratory`.

    Raises:
        InputError: a card is not valid, a package that a baseline needs is not installed.
    """
    if target == LABORATORY:
        return laboratory_jobs(run)
    jobs = book_jobs(run)
    command = (BOOK, json.dumps(run.parameters()))
    return [*jobs, Job(BOOK, "all", command, tuple(jobs), partial(pages.due, run))]


def stamp(run: Run, kind: str, name: str) -> Path:
    """The file that stands, in the graph, for a job whose artefacts are current."""
    return artefacts.OUTPUTS / ".stamps" / run.protocol / run.split / kind / name


def make_book(run: Run, processes: int, target: str = BOOK, dry: bool = False) -> None:
    """Brings the book up to date, or with LABORATORY as the target what tells how far its diagnosis can be trusted.

    Args:
        dry: say what would be made, and make nothing.

    Raises:
        InputError: another run is at work in this checkout, a card of a model or baseline is not valid, a package that
            a baseline needs is not installed, the files of a model cannot be read.
        SystemExit: a step failed; its own message has been printed.
    """
    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(artefacts.OUTPUTS / ".make_book.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another `make book` is at work in this checkout: wait for it, or stop it") from None
    with lock:
        for slug in slugs(ModelCard):  # a page shows all: a card that is not valid is told now, not after the work
            load_model_card(slug)
        todo = due(graph(run, target))
        if dry:
            print("\n".join(planned(todo)) or "everything is current")
        elif todo:
            look_at(job.name for job in todo if job.kind in ("model", "trial"))
            carry_out(run, processes, target, todo)


def planned(todo: dict[Job, list[str] | None]) -> list[str]:
    """A line for everything that is to be made, as far as it is known before the jobs upstream have run."""
    lines = []
    for job, names in todo.items():
        lines += [f"{job.kind} {job.name}: {name}" for name in names or ["whatever follows from the jobs before"]]
    return lines


def carry_out(run: Run, processes: int, target: str, todo: dict[Job, list[str] | None]) -> None:
    """Runs the graph, and says how long it should take and where the time went. Raises SystemExit as `make_book`."""
    configuration = artefacts.OUTPUTS / "run.json"
    atomic_write(configuration, json.dumps(run.parameters() | {"target": target}, indent=1))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(artefacts.ROOT / "Snakefile")]
    command += ["--directory", str(artefacts.OUTPUTS), "--cores", str(processes), "--nolock", "--rerun-incomplete"]
    # whether a job is current is said by its stamp alone: its file's time, command and inputs decide nothing
    command += ["--configfile", str(configuration), "--quiet", "all", "--rerun-triggers", "mtime"]
    steps = collections.Counter(step for job in todo for step in job.steps)
    for job, names in todo.items():
        if job.kind == BOOK:
            steps += {NOTEBOOK: pages.pages_among(run, names), BOOK: 1}
    # the models come in order of their work: the longest begun last would keep one core only
    models = [str(stamp(run, job.kind, job.name)) for job in todo if job.kind == "model"]
    command += ["--prioritize", *models[:processes]] if models else []
    print(expected(steps, len(todo), processes, run.protocol), file=sys.stderr, flush=True)
    start = time.time()
    code = run_to_the_end(command, environment(steps.total()))
    if code:
        print("stopped; nothing made before is lost, and the same command goes on from there", file=sys.stderr)
        sys.exit(code)
    print(account(progress_file(), time.time() - start))
    remember(progress_file(), time.time() - start, len(todo), processes, run.protocol)


def result_of(target: str) -> str:
    """The file to look at, named from the project's root."""
    return artefacts.relative(laboratory_files()[0] if target == LABORATORY else pages.HTML / "index.html")


def run_to_the_end(command: list[str], environment: dict[str, str]) -> int:
    """Exit code of the graph: 0, 2 if a step failed, 130 on Ctrl-C (which reaches the steps too)."""
    process = subprocess.Popen(command, env=environment)
    try:
        return 2 if process.wait() else 0
    except KeyboardInterrupt:
        process.wait()
        return 130


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
