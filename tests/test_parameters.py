"""A chapter's parameters: a wrong one ends in one message before anything runs."""

import ast
import json
import subprocess
import sys

import jupytext
import papermill
import pytest

from mlprobe_utils import configuration
from mlprobe_utils.book_pages import NOTEBOOKS, notebooks
from mlprobe_utils.errors import InputError
from mlprobe_utils.parameters import check_parameters, meanings

DECLARED = """
models: list[str] = ["qwen2.5-vl-7b-miniature"]
datasets: list[str] = ["busi-phantom"]
protocol: str = "miniature"
split: str = "paper"
data: str = ""
metric: str = "accuracy"
"""


def namespace(**injected) -> dict:
    """The globals of a notebook after the parameters cell and papermill's injected one."""
    values = {}
    exec(DECLARED, values)
    return values | injected


def test_empty_lists_are_the_default_run():
    default = configuration.configure([], [], "miniature", "paper", "")
    assert check_parameters(namespace(models=[], datasets=[])) == default


def test_declared_values_come_back():
    assert check_parameters(namespace(split="clean")).split == "clean"


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        ({"modles": ["lingshu-7b-miniature"]}, ["modles", "did you mean 'models'"]),
        ({"models": "lingshu-7b-miniature"}, ["'models'", "list", "lingshu-7b-miniature"]),
        ({"models": [7]}, ["'models'", "7"]),
        ({"datasets": ["busi"]}, ["'busi'", "DATA=", "busi-phantom"]),
        ({"models": ["lingshu-7b-minature"]}, ["unknown model", "did you mean 'lingshu-7b-miniature'"]),
        ({"datasets": ["buzi"]}, ["unknown data set 'buzi'", "busi"]),
        ({"protocol": "papr"}, ["unknown protocol", "paper"]),
        ({"split": "official"}, ["unknown split 'official'", "clean", "paper"]),
        ({"metric": "acuracy"}, ["unknown metric", "accuracy"]),
        ({"data": 3}, ["'data'", "str"]),
    ],
)
def test_a_wrong_parameter_names_itself_and_the_mend(injected, words):
    with pytest.raises(InputError) as error:
        check_parameters(namespace(**injected))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", notebooks())
def test_notebooks_declare_types_meanings_and_a_run(name, tmp_path):
    """As `papermill --help-notebook` shows them: a type and a meaning each; defaults are those of `make book`."""
    notebook = tmp_path / f"{name}.ipynb"
    jupytext.write(jupytext.read(NOTEBOOKS / f"{name}.py"), notebook)
    shown = papermill.inspect_notebook(str(notebook))
    assert {"models", "datasets", "protocol", "split", "data"} <= set(shown)
    for parameter in shown.values():
        assert parameter["inferred_type_name"] in ("list[str]", "str")
        assert parameter["help"]
    values = {name: ast.literal_eval(parameter["default"]) for name, parameter in shown.items()}
    assert len(values["models"]) == (name == "model")  # the page of one model names one
    assert check_parameters(namespace(**values)) == configuration.configure(
        values["models"], [], "miniature", "paper", ""
    )


@pytest.mark.parametrize("name", notebooks())
def test_meanings_are_those_that_papermill_shows(name, tmp_path):
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    jupytext.write(notebook, tmp_path / "notebook.ipynb")
    shown = papermill.inspect_notebook(str(tmp_path / "notebook.ipynb"))
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert meanings(cells) == {name: parameter["help"] for name, parameter in shown.items()}


def test_the_meaning_is_that_of_the_declaration_as_it_was_run_last():
    cells = [
        'split: str = "paper # clean"  # größer: "ü" # und mehr\nmetric: str = "f1"',
        'split = "clean"  # injected',
        "this is (no Python",
        "models: list[str] = [\n    'a',\n]  # several lines",
        "models: list[str] = []  # edited",
    ]
    assert meanings(cells[:4])["models"] == "several lines"
    assert meanings(cells) == {"split": 'größer: "ü" # und mehr', "metric": "", "models": "edited"}


def test_papermill_itself_stops_at_an_unknown_parameter(tmp_path):
    """Through plain papermill, which only logs it: nothing is computed, and the last line says what is wrong."""
    notebook = tmp_path / "03_probing.ipynb"
    jupytext.write(jupytext.read(NOTEBOOKS / "03_probing.py"), notebook)
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-p", "modles", "x"]
    done = subprocess.run([*command, "--no-progress-bar"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "unknown parameter 'modles': did you mean 'models'?" in done.stderr
    executed = json.loads((tmp_path / "out.ipynb").read_text())
    counts = [cell["execution_count"] for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert max(count for count in counts if count) <= 3
