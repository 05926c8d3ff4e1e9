"""The book's Sphinx extension: on a small book with the real configuration, and function by function."""

import base64
import json
import re
import shutil
import zlib
from html import unescape
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlprobe_utils.book import make_book
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.plots.explorer import explorer
from mlprobe_utils.plots.figures import download, in_explorer

CHAPTER = r"""# A chapter

## A section

The {term}`probe` of {term}`images <image token>` at $x_1$, by {eq}`law`.

$$\frac{a}{\text{end}}$$ (law)

| a | b |
|---|---|
| 1 | 2 |
"""
TEXT = (  # as notebooks have it
    "a [probe](../book/glossary.md#probe), [Zhu et al. (2026)](../book/bibliography.md#zhu-2026), "
    "([Zhu et al., 2026](../book/bibliography.md#zhu-2026)), "
    "[a page](01_datasets.ipynb#a-section), [limits](../book/limits.md)"
)
TABLE = pd.DataFrame({"a, b": ["1 %", 'é "&"', None], "c": [0.5, -1, 2]})
PAYLOAD = [{"stage": "finetuned", "texts": ["'\"</script>"]}]
TEXTS = ["glossary", "rerun", "reference", "limits", "cite", "bibliography"]


class Book:
    """The pages of text as they are, around one chapter, others that they link to, and the page of a model."""

    def __init__(self, place):
        self.sources, self.html = place / "sources", place / "html"
        shutil.copytree(ROOT / "book", self.sources, ignore=shutil.ignore_patterns("_build", "index.*", "__pycache__"))
        linked = {
            name for text in TEXTS for name in re.findall(r"\]\((\d\d_\w+|explore)", self.source(text).read_text())
        }
        for name in linked | {"01_datasets"}:
            self.source(name).write_text(CHAPTER if name == "01_datasets" else "# Another chapter\n")
        configuration = self.sources / "_config.yml"
        offered = re.sub(r"# (?=repository_|path_to_|launch_|  )", "", configuration.read_text())  # as it says itself
        configuration.write_text(offered.replace("<owner>/<repository>", "a/b"))
        kernel = {"name": "python3", "display_name": "Python 3"}
        said = [new_output("display_data", {"text/markdown": f"Said {number}: {TEXT}"}) for number in (1, 2)]
        cells = [new_markdown_cell("# A model"), new_markdown_cell(f"Written: {TEXT}")]
        table = new_output("display_data", {"text/html": download(TABLE, "Rows, all")})
        view = (
            explorer({"m+f/d": PAYLOAD}, {"m+f": "M"}, {"d": "D"}).data + f'<a href="{in_explorer(model="m+f")}">M</a>'
        )
        shown = new_output("display_data", {"text/html": view})
        cells += [new_code_cell("1", outputs=[said[0], table, table, shown])]
        cells += [new_code_cell("2", outputs=said[1:], metadata={"tags": ["answer"]})]
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
        (self.sources / "models").mkdir()
        nbformat.write(notebook, self.sources / "models" / "tiny.ipynb")
        files = [{"file": name} for name in [*sorted(linked - {"01_datasets"}), "models/tiny", *TEXTS]]
        contents = {"format": "jb-book", "root": "01_datasets", "chapters": files}
        (self.sources / "_toc.yml").write_text(yaml.safe_dump(contents, sort_keys=False))

    def source(self, name: str) -> Path:
        return self.sources / f"{name}.md"

    def built(self, name: str) -> str:
        return (self.html / f"{name}.html").read_text()


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    place = tmp_path_factory.mktemp("extension")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_book.artefacts, "OUTPUTS", place / "outputs")
        patch.setattr(make_book, "HTML", place / "html")
        make_book.build((small := Book(place)).sources)
        yield small


def test_formulas_are_mathml_equations_keep_their_numbers_and_a_term_tells_its_definition(book):
    page = book.built("01_datasets")
    assert re.findall(r'<math [^>]*display="(\w+)"', page) == ["inline", "block"]
    (anchor,) = re.findall(r'<div class="math" id="([^"]+)" tabindex="0">', page)
    assert re.search(rf'href="#{anchor}">\(1\)</a>', page)
    assert '<span class="eqno">(1)' in page
    found = dict(re.findall(r'<a class="reference internal told" href="([^"]+)" data-told="([^"]+)">', page))
    assert found.keys() == {"glossary.html#term-Probe", "glossary.html#term-Image-token"}
    glossary = book.built("glossary")
    for link, told in found.items():
        anchor = link.split("#")[1]
        definition = glossary.split(f'id="{anchor}"')[1].split("<dd>")[1].split("</dd>")[0]
        assert unescape(told) == " ".join(unescape(re.sub("<[^>]+>", "", definition)).split())


def test_a_notebooks_links_are_the_books_and_its_answer_stands_below_its_title(book):
    page = book.built("models/tiny").split("<article")[1].split("</article>")[0]
    assert [*re.findall(r"Written|Said \d", page)] == ["Said 2", "Written", "Said 1"]
    assert page.count('href="../glossary.html#term-Probe" data-told=') == 3
    assert page.count('href="../01_datasets.html#a-section"') == page.count('href="../limits.html"') == 3
    text = unescape(re.sub("<[^>]+>", "", page))
    assert text.count("Zhu et al. [2026]") == text.count("(Zhu et al., 2026)") == 3
    assert (book.html / "_sources/models/tiny.ipynb").read_text().count("../book/glossary.md#probe") == 3


def test_a_page_is_described_by_its_title_and_first_paragraph(book):
    head = book.built("01_datasets").split("</head>")[0]
    assert '<meta name="description" content="The probe of images at x_1, by' in head
    assert re.search('<meta property="og:title" content="(?:1. )?A chapter">', head)


def test_a_chapter_offers_its_files_and_they_are_there(book):
    """And services that the configuration names open its notebook: on the page of a model, that of the template."""
    links = re.findall(r'<a href="(_sources/[^"]+)"', book.built("01_datasets"))
    assert links == ["_sources/01_datasets.md", "_sources/01_datasets.py"]  # a notebook, where the page comes from one
    assert (book.html / links[1]).read_bytes() == (ROOT / "notebooks" / "01_datasets.py").read_bytes()
    assert (book.html / links[0]).read_text() == CHAPTER
    page = unescape(book.built("models/tiny"))
    file = "lab/tree/notebooks/model.ipynb"
    for address in (
        f"https://mybinder.org/v2/gh/a/b/main?urlpath={file}",
        "https://colab.research.google.com/github/a/b/blob/main/notebooks/model.ipynb",
        f"https://hub.example.edu/hub/user-redirect/git-pull?repo=https%3A//github.com/a/b&urlpath="
        f"{file.replace('notebooks', 'b/notebooks')}&branch=main",
    ):
        assert f'href="{address}"' in page
    assert re.findall(r'href="(../_sources/[^"]+)"', page) == ["../_sources/models/tiny.ipynb", "../_sources/model.py"]
    assert not re.search(r"mybinder|_sources/[^\"]+\.py", book.built("limits"))


def test_a_table_inside_a_notebook_is_a_file_beside_the_page(book):
    links = re.findall(r'<a download="rows-all.csv" href="(.*?)"', book.built("models/tiny"))
    assert len(set(links)) == 2
    for link in links:
        pd.testing.assert_frame_equal(pd.read_csv(book.html / "models" / link), TABLE)
    assert "data:text/csv" not in book.built("models/tiny")


def test_the_data_of_an_explorer_is_a_script_beside_the_page_and_links_lead_to_it(book):
    page = book.built("models/tiny")
    (folder,) = re.findall(r'<div class="explorer" data-folder="(.*?)"', page)
    script = (book.html / "models" / folder / "m+f--d.js").read_text()
    name, packed = re.fullmatch(r"\(window\.explorerData \|\|= \{\}\)\[(.*)\] = '(.*)';", script).groups()
    assert json.loads(name) == "m+f/d"
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == PAYLOAD
    assert "explorer-data" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert '<a href="../explore.html#model=m%2Bf">' in page


def test_a_changed_definition_reaches_pages_that_did_not_change_and_a_page_that_is_no_more_goes(book):
    glossary = book.source("glossary")
    glossary.write_text(glossary.read_text().replace("Which images train", "Which new & old images train"))
    (book.sources / "models/tiny.ipynb").unlink()
    contents = book.sources / "_toc.yml"
    contents.write_text(contents.read_text().replace("- file: models/tiny\n", ""))
    make_book.build(book.sources)
    assert not (book.html / "models/tiny.html").exists()
    assert 'data-told="Which new &amp; old images train' in book.built("cite")  # the root is always written anew


def test_a_formula_that_cannot_be_converted_fails_the_book(book):
    page = book.source("limits")
    before = page.read_text()
    page.write_text(f"{before}\n$\\nosuchcommand{{x}}$\n\n$\\left( x$\n")
    with pytest.raises(InputError, match=r"limits\.md:\d+: WARNING: .*unknown command .nosuchcommand") as failed:
        make_book.build(book.sources)
    assert str(failed.value).count("the formula") == 2
    page.write_text(before)
