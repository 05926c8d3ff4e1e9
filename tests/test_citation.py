"""How to cite: CITATION.cff as text and BibTeX; and the bibliography, which holds what is cited and nothing else."""

import re

import pytest
import yaml
from pybtex.database import parse_file, parse_string

from mlprobe_utils.artefacts import ROOT
from mlprobe_utils.citation import Author, Work, bibtex, citations, load_citation, plain
from mlprobe_utils.errors import InputError

ODD = Work.model_validate(
    {
        "title": "100 % of R&D_costs {in $} #1: 2^n ~ C:\\x",
        "authors": [
            {"family-names": "Żołek", "given-names": "Norbert"},
            {"family-names": "van der Berg", "given-names": "Äda"},
            {"name": "Smith & Sons and Company"},
        ],
        "year": 2020,
    }
)


def test_bibtex_of_the_paper_has_all_that_the_file_says():
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    (entry,) = parse_string(bibtex(load_citation().references[0]), "bibtex").entries.values()
    authors = [(" ".join(p.first_names), " ".join(p.last_names)) for p in entry.persons["author"]]
    assert authors == [(a["given-names"], a["family-names"]) for a in paper["authors"]]
    assert entry.fields["title"] == f"{{{paper['title']}}}"
    assert entry.fields["eprint"] == "2604.08333"
    assert entry.fields["year"] == str(paper["year"])
    assert entry.fields["url"] == paper["url"]


def test_names_and_special_characters_survive_bibtex():
    (entry,) = parse_string(bibtex(ODD), "bibtex").entries.values()
    first, second, group = entry.persons["author"]
    assert (first.first_names, first.last_names) == (["Norbert"], ["Żołek"])
    assert (second.prelast_names, second.last_names, second.first_names) == (["van", "der"], ["Berg"], ["Äda"])
    assert group.last_names == [r"{Smith \& Sons and Company}"]
    title = entry.fields["title"]
    assert r"100 \% of R\&D\_costs \{in \$\} \#1: 2\textasciicircum{}n \textasciitilde{} C:\textbackslash{}x" in title
    assert not re.search(r"(?<!\\)[&%$#_]", title)


def test_plain_text_names_everybody():
    assert plain(ODD).startswith("Norbert Żołek, Äda van der Berg and Smith & Sons and Company (2020). 100 % of R&D")
    text = plain(load_citation().references[0])
    for author in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"][0]["authors"]:
        assert f"{author['given-names']} {author['family-names']}" in text
    assert "arXiv:2604.08333" in text
    assert plain(Work(title="T", authors=[Author(name="A")])) == "A. T."


def test_the_page_holds_both_forms_of_every_work():
    page = citations()
    citation = load_citation()
    assert citation.references
    for work in (citation, *citation.references):
        assert f"```text\n{plain(work)}\n```" in page
        assert f"```bibtex\n{bibtex(work)}\n```" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [("title: T\nauthors: []", "authors"), ("authors: [{name: A}]", "title"), ("a: [", "cannot be read"), ("x", "")],
)
def test_a_mistake_is_told_with_the_file(text, said, tmp_path):
    path = tmp_path / "CITATION.cff"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"CITATION\.cff.*{said}"):
        load_citation(path)


def test_the_bibliography_holds_what_is_cited_and_nothing_else():
    texts = [path.read_text() for place in ("notebooks/*.py", "book/*.md") for path in ROOT.glob(place)]
    cited = {
        key.strip() for text in texts for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text) for key in keys.split(",")
    }
    assert cited == set(parse_file(ROOT / "book" / "references.bib").entries)
