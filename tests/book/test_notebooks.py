"""Notebooks: how their cells are made, and that a wrong parameter ends in one message before anything runs."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import jupytext
import papermill
import pytest
from notebook_cells import names_of

from mlprobe_utils.book.book_pages import LINK, NOTEBOOKS, headings, notebooks
from mlprobe_utils.book.chapter import check_parameters, declarations
from mlprobe_utils.book.sphinx_extension import ANSWER, DEFINED, slug
from mlprobe_utils.book.sphinx_extension import LINK as TO_PAGE
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import configuration
from mlprobe_utils.pipeline.artefacts import ROOT

MOST_LINES = 8
BINDER = ROOT / ".binder"


@pytest.fixture(params=notebooks())
def name(request):
    return request.param


@pytest.fixture
def cells(name):
    return jupytext.read(NOTEBOOKS / f"{name}.py").cells


def code_of(cells) -> list[str]:
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_cells_are_short_hold_no_functions_and_read_no_name_that_two_cells_make(cells):
    """So that a cell can be run again after all others: what it reads is what it read before."""
    makers = Counter(name for source in code_of(cells) for name in names_of(source)[0])
    for source in code_of(cells):
        lines = [line for line in source.splitlines() if line.strip()]
        assert 1 <= len(lines) <= MOST_LINES, source
        assert not any(line.lstrip().startswith(("def ", "class ")) for line in lines), source
        assert not [name for name in names_of(source)[1] if makers[name] > 1], source


def test_a_page_has_title_parameters_opening_and_its_own_provenance(cells, name):
    title, parameters, start, *_, heading, last = cells
    assert title.source.startswith("# ")
    folded = ("hide-input", "remove-input")  # the front page shows no code
    tag, *tags = parameters.metadata["tags"] + start.metadata["tags"]
    assert tag == "parameters"
    assert set(tags) <= set(folded)
    assert "chapter = start(globals())" in start.source
    assert sum("chapter.opening()" in source for source in code_of(cells)) == 1
    assert heading.source.startswith("## How this page was made\n")
    assert last.source == f'chapter.provenance("{name}")'
    assert last.metadata["tags"] == ["hide-input"]


def test_text_is_commonmark_and_its_links_lead_somewhere(cells):
    """No role, no directive: text reads in every program for notebooks as on the page."""
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not re.findall(r"\{[\w:]+\}`|^:::|^```\{", prose, re.MULTILINE)
    assert {target for _, target in LINK.findall(prose)} <= headings(cells)
    terms = {slug(term) for term in DEFINED.findall((ROOT / "book/glossary.md").read_text())}
    for source in (prose, *code_of(cells)):
        for _, page, anchor in TO_PAGE.findall(source):
            assert page in notebooks() or (ROOT / f"book/{page}.md").exists(), page
            assert page != "glossary" or anchor in terms, anchor


def test_a_chapter_asks_a_question_and_answers_it(name, cells):
    answers = [cell for cell in cells if ANSWER in cell.metadata.get("tags", [])]
    assert name[0].isdigit() <= ("**Question.**" in cells[0].source) == bool(answers)
    assert sum(bool(re.search(r"^answer\(", cell.source, re.MULTILINE)) for cell in answers) == bool(answers)


DECLARED = """
models: list[str] = ["qwen2.5-vl-7b-miniature"]
datasets: list[str] = ["busi-phantom"]
protocol: str = "miniature"
split_rule: str = "paper"
data: str = ""
metric: str = "accuracy"
"""


def namespace(**injected) -> dict:
    """The globals of a notebook after the parameters cell and papermill's injected one."""
    source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in injected.items())])
    values = {"In": ["", DECLARED, source]}
    exec(f"{DECLARED}\n{source}", values)
    return values


def test_what_else_a_notebook_holds_is_its_readers_own():
    """A start-up file's variables, what the page itself has made, an annotated name, an earlier run's parameters."""
    expected = check_parameters(namespace())
    own = namespace() | {"chapter": 1, "sample": [1], "note": lambda: 0}
    own["__annotations__"] |= {"mine": int}
    own["In"] = [own["In"][1], "# Parameters\nolder = 1", "# Parameters\nsplit_rule = 'paper'", "mine: int = 3"]
    own["In"] += ["# Parameters of my plot\nsize = 3", "# Parameters\nthis is (no Python"]
    assert check_parameters(own) == expected
    assert expected[1].keys() == {"models", "datasets", "protocol", "split_rule", "data", "metric"}


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        ({"models": "lingshu-7b-miniature"}, "'models': .*list.*lingshu-7b-miniature"),
        ({"models": ["lingshu-7b-minature"]}, "unknown model .*did you mean 'lingshu-7b-miniature'"),
        ({"metric": "acuracy"}, "unknown metric .*accuracy"),
        ({"modles": ["x"]}, "unknown parameter 'modles': did you mean 'models'"),  # papermill only logs it
    ],
)
def test_an_error_names_the_parameter_and_the_remedy(injected, words):
    with pytest.raises(InputError, match=words):
        check_parameters(namespace(**injected))


def test_notebooks_declare_types_meanings_and_a_run(cells, name, tmp_path):
    """As `papermill --help-notebook` shows them: a type and a meaning each; defaults are those of `make book`."""
    jupytext.write(jupytext.read(NOTEBOOKS / f"{name}.py"), tmp_path / "notebook.ipynb")
    shown = papermill.inspect_notebook(str(tmp_path / "notebook.ipynb"))
    assert declarations(code_of(cells))[0] == {name: parameter["help"] for name, parameter in shown.items()}
    assert {"models", "datasets", "protocol", "split_rule", "data"} <= set(shown)
    for parameter in shown.values():
        assert parameter["inferred_type_name"] in ("list[str]", "str")
        assert parameter["help"]
    values = {name: ast.literal_eval(parameter["default"]) for name, parameter in shown.items()}
    assert len(values["models"]) == (name == "model")  # the page of one model names one
    expected = configuration.configure(values["models"], [], "miniature", "paper", "")
    assert check_parameters(namespace(**values))[0] == expected


@pytest.mark.slow
def test_binder_gets_the_projects_own_pins_and_python_and_turns_every_script_into_a_notebook(tmp_path):
    """`.binder/`, which repo2docker reads."""
    assert (BINDER / "requirements.txt").read_text() == "-e .\n"
    python = (BINDER / "runtime.txt").read_text().removeprefix("python-").strip()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].startswith(f">={python},")
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run([BINDER / "postBuild"], cwd=tmp_path, env={"PATH": path}, check=True)
    assert sorted(path.stem for path in (tmp_path / "notebooks").glob("*.ipynb")) == notebooks()
