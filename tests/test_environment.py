"""The two lists of pins, for pip and for conda users: the same, and exact."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


@pytest.fixture(scope="module")
def pip_of_project(project) -> list[str]:
    return project["dependencies"] + project["optional-dependencies"]["test"]


@pytest.fixture(scope="module")
def pip_of_conda(conda) -> list[str]:
    (section,) = [entry for entry in conda if isinstance(entry, dict)]
    assert list(section) == ["pip"]
    return section["pip"]


def test_conda_installs_the_project_itself(pip_of_conda):
    assert pip_of_conda[-1] == "-e ."


def test_the_pins_are_the_same(pip_of_project, pip_of_conda):
    assert set(pip_of_conda) - {"-e ."} == set(pip_of_project)


def test_no_package_is_named_twice(pip_of_project, pip_of_conda):
    for requirements in (pip_of_project, pip_of_conda):
        names = [re.sub("[-_.]+", "-", r.split("==")[0]).lower() for r in requirements]
        assert len(names) == len(set(names))


def test_every_pin_is_exact(project, pip_of_project, pip_of_conda):
    extra = project["optional-dependencies"]["benchmark"]  # for pip only: nothing but a benchmark needs it
    loose = [r for r in [*pip_of_project, *extra, *pip_of_conda] if r != "-e ." and not PIN.fullmatch(r)]
    assert not loose


def test_the_python_is_the_one_the_project_asks_for(project, conda):
    assert conda[:2] == ["python=3.11", "pip"]
    assert project["requires-python"] == ">=3.11,<3.12"
