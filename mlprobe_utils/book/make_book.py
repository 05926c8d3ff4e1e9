"""`make book` and `make laboratory`: find what is not current, run it, say how long it takes, and build the HTML book,
which takes its place (HTML) only when the build had no error and no warning."""

import collections
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from mlprobe_utils.book.book_pages import (
    CLAIMS,
    EXPLORE,
    book_pages,
    chapters,
    executed,
    model_page,
    page_made_from,
    stale_pages,
)
from mlprobe_utils.book.book_pages import damage_of as page_damage
from mlprobe_utils.common import files
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, damage, hash_of, inventory, locked, read_record, write_record
from mlprobe_utils.common.progress import BETWEEN, kept_alive
from mlprobe_utils.pipeline import artefacts, laboratory_results
from mlprobe_utils.pipeline.cards import CARDS, ModelCard, load_model_card, slugs
from mlprobe_utils.pipeline.code import code_files, files_hash
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.fault_card import laboratory_files
from mlprobe_utils.pipeline.jobs import STEP_ENVIRONMENT, Job, book_jobs, due, laboratory_jobs, look_at
from mlprobe_utils.pipeline.stages import NOTEBOOK

TIMES = "step_times.csv"  # protocol, stage, seconds a step; of the last runs in outputs/, what ships in data/
STARTING = "starting"  # a job's processor time that is in none of its steps
PAGES = "pages"  # the kind of the book's last job
GRAPH = "run.json"  # of outputs/, that of the last run, for the Snakefile
FRONT = artefacts.ROOT / "book"
# of outputs elsewhere: with them, for two of them must not share it
OWN_HTML = artefacts.OUTPUTS if os.environ.get("MLPROBE_OUTPUTS") else FRONT / "_build"
HTML = Path(os.environ.get("MLPROBE_HTML") or OWN_HTML / "html")
INDEX, RECORD = "index.html", "book.json"  # of the built book; of outputs/, what it was built of, and all its files
BUILT = "_build/html"  # where Jupyter Book leaves the HTML
LIMITS, LABORATORY_MARK = Path("limits.md"), b"{{ laboratory }}"  # where a page says how often a diagnosis is correct
ABOUT = ["rerun", "reference", "teach", "glossary", "limits", "cite", "bibliography"]


def make_book(run: Run, processes: int, laboratory: bool = False, dry: bool = False, every_byte: bool = False) -> None:
    """Brings the book, or the fault-injection benchmark of the diagnosis, up to date. `dry` only lists what is due;
    `every_byte`: all files are compared with their hashes before. Who only reads needs no right to write. Raises
    InputError where another run is at work or a model cannot be read, SystemExit where a step failed."""
    for slug in slugs(ModelCard):  # a page shows all: a card that is not valid is an error now, not after the work
        load_model_card(slug)
    jobs, at_work = graph(run, laboratory), artefacts.OUTPUTS / "make_book"
    if every_byte:
        with locked(at_work, "outputs", wait=False):
            verify()
    todo = due(jobs)
    if dry:
        print("\n".join(planned(todo)) or "everything is up to date")
        return
    if todo:
        with locked(at_work, "outputs", wait=False):
            look_at(job.name for job in todo if job.kind in ("model", "trial"))
            carry_out(run, processes, jobs, todo)
    result = laboratory_files()[0] if laboratory else HTML / "index.html"
    print(f"the {'fault-injection benchmark' if laboratory else 'book'}: {artefacts.relative(result)}")


def verify() -> None:
    """Compares every artefact and page with its hashes; what is damaged is named, and due from then on."""
    found, notebooks = {}, executed("").parent
    for record in artefacts.OUTPUTS.rglob(artefacts.FILES):
        if ".partial" not in artefacts.from_outputs(record):  # which are looked at when an interrupted step goes on
            found[record] = artefacts.damage_of(record.parent, every_byte=True)
    for record in notebooks.rglob(".*.json"):
        found[record] = page_damage(str(record.relative_to(notebooks).with_name(record.stem[1:])), every_byte=True)
    if whole := read_record(artefacts.OUTPUTS / RECORD):
        found[artefacts.OUTPUTS / RECORD] = html_damage(whole, every_byte=True)
    damaged = {record: wrong for record, wrong in found.items() if wrong}
    for record, wrong in damaged.items():
        print(f"{artefacts.from_outputs(record)}: {wrong}")
        record.unlink()
    print(f"{len(found)} artefacts and pages compared with their hashes, {len(damaged)} damaged")


def graph(run: Run, laboratory: bool = False) -> list[Job]:
    """The jobs of `make book` or `make laboratory`, upstream first. InputError for a bad card or a missing package."""
    if laboratory:
        return laboratory_jobs(run)
    jobs = book_jobs(run)
    command = (PAGES, json.dumps(run.parameters()))
    return [*jobs, Job(PAGES, "all", command, tuple(jobs), lambda: pages_due(run))]


def planned(todo: dict[Job, list[str] | None]) -> list[str]:
    """A line for everything that is to be made, as far as it is known before the jobs upstream have run."""
    follows = ["whatever follows from the jobs before"]
    return [f"{job.kind} {job.name}: {name}" for job, names in todo.items() for name in names or follows]


def carry_out(run: Run, processes: int, jobs: list[Job], todo: dict[Job, list[str] | None]) -> None:
    """Runs what is due, and says how long it should take and where the time went; SystemExit as `make_book`."""
    stamps = write_graph(run, jobs, todo)
    command = [sys.executable, "-m", "snakemake", "--snakefile", artefacts.ROOT / "Snakefile"]
    command += ["--directory", artefacts.OUTPUTS, "--cores", str(processes), "--nolock", "--rerun-incomplete"]
    # the stamp alone decides whether a job is current, not its command or the times of files
    command += ["--configfile", artefacts.OUTPUTS / GRAPH, "--rerun-triggers", "mtime"]
    # the models come in order of their work: the longest begun last would keep one core only
    first = [stamps[job] for job in todo if job.kind == "model"][:processes]
    command += ["--prioritize", *first] if first else []
    steps = collections.Counter(step for job in todo for step in job.steps)
    for job, names in todo.items():
        if job.kind == PAGES:
            steps += {NOTEBOOK: len(book_pages(run) if names is None else names[:-1]), PAGES: 1}
    print(expected(steps, len(todo), processes, run.protocol), file=sys.stderr, flush=True)
    start, progress = time.time(), artefacts.OUTPUTS / ".progress"
    atomic_write(progress, "")
    counted = {"MLPROBE_PROGRESS": str(progress), "MLPROBE_STEPS": str(steps.total()), "MLPROBE_START": str(start)}
    shutil.rmtree(artefacts.OUTPUTS / ".snakemake", ignore_errors=True)  # of a killed run; the stamps say all
    with kept_alive(progress):
        process = subprocess.Popen([*command, "--quiet", "all"], env=os.environ | STEP_ENVIRONMENT | counted)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            code = 2 if process.wait() else 0
        except KeyboardInterrupt:
            code = 130
    process.wait()
    if code:
        print(objection(command) if code == 2 else "", end="", file=sys.stderr)
        print("stopped; finished work is kept, and the same command continues from there", file=sys.stderr)
        sys.exit(code)
    print(account(progress, time.time() - start))
    remember(progress, time.time() - start, len(todo), processes, run.protocol)


def objection(command: list) -> str:
    """What Snakemake, which is kept quiet because jobs speak for themselves, has against the graph; empty: nothing."""
    planned = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    said, traceback, more = (planned.stdout + planned.stderr).strip().partition("Traceback")
    reason = more.splitlines()[-1] if traceback else said
    return f"error: Snakemake cannot plan the graph: {reason}\n" if planned.returncode else ""


def write_graph(run: Run, jobs: list[Job], todo: Iterable[Job]) -> dict[Job, Path]:
    """Writes the graph, and gives a stamp to every job that has nothing to do; returns the stamps' places."""
    # from outputs/, where Snakemake runs: in a path of the user's it would read braces as its own
    folder = Path(".stamps") / run.protocol / run.split_rule
    stamps = {job: folder / job.kind / job.name for job in jobs}
    for job, path in stamps.items():
        path = artefacts.OUTPUTS / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if job in todo else path.touch()
    described = [
        {"kind": job.kind, "stamp": str(path), "after": [str(stamps[other]) for other in job.after]}
        | {"command": shlex.join([sys.executable, "-m", "mlprobe_utils", *job.command])}
        for job, path in stamps.items()
    ]
    atomic_write(artefacts.OUTPUTS / GRAPH, json.dumps({"stamps": str(folder), "jobs": described}, indent=1))
    return stamps


def publish(run: Run) -> None:
    """Builds the HTML of a run whose pages are executed; InputError as `assemble` and `build`."""
    write_record(artefacts.OUTPUTS / RECORD, {"files": build(assemble(run)), "made_from": made_from(run)})


def assemble(run: Run) -> Path:
    """Puts the sources of a run's book together in a folder; InputError if a page was not executed."""
    wanted = {path.relative_to(FRONT): path.read_bytes() for path in front_matter()}
    wanted[LIMITS] = wanted[LIMITS].replace(LABORATORY_MARK, laboratory_results.read().words().encode())
    wanted[Path("_toc.yml")] = yaml.safe_dump(contents(run), sort_keys=False).encode()
    for page in book_pages(run):
        if not (notebook := executed(page.name)).is_file():
            raise InputError(f"{artefacts.relative(notebook)} does not exist: run `make book`")
        wanted[Path(f"{page.name}.ipynb")] = notebook.read_bytes()
    sources = artefacts.OUTPUTS / "book"
    found = {path.relative_to(sources): path.read_bytes() for path in sources.rglob("*") if path.is_file()}
    for name in found.keys() - wanted.keys():
        (sources / name).unlink()
    for name, content in wanted.items():
        if found.get(name) != content:  # only changes are rebuilt
            atomic_write(sources / name, content)
    return sources


def pages_due(run: Run) -> list[str]:
    """The names of the pages of a run that have to be executed, and last INDEX if the HTML is not built of all."""
    stale, record = [page.name for page in stale_pages(run)], read_record(artefacts.OUTPUTS / RECORD)
    built = not stale and record and record["made_from"] == made_from(run) and not html_damage(record)
    return [] if built else [*stale, INDEX]


def html_damage(record: dict, every_byte: bool = False) -> str:
    """As `files.damage`, of the published HTML."""
    inside = f"{BUILT}/"
    pages = {name.removeprefix(inside): file for name, file in record["files"].items() if name.startswith(inside)}
    return damage(HTML, pages, every_byte)


def made_from(run: Run) -> str:
    """A hash of all that the HTML is built of, but for what pages say of their execution."""
    notebooks = {page.name: page_made_from(page, run) for page in book_pages(run)}
    texts = [(path.name, hash_of(path.read_bytes())) for path in [*front_matter(), *laboratory_files()]]
    code = files_hash({Path(__file__), *code_files("mlprobe_utils.book.sphinx_extension")})
    return hash_of([notebooks, texts, code])


def front_matter() -> list[Path]:
    """The files of book/ that belong to the sources."""
    return sorted(path for path in FRONT.rglob("*") if path.is_file() and "_build" not in path.relative_to(FRONT).parts)


def contents(run: Run) -> dict:
    files = lambda names: [{"file": name} for name in names]  # noqa: E731
    models = [{"file": "models", "sections": files(map(model_page, run.models))}]  # folded in the side bar
    parts = {"Chapters": files([CLAIMS, *chapters()]), "Models": [*models, *files([EXPLORE])], "About": files(ABOUT)}
    listed = [{"caption": part, "chapters": own} for part, own in parts.items()]
    return {"format": "jb-book", "root": "index", "parts": listed}


def build(sources: Path) -> files.Inventory:
    """Builds the HTML, puts it in place, and returns its files. InputError, with Sphinx's messages, where it warns."""
    output, log = artefacts.OUTPUTS / "book_build", artefacts.OUTPUTS / "logs" / "pages.log"
    record = read_record(artefacts.OUTPUTS / RECORD)
    pages = [path for path in (output / BUILT).glob("_sources/**/*.*") if path.suffix != ".py"]
    gone = [page for page in pages if not (sources / page.relative_to(output / BUILT / "_sources")).is_file()]
    if gone or damage(output, record and record["files"]):  # Sphinx leaves the HTML of a page that is no more
        shutil.rmtree(output, ignore_errors=True)
    (artefacts.OUTPUTS / RECORD).unlink(missing_ok=True)  # no build goes on from an interrupted one
    # not its script, which holds the path that the environment was made at
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", sources, "--path-output", output]
    done = subprocess.run([*command, "-W", "-n", "--keep-going"], capture_output=True, text=True)
    atomic_write(log, messages := done.stdout + done.stderr)
    made = inventory(output)
    write_record(artefacts.OUTPUTS / RECORD, {"made_from": None, "files": made})
    if done.returncode:
        wrong = [line for line in messages.splitlines() if "WARNING" in line or "error" in line.lower()]
        raise InputError("\n".join(["the book has warnings or errors:", *wrong[:20], f"full log: {log}"]))
    fresh = HTML.with_name(f".{HTML.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(output / BUILT, fresh)
    files.swap_in(fresh, HTML)
    return made


def spent(progress: Path) -> pd.DataFrame:
    """stage, steps, seconds (summed over processes), the longest first, of the file that `common.progress` writes."""
    lines = [line.split("\t") for line in progress.read_text().splitlines()]
    steps = pd.DataFrame([(what.split(BETWEEN)[-1], float(seconds)) for seconds, what in lines], columns=["stage", "s"])
    found = steps.groupby("stage", sort=False)["s"].agg(steps="count", seconds="sum")
    return found.sort_values("seconds", ascending=False, kind="stable").reset_index()


def account(progress: Path, wall: float) -> str:
    """`spent` as text, with the wall time, and processor time and memory of the processes that this one waited for."""
    table, usage = spent(progress), resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = [*table.itertuples(index=False, name=None), ("total", table["steps"].sum(), table["seconds"].sum())]
    numbers = {"elapsed seconds": wall, "processor seconds": usage.ru_utime + usage.ru_stime}
    numbers["largest process (MiB)"] = artefacts.peak_of(resource.RUSAGE_CHILDREN)
    lines = [f"{'where the time went':<24}{'steps':>6}{'seconds':>9}"]
    lines += [f"{stage:<24}{steps:>6}{seconds:>9.0f}" for stage, steps, seconds in stages]
    return "\n".join([*lines, *(f"{name:<24}{number:>15.0f}" for name, number in numbers.items())])


def remember(progress: Path, wall: float, jobs: int, processes: int, protocol: str) -> None:
    """Keeps, for the next estimate, the seconds a step of a run of so many jobs, `processes` of them at a time."""
    table = spent(progress)
    seconds = dict(zip(table["stage"], table["seconds"] / table["steps"], strict=True))
    seconds[STARTING] = max(0.0, wall * processes - table["seconds"].sum()) / jobs
    own = pd.DataFrame({"protocol": protocol, "stage": seconds.keys(), "seconds": seconds.values()})
    known = pd.concat([own, *known_times(artefacts.OUTPUTS / TIMES)]).drop_duplicates(["protocol", "stage"])
    atomic_write(artefacts.OUTPUTS / TIMES, known.round({"seconds": 2}).to_csv(index=False))


def known_times(path: Path) -> list[pd.DataFrame]:
    """The table of a file, if it can be read: an estimate is not worth an error."""
    try:
        return [pd.read_csv(path, usecols=["protocol", "stage", "seconds"], dtype={"seconds": float})]
    except (OSError, ValueError):
        return []


def expected(steps: collections.Counter, jobs: int, processes: int, protocol: str) -> str:
    """How many steps (stage -> how many) a run will take and about how long, in words; otherwise as `remember`."""
    words, own, shipped = f"{steps.total()} steps", known_times(artefacts.OUTPUTS / TIMES), known_times(CARDS / TIMES)
    tables = [table[table["protocol"] == protocol].set_index("stage")["seconds"] for table in own or shipped]
    if not tables or (known := tables[0]).empty:
        return f"{words}; no estimate, as the protocol '{protocol}' has not been run yet"
    seconds = sum(number * known.get(stage, known.mean()) for stage, number in steps.items())
    whose = "of the last run" if own else "shipped with the project"
    minutes = (seconds + jobs * known.get(STARTING, 0)) / processes / 60
    return f"{words}, about {max(1, round(minutes))} min, going by the times {whose}"
