"""Makes what a chapter reads, by the same commands that `make book` runs, each in a process of its own.

Every command returns at once where its artefact is current. `make book` has run them before the chapters start and
says so in MLPROBE_PREPARED.
"""

import os
import subprocess
import sys

from mlprobe_utils.cards import ModelCard, load_data_card, load_model_card
from mlprobe_utils.datasets.image_set import manifest_folder
from mlprobe_utils.errors import InputError
from mlprobe_utils.results import Selection


def prepare(selection: Selection, data: str = "", models: bool = True) -> None:
    """Makes image sets and, unless `models` is False, checkpoints and results for a selection.

    Args:
        data: the folder that holds the real images; empty where only phantoms are selected.

    Raises:
        InputError: what the command that failed said.
    """
    if os.environ.get("MLPROBE_PREPARED"):
        return
    for slug in selection.datasets:
        made_by = load_data_card(slug).made_by
        if made_by:
            _run(made_by, slug)
        if made_by or data or not manifest_folder(slug, selection.protocol).is_dir():
            folder = ["--data", data] if data and not made_by else []
            _run("mlprobe_utils.datasets.manifest", slug, "--protocol", selection.protocol, *folder)
    for slug in selection.models if models else ():
        card: ModelCard = load_model_card(slug)
        if card.made_by:
            _run(card.made_by, slug)
        options = ["--protocol", selection.protocol, "--split", selection.split]
        _run("mlprobe_utils.pipeline", slug, "--datasets", *selection.datasets, *options)


def _run(module: str, *arguments: str) -> None:
    """Runs a command of the package; its progress goes to the terminal as it comes, not to the page."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    said = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.__stderr__, flush=True)
            said.append(line)
    if process.returncode:
        message = "".join(said).rpartition("error: ")[2].strip() or f"exit code {process.returncode}"
        raise InputError(f"{message} (while running python -m {module} {' '.join(arguments)})")
