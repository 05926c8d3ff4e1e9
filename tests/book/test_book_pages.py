"""The pages of a book: which there are for one model, two, or sixteen, what makes each, and what each waits for."""

import re
import shutil
import subprocess
import sys

import pytest

from mlprobe_utils.book import make_book
from mlprobe_utils.book.book_pages import book_pages, chapters, notebook_of, script_of
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline import artefacts, cards
from mlprobe_utils.pipeline.configuration import Run

SIXTEEN = tuple(f"vendor_{n}-model2.5-vl-{n}b" for n in range(16))


def run_of(*models: str) -> Run:
    return Run(models, ("busi-phantom",), "miniature", "clean", "")


def test_a_run_has_the_front_page_the_chapters_the_table_and_a_page_a_model_each_once_in_the_table_of_contents():
    run = run_of(*SIXTEEN)
    made, contents = {page.name: page for page in book_pages(run)}, make_book.contents(run)
    assert list(made) == ["index", "claims", *chapters(), "models", *(f"models/{slug}" for slug in SIXTEEN), "explore"]
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    listed = [one["file"] for entry in entries for one in (entry, *entry.get("sections", ()))]
    listed.insert(0, contents["root"])
    assert [part["caption"] for part in contents["parts"]] == ["Chapters", "Models", "About"]
    assert listed == [*made, *make_book.ABOUT]
    for page in made.values():
        assert page.notebook == notebook_of(page.name)
        assert script_of(page.notebook).is_file()
        assert page.parameters | {"models": []} == run.parameters() | {"models": []}
    of_models = {slug: made.pop(f"models/{slug}") for slug in SIXTEEN}
    assert all((page.notebook, page.parameters["models"]) == ("model", [slug]) for slug, page in of_models.items())
    assert all(page.parameters["models"] == [*SIXTEEN] for page in made.values())
    assert {path.name for path in made["models"].files} >= {"lingshu-7b-miniature.yml", "table_s1.csv"}
    assert {path.name for path in made["claims"].files} >= {"claims.csv", "resnet.yml", "interventions.yml"}
    assert notebook_of("limits") is None
    with pytest.raises(InputError, match="unknown notebook '04_feature_helth': did you mean '05_feature_health'"):
        script_of("04_feature_helth")


def test_sources_hold_every_page_and_a_missing_one_is_named(outputs):
    run = run_of("a.b-1", "lingshu-7b-miniature")
    for page in book_pages(run):
        atomic_write(outputs / "chapters" / f"{page.name}.ipynb", page.name)
    sources = make_book.assemble(run)
    assert all((sources / f"{page.name}.ipynb").read_text() == page.name for page in book_pages(run))
    assert (sources / "limits.md").is_file()
    make_book.assemble(run_of("a.b-1"))
    assert not (sources / "models" / "lingshu-7b-miniature.ipynb").exists()
    (outputs / "chapters" / "models" / "a.b-1.ipynb").unlink()
    with pytest.raises(InputError, match=r"models/a\.b-1\.ipynb does not exist: run `make book`"):
        make_book.assemble(run)


def test_in_the_graph_the_pages_wait_for_what_they_show(tmp_path, outputs, monkeypatch):
    """For a card of the user's whose name holds dots and dashes; Snakemake plans what has no stamp."""
    cards_folder = shutil.copytree(artefacts.ROOT / "data", tmp_path / "cards")
    monkeypatch.setattr(cards, "CARDS", cards_folder)
    both = ["my_model-2.5.vl", "medgemma-4b-miniature"]
    shutil.copy(cards_folder / "models" / f"{both[1]}.yml", cards_folder / "models" / f"{both[0]}.yml")
    jobs = {(job.kind, job.name): job for job in make_book.graph(run_of(*both))}
    waits = {key: {(other.kind, other.name) for other in job.after} for key, job in jobs.items()}
    assert waits["pages", "all"] == {("baselines", "all"), *waits} - {("pages", "all")}
    for slug in both:
        assert waits["model", slug] == {("manifest", "all"), ("miniatures", "gemma-3-4b-miniature")}
    todo = [job for job in jobs.values() if job.kind in ("model", "pages")]
    stamps = make_book.write_graph(run_of(*both), list(jobs.values()), todo)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(artefacts.ROOT / "Snakefile"), "--dry-run"]
    command += ["--configfile", str(outputs / make_book.GRAPH), "--directory", str(outputs), "--cores", "1", "--nolock"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    planned = re.findall(r"^ +output: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert set(planned) == {str(stamps[job]) for job in todo}
