"""`.binder/`, which repo2docker reads: the project's own pins, and every script as a notebook."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mlprobe_utils.pipeline.artefacts import ROOT

BINDER = ROOT / ".binder"


def test_binder_gets_the_projects_own_pins_and_python():
    pins = [file.name for file in BINDER.iterdir() if re.search(r"[=<>~]=", file.read_text())]
    assert pins == []
    assert (BINDER / "requirements.txt").read_text() == "-e .\n"
    python = (BINDER / "runtime.txt").read_text().removeprefix("python-").strip()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].startswith(f">={python},")


@pytest.mark.slow
def test_binder_turns_every_script_into_a_notebook(tmp_path):
    scripts = {path.stem for path in (ROOT / "notebooks").glob("*.py")}
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run([BINDER / "postBuild"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (tmp_path / "notebooks").glob("*.ipynb")} == scripts
