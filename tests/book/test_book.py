"""The whole house: two models on one phantom, through papermill to HTML; and what becomes of a run that is stopped."""

import html
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import nbformat
import pandas as pd
import pytest
from browser import pages
from safetensors.numpy import load_file
from small_book import DATASET, MODEL, ROOT, SECOND, SmallBook

from mlprobe_utils.book.book_pages import chapters, model_page, notebook_of
from mlprobe_utils.book.make_book import ABOUT
from mlprobe_utils.pipeline.cards import load_data_card, load_model_card
from mlprobe_utils.pipeline.stages import PLANTED, STEPS
from mlprobe_utils.pipeline.variants import discussions
from mlprobe_utils.synthetic.phantoms.making import Recipe, write

EXECUTED = ["index", *chapters(), "models", model_page(MODEL), model_page(SECOND)]
PAGES = [*EXECUTED, *ABOUT]


@pytest.fixture(scope="module")
def book(first_book) -> SmallBook:
    """The one that may be run again, or damaged by a test that puts back what it damaged."""
    return first_book


def test_every_step_is_told_and_counted_down(book):
    lines = [line for line in book.said.splitlines() if "left]" in line]
    assert re.search("pages.* 0 left|0 left.* pages", lines[-1])
    assert "where the time went" in book.said
    steps = [(model, DATASET, step) for model, step in itertools.product(book.models, STEPS)]
    steps += [(MODEL, f" {card.slug} ") for card in discussions()] + [(SECOND, f" {PLANTED} ")]
    assert [step for step in steps if not any(all(word in line for word in step) for line in lines)] == []
    (first,) = [line for line in book.said.splitlines() if re.match(r"\d+ steps", line)]
    assert int(first.split()[0]) == len(lines)  # no step more or less than was said at the start


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_quiet_its_numbers_are_glued_and_it_says_what_is_real_and_what_it_was_run_with(book, page):
    text = (book.html / f"{page}.html").read_text()
    for noise in ("Traceback", "Warning", "it/s]", "glue:", "np.float64", "injected"):
        assert noise not in text, noise
    ours = re.sub(r"<table.*?</table>|<figure.*?</figure>", "", text, flags=re.DOTALL)
    assert "�" not in ours  # a model's answer may hold it
    if page in ABOUT:
        return
    assert "synthetic phantoms" in text
    assert "their results say nothing about the originals" in text
    (box,) = re.findall(r'<details class="parameters">(.*?)</details>', text, re.DOTALL)
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", box, re.DOTALL)]
    shown = {row[0]: [html.unescape(cell) for cell in row[1:]] for row in rows if row}
    of_page = [model for model in book.models if page == model_page(model)]
    assert json.loads(shown["models"][0]) == (of_page or list(book.models))
    assert json.loads(shown["datasets"][0]) == [DATASET]
    assert all(meaning for _, meaning in shown.values())
    cells = nbformat.read(book.outputs / "chapters" / f"{page}.ipynb", as_version=4).cells
    assert not [o for cell in cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    if page in chapters():  # opens and closes as promised
        parts = ("Question.", "Prerequisites:", "Time:", "Provenance of this page")
        assert [part for part in parts if part not in text] == []
        (takeaways,) = re.findall(r'<section id="takeaways">.*?</section>', text, re.DOTALL)
        _, *items = takeaways.split("<li>")
        assert len(items) >= 2
        assert all('href="#' in item for item in items)


def test_no_link_inside_the_book_is_dead(book):
    """To a file of the book, and to an id that stands there; one to the explorer, to the data of a model."""
    folder = book.html.resolve()
    texts = {folder / f"{page}.html": (folder / f"{page}.html").read_text() for page in pages(folder)}
    ids = {path: {*re.findall(r'\s(?:id|name)="([^"]+)"', text)} for path, text in texts.items()}
    found = {(path, link) for path, text in texts.items() for link in re.findall(r'\s(?:href|src)="([^"]+)"', text)}
    split = [(path, urlsplit(html.unescape(link))) for path, link in found]
    inside = [(path, link) for path, link in split if not (link.scheme or link.netloc)]
    assert len(inside) > 100
    for path, link in inside:
        there = (path.parent / unquote(link.path)).resolve() if link.path else path
        assert there.is_file() and there.is_relative_to(folder), (path, link)  # noqa: PT018
        if state := dict(parse_qsl(link.fragment)):
            shown = f"_files/explore/{state['model']}--{state['dataset']}.js"
            assert there == folder / "explore.html" and (folder / shown).is_file(), (path, link)  # noqa: PT018
            continue
        assert not link.fragment or there not in ids or unquote(link.fragment) in ids[there], (path, link)


def test_the_page_of_a_model_carries_its_name_and_is_linked_both_ways(book):
    table = (book.html / "models.html").read_text()
    sidebar = re.search(r'<nav class="bd-links.*?</nav>', table, re.DOTALL)[0]
    for model in book.models:
        name = load_model_card(model).name
        page = (book.html / f"{model_page(model)}.html").read_text()
        assert re.search(r"<title>(.*?) &", page)[1] == name
        assert re.search(r"<h1>(?:<span[^>]*>)?([^<]+)", page)[1] == name
        assert 'href="../models.html"' in page
        assert f'<a href="{model_page(model)}.html">{name}</a>' in table
        assert name in re.sub("<[^>]+>", "", sidebar)
        weights = load_file(book.outputs / "miniatures" / model / "model.safetensors")
        assert f"{sum(w.size for w in weights.values()) / 1e6:.2f}M" in table
        assert all(point in page for point in book.tables(model)["features-pretrained/points.parquet"]["path"])


def test_the_numbers_on_the_page_are_those_of_the_rows(book):
    """The prose of chapter 2 quotes the accuracy that the rows give when it is computed here once more."""
    tables = [table for model in book.models for table in book.tables(model).items()]
    rows = pd.concat(table for name, table in tables if name.startswith("predictions-finetuned"))
    tested = rows[rows["split"] == "test"]
    accuracy = 100 * (tested["parsed"] == tested["label"]).groupby([tested["model"], tested["run"]]).mean().mean()
    page = (book.html / "02_fine_tuning.html").read_text()
    assert re.search(rf"from [\d.]+ to {accuracy:.1f}\s%", page)


def test_nothing_runs_again_when_nothing_changed(book):
    before = {path: path.stat().st_mtime_ns for path in book.outputs.rglob("*.parquet")}
    code, said = book.make()
    assert code == 0
    assert "left]" not in said
    assert {path: path.stat().st_mtime_ns for path in book.outputs.rglob("*.parquet")} == before


@pytest.mark.nightly
def test_a_cut_image_is_named_nothing_is_lost_and_the_next_run_goes_on(tmp_path):
    """Phantoms that lie where the release lies."""
    card = load_data_card(DATASET)
    counts = {part: {"COVID": 40, "NonCOVID": 40} for part in card.release_counts}
    card = card.model_copy(update={"release_counts": counts})
    write(card, Recipe(seed=0, side=64, difficulty=0.25), release := tmp_path / "data" / "COVID-CT")
    book = SmallBook(tmp_path / "book", dataset="covid19-ct", data=release.parent)
    code, said = book.make()
    assert code == 0, said
    page = (book.html / "03_probing.html").read_bytes()
    image = next((release / "Images-processed" / "CT_COVID").glob("*.png"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    code, said = book.make()
    image.write_bytes(whole)
    assert (code, said.count("error:"), said.count("Traceback")) == (2, 1, 0)
    assert re.search(rf"{re.escape(image.name)}.* download it again", said)
    assert (book.html / "03_probing.html").read_bytes() == page
    code, said = book.make()
    assert code == 0, said
    assert "made as a miniature" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["03_probing", model_page(MODEL)])
def test_the_command_on_a_page_makes_that_page_again(name, book):
    """Copied from the page, given to a shell in the project's root: the same outputs but for the provenance itself."""
    before = outputs_of(book.outputs / "chapters" / f"{name}.ipynb")
    text = (book.html / f"{name}.html").read_text()
    (command,) = re.findall(r'<details class="provenance">.*?<pre><code>(.*?)</code></pre>', text, re.DOTALL)
    again = ROOT / f"{notebook_of(name)}.ipynb"
    assert not again.exists(), f"{again.name} in the project's root would be overwritten: move it"
    python = Path(sys.executable).parent  # an environment that lies outside of the project is called by name
    environment = book.environment | {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    try:
        subprocess.run(["bash", "-c", html.unescape(command)], cwd=ROOT, env=environment, check=True)
        after = outputs_of(again)
    finally:
        again.unlink(missing_ok=True)
    assert "provenance" in before.pop()
    assert "provenance" in after.pop()
    assert after == before


def outputs_of(path) -> list[str]:
    """What each code cell of an executed notebook gave, in order."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.outputs]
    return [json.dumps([{k: v for k, v in o.items() if k != "execution_count"} for o in c.outputs]) for c in cells]
