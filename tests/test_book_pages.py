"""The pages of a book: which there are for one model, two, or sixteen, what makes each, and what each waits for."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from mlprobe_utils import artefacts, pages
from mlprobe_utils.book_pages import (
    BASELINES,
    DISCUSSIONS,
    book_pages,
    chapters,
    model_page,
    notebook_of,
    notebooks,
    script_of,
)
from mlprobe_utils.configuration import Run
from mlprobe_utils.errors import InputError

DATASET = "busi-phantom"
SIXTEEN = tuple(f"vendor_{n}-model2.5-vl-{n}b" for n in range(16))


def run_of(*models: str) -> Run:
    return Run(models, (DATASET,), "miniature", "clean", "")


@pytest.mark.parametrize("models", [("lingshu-7b-miniature",), ("a.b-1", "a.b-2"), SIXTEEN])
def test_a_run_has_the_front_page_the_chapters_the_table_and_a_page_a_model(models):
    run = run_of(*models)
    made = {page.name: page for page in book_pages(run)}
    assert list(made) == ["index", *chapters(), "models", *(f"models/{slug}" for slug in models)]
    assert len(chapters()) >= 4
    for page in made.values():
        assert page.notebook == notebook_of(page.name)
        assert script_of(page.notebook).is_file()
        assert page.parameters | {"models": []} == run.parameters() | {"models": []}
    for slug in models:
        page = made.pop(model_page(slug))
        assert (page.notebook, page.parameters["models"], page.models) == ("model", [slug], (slug,))
    assert all(page.models == models for page in made.values())


def test_the_table_of_models_reads_every_card_and_the_papers_table():
    (page,) = [page for page in book_pages(run_of(*SIXTEEN)) if page.name == "models"]
    assert {path.name for path in page.files} >= {"lingshu-7b-miniature.yml", "table_s1.csv"}
    assert all(path.is_file() for path in page.files)


def test_a_page_of_text_has_no_notebook():
    assert notebook_of("limits") is None
    assert notebook_of("models/qwen2.5-vl-7b.x") == "model"
    assert {notebook_of(name) for name in ("index", "models", *chapters())} | {"model"} == set(notebooks())


def test_an_unknown_notebook_is_named_with_the_near_one():
    with pytest.raises(InputError, match="unknown notebook '04_feature_helth': did you mean '04_feature_health'"):
        script_of("04_feature_helth")
    with pytest.raises(InputError, match="unknown notebook"):
        script_of("../tests/small_book")


def test_the_table_of_contents_lists_every_page_once(outputs):
    run = run_of(*SIXTEEN)
    contents = yaml.safe_load(yaml.safe_dump(pages.contents(run)))
    listed = [entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    assert [part["caption"] for part in contents["parts"]] == ["Chapters", "Models", "About"]
    assert [contents["root"], *listed[: -len(contents["parts"][-1]["chapters"])]] == [p.name for p in book_pages(run)]
    assert len(set(listed)) == len(listed)


def test_sources_hold_every_page_and_a_missing_one_is_named(outputs):
    run = run_of("a.b-1", "lingshu-7b-miniature")
    for page in book_pages(run):
        artefacts.atomic_write(outputs / "chapters" / f"{page.name}.ipynb", page.name)
    sources = pages.assemble(run)
    for page in book_pages(run):
        assert (sources / f"{page.name}.ipynb").read_text() == page.name
    assert (sources / "limits.md").is_file()
    pages.assemble(run_of("a.b-1"))
    assert not (sources / "models" / "lingshu-7b-miniature.ipynb").exists()
    (outputs / "chapters" / "models" / "a.b-1.ipynb").unlink()
    with pytest.raises(InputError, match=r"models/a\.b-1\.ipynb is not there: run `make book`"):
        pages.assemble(run)


def planned(folder, run: dict, **places: str) -> dict[str, set[str]]:
    """Page -> the stamps that it waits for, from the folder of stamps on, as Snakemake plans it."""
    options = ["--configfile", str(folder / "run.yml"), "--cores", "1", "--dry-run"]
    (folder / "run.yml").write_text(yaml.safe_dump(run))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(artefacts.ROOT / "Snakefile")]
    command += ["--directory", str(folder / "outputs"), "--nolock", *options]
    environment = os.environ | {"MLPROBE_OUTPUTS": str(folder / "outputs")} | places
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^rule page:\n +input: (.*)\n +output: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    return {
        output.partition("/chapters/")[2].removesuffix(".done"): {
            name.partition("/.stamps/")[2] for name in inputs.split(", ") if "/.stamps/" in name
        }
        for inputs, output in found
    }


def test_a_chapter_waits_for_its_discussions_of_the_models_that_take_part(tmp_path):
    models = ("huatuogpt-vision-7b-miniature", "lingshu-7b-miniature", "qwen2.5-vl-7b-miniature")
    waits = planned(tmp_path, run_of(*models).parameters())
    kind = "discussions/miniature/clean"
    of_paradigms = {f"{kind}/training-paradigms/{model}" for model in models}  # none of the table's: all
    expected = {f"{kind}/frozen-vision-tower/{models[0]}", *of_paradigms}
    assert {name for name in waits["08_vision_tower"] if name.startswith("discussions/")} == expected
    others = {page for page, own in waits.items() if any(name.startswith("discussions/") for name in own)}
    assert others <= set(DISCUSSIONS)


def test_in_the_graph_a_models_page_waits_for_its_model_alone(tmp_path):
    """As Snakemake plans it, for a card of the user's whose name holds dots and dashes."""
    cards = shutil.copytree(artefacts.ROOT / "data", tmp_path / "cards")
    mine = "my_model-2.5.vl"
    shutil.copy(cards / "models" / "lingshu-7b-miniature.yml", cards / "models" / f"{mine}.yml")
    run = run_of(mine, "lingshu-7b-miniature").parameters()
    stamps = planned(tmp_path, run, MLPROBE_CARDS=str(cards))
    trained = {page for page, names in stamps.items() if any(name.startswith("baselines/") for name in names)}
    assert trained == {BASELINES}
    waits = {
        page: {name.rpartition("/")[2] for name in names if name.startswith("models/")}
        for page, names in stamps.items()
    }
    assert waits.pop(f"models/{mine}") == {mine}
    assert waits.pop("models/lingshu-7b-miniature") == {"lingshu-7b-miniature"}
    assert set(waits) == {"index", "models", *chapters()}
    assert all(models == {mine, "lingshu-7b-miniature"} for models in waits.values())
