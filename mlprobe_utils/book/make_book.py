"""`make book` and `make laboratory`: find what is not current, run it, and say how long it takes."""

import collections
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mlprobe_utils.book import pages
from mlprobe_utils.book.book_pages import book_pages
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.fault_card import laboratory_files
from mlprobe_utils.pipeline.jobs import STEP_ENVIRONMENT, Job, book_jobs, due, laboratory_jobs, look_at
from mlprobe_utils.pipeline.stages import NOTEBOOK
from mlprobe_utils.pipeline.time_spent import account, expected, remember

PAGES = "pages"  # the kind of the book's last job


def make_book(run: Run, processes: int, laboratory: bool = False, dry: bool = False) -> None:
    """Brings the book up to date, or the laboratory: how far to trust the diagnosis. `dry` only lists what is due.

    Raises:
        InputError: another run is at work in this checkout, the files of a model cannot be read; as `graph`.
        SystemExit: a step failed; its own message has been printed.
    """
    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(artefacts.OUTPUTS / ".make_book.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another `make book` is at work in this checkout: wait for it, or stop it") from None
    with lock:
        for slug in slugs(ModelCard):  # a page shows all: a card that is not valid is an error now, not after the work
            load_model_card(slug)
        jobs = graph(run, laboratory)
        todo = due(jobs)
        if dry:
            print("\n".join(planned(todo)) or "everything is current")
            return
        if todo:
            look_at(job.name for job in todo if job.kind in ("model", "trial"))
            carry_out(run, processes, jobs, todo)
    result = laboratory_files()[0] if laboratory else pages.HTML / "index.html"
    print(f"the {'laboratory' if laboratory else 'book'}: {artefacts.relative(result)}")


def graph(run: Run, laboratory: bool = False) -> list[Job]:
    """The jobs of `make book` or of `make laboratory`, upstream ones first. Raises InputError for a card that is not
    valid, and for a package that a baseline needs and that is not installed."""
    if laboratory:
        return laboratory_jobs(run)
    jobs = book_jobs(run)
    return [*jobs, Job(PAGES, "all", (PAGES, json.dumps(run.parameters())), tuple(jobs), partial(pages.due, run))]


def planned(todo: dict[Job, list[str] | None]) -> list[str]:
    """A line for everything that is to be made, as far as it is known before the jobs upstream have run."""
    follows = ["whatever follows from the jobs before"]
    return [f"{job.kind} {job.name}: {name}" for job, names in todo.items() for name in names or follows]


def carry_out(run: Run, processes: int, jobs: list[Job], todo: dict[Job, list[str] | None]) -> None:
    """Runs what is due, and says how long it should take and where the time went. Raises SystemExit as `make_book`."""
    stamps = write_graph(run, jobs, todo)
    command = [sys.executable, "-m", "snakemake", "--snakefile", artefacts.ROOT / "Snakefile"]
    command += ["--directory", artefacts.OUTPUTS, "--cores", str(processes), "--nolock", "--rerun-incomplete"]
    # the stamp alone decides whether a job is current, not its command or the times of files
    command += ["--configfile", graph_file(), "--quiet", "all", "--rerun-triggers", "mtime"]
    # the models come in order of their work: the longest begun last would keep one core only
    models = [stamps[job] for job in todo if job.kind == "model"]
    command += ["--prioritize", *models[:processes]] if models else []
    steps = collections.Counter(step for job in todo for step in job.steps)
    for job, names in todo.items():
        if job.kind == PAGES:
            steps += {NOTEBOOK: len(book_pages(run) if names is None else names[:-1]), PAGES: 1}
    print(expected(steps, len(todo), processes, run.protocol), file=sys.stderr, flush=True)
    start, progress = time.time(), artefacts.OUTPUTS / ".progress"
    atomic_write(progress, "")
    counted = {"MLPROBE_PROGRESS": str(progress), "MLPROBE_STEPS": str(steps.total()), "MLPROBE_START": str(start)}
    process = subprocess.Popen(command, env=os.environ | STEP_ENVIRONMENT | counted)
    try:
        code = 2 if process.wait() else 0
    except KeyboardInterrupt:  # which reaches the steps too
        process.wait()
        code = 130
    if code:
        print("stopped; nothing made before is lost, and the same command goes on from there", file=sys.stderr)
        sys.exit(code)
    print(account(progress, time.time() - start))
    remember(progress, time.time() - start, len(todo), processes, run.protocol)


def graph_file() -> Path:
    """Where the graph of the last run is, for the Snakefile."""
    return artefacts.OUTPUTS / "run.json"


def write_graph(run: Run, jobs: list[Job], todo: Iterable[Job]) -> dict[Job, Path]:
    """Writes the graph, and gives a stamp to every job that has nothing to do; returns the stamps' places."""
    folder = artefacts.OUTPUTS / ".stamps" / run.protocol / run.split_rule
    stamps = {job: folder / job.kind / job.name for job in jobs}
    for job, path in stamps.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if job in todo else path.touch()
    described = []
    for job, path in stamps.items():
        command = shlex.join([sys.executable, "-m", "mlprobe_utils", *job.command])
        after = [str(stamps[other]) for other in job.after]
        described.append({"kind": job.kind, "stamp": str(path), "after": after, "command": command})
    atomic_write(graph_file(), json.dumps({"stamps": str(folder), "jobs": described}, indent=1))
    return stamps
