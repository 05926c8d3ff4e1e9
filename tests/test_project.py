"""The project: exact pins in two lists that agree, what an import costs, the commands, how to cite and what."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import import_module

import pytest
import yaml
from grimp import build_graph
from pybtex.database import parse_file, parse_string

import mlprobe_utils
from mlprobe_utils import __main__ as command_line
from mlprobe_utils.book.book_pages import NOTEBOOKS, notebooks
from mlprobe_utils.book.run_chapter import WITHOUT_GRAMMAR
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.code import code_files


def test_the_page_on_citing_says_what_the_citation_file_holds():
    project = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = project["references"]
    text = (ROOT / "book" / "cite.md").read_text()
    plain, entries = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("text", "bibtex"))
    for work, line, entry in zip((project, paper), plain, entries, strict=True):
        (parsed,) = parse_string(entry, "bibtex").entries.values()
        names = [own.get("name") or f"{own['given-names']} {own['family-names']}" for own in work["authors"]]
        authors = [" ".join([*own.first_names, *own.last_names]).strip("{}") for own in parsed.persons["author"]]
        assert authors == names
        assert all(name in line for name in (*names, work["title"]))
        assert parsed.fields["title"] == f"{{{work['title']}}}"  # in braces twice: its capitals are meant
    fields = [parsed.fields[name] for name in ("eprint", "year", "url", "journal")]
    assert fields == ["2604.08333", str(paper["year"]), paper["url"], paper["journal"]]
    assert f"arXiv:{fields[0]}" == paper["identifiers"][0]["value"]
    assert all(own in plain[1] for own in (f"arXiv:{fields[0]}", f"({paper['year']})", paper["url"]))


def test_the_bibliography_holds_what_is_cited_and_nothing_else():
    text = "".join(path.read_text() for place in ("notebooks/*.py", "book/*.md") for path in ROOT.glob(place))
    cited = {key.strip() for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text) for key in keys.split(",")}
    cited |= {*re.findall(r"bibliography\.md#([\w-]+)", text)}  # links of notebooks
    assert cited == set(parse_file(ROOT / "book" / "references.bib").entries)


def test_the_pins_are_the_same_and_exact():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python, pip, section = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *conda, own = section["pip"]
    assert (python, pip, project["requires-python"], own) == ("python=3.11", "pip", ">=3.11,<3.14", "-e .")
    pins = project["dependencies"] + project["optional-dependencies"]["test"]
    assert sorted(conda) == sorted(pins)
    extra = project["optional-dependencies"]["benchmark"]  # for pip only: nothing but a benchmark needs it
    assert not [pin for pin in pins + extra if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[0-9][A-Za-z0-9.!+]*", pin)]
    names = [re.sub("[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))


def run(code: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def imported(modules: Iterable[str], watched: tuple[str, ...]) -> list[str]:
    """Which of the watched modules a process has that imports these as a page's kernel does."""
    imports = "\n".join([WITHOUT_GRAMMAR, *(f"import {name}" for name in modules)])
    return run(f"{imports}\nimport sys\nprint(*[name for name in {watched} if name in sys.modules])").split()


def test_what_notebooks_and_manifests_import_imports_neither_torch_nor_a_grammar():
    """jsonschema reads rfc3987_syntax where it is installed, and that makes a grammar with lark."""
    of_results = [name for name in notebooks() if name != "00_by_hand"]  # which is about a model itself
    files = sorted({path for name in of_results for path in code_files(NOTEBOOKS / f"{name}.py")})
    names = [".".join(path.relative_to(NOTEBOOKS.parent).with_suffix("").parts) for path in files]
    assert "mlprobe_utils.plots.charts" in names
    names = [name.removesuffix(".__init__") for name in names]
    names += ["mlprobe_utils.book.run_chapter", "mlprobe_utils.datasets.manifest"]
    assert imported(names, ("torch", "transformers", "peft", "lark", "jsonschema")) == ["jsonschema"]
    heavy = ("torch", "papermill", "jupytext", "IPython", "sphinx", "scipy")
    assert imported(["mlprobe_utils.book.book_pages"], heavy) == []


def test_a_process_of_the_pipeline_imports_torchvision_and_no_timm():
    """torchvision imports beside a CPU torch once `models.compat` is; only who builds a baseline needs timm."""
    code = "import mlprobe_utils.pipeline.model_steps, mlprobe_utils.synthetic.miniatures.making, sys, torchvision"
    version, *timm = run(f"{code}\nprint(torchvision.__version__, *{{'timm'}} & {{*sys.modules}})").split()
    assert (version.split("+")[0], timm) == ("0.28.0", [])


def test_the_pipeline_and_the_door_go_through_the_public_modules_of_the_rooms():
    rooms = ("stats", "evaluation", "models", "probing", "datasets", "training")
    exported = {room: import_module(f"mlprobe_utils.{room}").__all__ for room in rooms}
    public = {f"mlprobe_utils.{room}.{name}" for room, names in exported.items() for name in names}
    graph = build_graph("mlprobe_utils", cache_dir=None)
    assert public <= graph.modules
    own = {name for name in graph.modules if name.startswith("mlprobe_utils.pipeline.")}
    used = {name for module in own for name in graph.find_modules_directly_imported_by(module)}
    used |= {f"mlprobe_utils.{place}" for place in mlprobe_utils._PLACES.values()}
    of_rooms = {name for name in used if name.split(".")[1] in rooms}
    assert len(of_rooms) > 20
    assert sorted(of_rooms - public) == []


def test_the_door_imports_nothing_and_changes_nothing():
    code = "import logging, sys\nours = {'mlprobe_utils', *sys.stdlib_module_names}\n"
    code += "def state():\n    modules = {name for name in sys.modules if name.partition('.')[0] not in ours}\n"
    code += "    return modules, sys.meta_path[:], logging.root.level\n"
    code += "before = state()\nimport mlprobe_utils as mp\n"
    code += "print(state() == before, {*mp.__all__} <= {*dir(mp)}, hasattr(mp, 'nothing'))\n"
    assert run(code) == "True True False"


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_has_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command_line.main([name, "--help"])
    assert command_line.COMMANDS[name][0] in " ".join(capsys.readouterr().out.split())


def test_what_commands_import_when_they_run_is_there():
    source = inspect.getsource(command_line)
    imported = re.findall(r"^ +from (mlprobe_utils[\w.]*) import (.+)$", source, re.MULTILINE)
    imported += [(f"mlprobe_utils.{module}", name) for module, name in re.findall(r'"([\w.]+)\.(run_\w+)"', source)]
    imported += [(f"mlprobe_utils.{module}", "") for module in re.findall(r'heavy\("([\w.]+)"', source)]
    assert len(imported) > 20
    for module, names in imported:
        found = importlib.import_module(module)
        for name in filter(None, names.split(", ")):
            assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("given", [[], ["prob"], ["model"], ["model", "x", "--datasets", "y", "--split", "z"]])
def test_a_wrong_command_line_is_one_message_that_names_the_mend(given, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.main(given)
    assert end.value.code == 2
    *usage, last = capsys.readouterr().err.strip().splitlines()
    assert usage[0].startswith("usage: mlprobe")
    assert re.search("error: .*(required|choose from)", last)
