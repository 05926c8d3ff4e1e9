"""book/launch.yml: the addresses that follow from it, and its mistakes; .binder/, which repo2docker reads."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mlprobe_utils.book.launch import launch_links, load_launch
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import ROOT

FILLED = {
    "repository": {"url": "https://github.com/lab/medical-probing.git", "branch": "main"},
    "binder": {"hub": "https://mybinder.org/"},
    "colab": {"branch": "notebooks", "folder": "notebooks"},
    "jupyterhub": {"hub": "https://hub.example.edu"},
}
BINDER = ROOT / ".binder"


@pytest.fixture
def load(tmp_path):
    """Loads a configuration given as keys and values."""

    def loaded(content: dict):
        path = tmp_path / "launch.yml"
        path.write_text(yaml.safe_dump(content))
        return load_launch(path)

    return loaded


def test_as_shipped_nothing_is_offered():
    assert launch_links(load_launch(), "01_datasets") == {}


def test_the_addresses_of_all_services(load):
    assert launch_links(load(FILLED), "01_datasets") == {
        "Binder": "https://mybinder.org/v2/gh/lab/medical-probing/main?urlpath=lab/tree/notebooks/01_datasets.ipynb",
        "Colab": "https://colab.research.google.com/github/lab/medical-probing/blob/notebooks/notebooks/01_datasets.ipynb",
        "JupyterHub": "https://hub.example.edu/hub/user-redirect/git-pull"
        "?repo=https%3A//github.com/lab/medical-probing.git&branch=main"
        "&urlpath=lab/tree/medical-probing/notebooks/01_datasets.py",
    }


def test_odd_characters_are_quoted(load):
    odd = {"url": "https://github.com/lab/probing", "branch": "for/köln & co", "notebooks": "my notes"}
    colab = {"branch": "50%", "folder": "a b"}
    assert launch_links(load(FILLED | {"repository": odd, "colab": colab}), "model") == {
        "Binder": "https://mybinder.org/v2/gh/lab/probing/for%2Fk%C3%B6ln%20%26%20co"
        "?urlpath=lab/tree/my%20notes/model.ipynb",
        "Colab": "https://colab.research.google.com/github/lab/probing/blob/50%25/a%20b/model.ipynb",
        "JupyterHub": "https://hub.example.edu/hub/user-redirect/git-pull?repo=https%3A//github.com/lab/probing"
        "&branch=for/k%C3%B6ln%20%26%20co&urlpath=lab/tree/probing/my%20notes/model.py",
    }


def test_a_jupyterhub_takes_any_git_repository(load):
    launch = load({"repository": {"url": "https://git.example.org/a/b/c.git"}, "jupyterhub": {"hub": "https://h.org"}})
    assert "urlpath=lab/tree/c/notebooks/02.py" in launch_links(launch, "02")["JupyterHub"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bindr": {"hub": "https://mybinder.org"}}, "unknown key 'bindr', did you mean 'binder'?"),
        ({"binder": {"url": "https://mybinder.org"}}, "unknown key 'binder.url'"),
        ({"binder": {"hub": "mybinder.org"}}, "binder.hub: .*https://host/path"),
        ({"jupyterhub": {"hub": "https://hub.org/?x"}}, "jupyterhub.hub: .*without blanks"),
        ({"repository": {"url": "git@github.com:a/b.git"}}, "repository.url: .*https://host/path"),
        ({"repository": {"url": "https://github.com/a/b", "notebooks": "/n"}}, "repository.notebooks: .*'/n'"),
        ({"repository": {"branch": "main"}}, "the key 'repository.url' is missing"),
        ({"colab": {"folder": "notebooks"}}, "the key 'colab.branch' is missing"),
        ({"repository": None}, "binder opens a repository: add the key 'repository'"),
        ({"repository": {"url": "https://gitlab.com/a/b"}}, "repository.url: binder .*github.com.*any git repository"),
        ({"repository": {"url": "https://github.com/a"}}, "repository.url: binder"),
    ],
)
def test_a_mistake_is_told_with_file_and_field(change, said, load):
    with pytest.raises(InputError, match=f"launch.yml: .*{said}"):
        load(FILLED | change)


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
