"""`make book`: checks what was asked for, then lets Snakemake run what is not current, and says how it goes.

`python -m mlprobe_utils.make_book [--models M ...] [--datasets D ...] [--protocol P] [--data FOLDER] [--jobs N]`
"""

import argparse
import json
import os
import subprocess
import sys
import time

from filelock import FileLock, Timeout

from mlprobe_utils import artefacts
from mlprobe_utils.configuration import Run, configure
from mlprobe_utils.errors import InputError, run_command


def make_book(run: Run, jobs: int) -> None:
    """Brings the book up to date.

    Raises:
        InputError: another run is at work in this checkout, or a step failed (its own message stands above).
    """
    artefacts.OUTPUTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(artefacts.OUTPUTS / ".make_book.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another `make book` is at work in this checkout: wait for it, or stop it") from None
    with lock:
        progress = artefacts.OUTPUTS / ".progress"
        artefacts.atomic_write(progress, "")
        artefacts.atomic_write(artefacts.OUTPUTS / "run.json", json.dumps(run.parameters(), indent=1))
        environment = os.environ | {
            "MLPROBE_PROGRESS": str(progress),
            "MLPROBE_STEPS": str(run.steps()),
            "MLPROBE_START": str(time.time()),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(artefacts.ROOT / "Snakefile")]
        command += ["--directory", str(artefacts.ROOT), "--cores", str(jobs), "--nolock", "--rerun-incomplete"]
        command += ["--quiet", "all", "--configfile", str(artefacts.OUTPUTS / "run.json")]
        if subprocess.run(command, env=environment).returncode:
            raise InputError("the book was not finished: mend what the message above names and run the same again")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.make_book", description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="slugs of model cards")
    parser.add_argument("--datasets", nargs="*", default=[], help="slugs of data cards")
    parser.add_argument("--protocol", default="miniature")
    parser.add_argument("--split", default="paper")
    parser.add_argument("--data", default="", help="folder with the real images")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    arguments = parser.parse_args()
    run = configure(arguments.models, arguments.datasets, arguments.protocol, arguments.split, arguments.data)
    make_book(run, arguments.jobs)
    print(f"the book: {artefacts.relative(artefacts.ROOT / 'book' / '_build' / 'html' / 'index.html')}")


if __name__ == "__main__":
    run_command(main)
