"""How to cite the project and its paper: CITATION.cff as plain text and as BibTeX."""

import re
from pathlib import Path

import yaml

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import ROOT

CITATION = ROOT / "CITATION.cff"


def citations(path: Path = CITATION) -> str:
    """The Markdown of the page: the project, then the works that it refers to, each as text and as BibTeX.

    Raises:
        InputError: the file is not YAML, or lacks a title or an author's name.
    """
    try:
        project = yaml.safe_load(path.read_text(encoding="utf-8"))
        paper, *others = project["references"]
        works = {"This project": project, "The paper": paper} | {work["title"]: work for work in others}
        return "\n".join(
            f"## {heading}\n\n```text\n{plain(work)}\n```\n\n```bibtex\n{bibtex(work)}\n```\n"
            for heading, work in works.items()
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error


def plain(work: dict) -> str:
    """A work, as the file has it, as one line of text: authors, year, title, where it appeared."""
    *others, last = (one.get("name") or f"{one['given-names']} {one['family-names']}" for one in work["authors"])
    authors = f"{', '.join(others)} and {last}" if others else last
    year = f" ({work['year']})" if "year" in work else ""
    where = ", ".join(filter(None, [work.get("journal"), _arxiv(work)]))
    return ". ".join(filter(None, [authors + year, work["title"], where, work.get("url")])) + "." * ("url" not in work)


def bibtex(work: dict) -> str:
    """A work as a BibTeX entry in UTF-8: @article with a journal, @misc without."""
    fields = {
        "title": f"{{{_escaped(work['title'])}}}",  # in braces twice: its capitals are meant
        "author": " and ".join(map(_author, work["authors"])),
        "journal": _escaped(work.get("journal", "")),
        "year": work.get("year"),
        "eprint": _arxiv(work).removeprefix("arXiv:"),
        "archiveprefix": _arxiv(work) and "arXiv",
        "url": work.get("url"),
    }
    first_word = work["authors"][0].get("family-names", work["title"]).split()[0]
    key = "-".join([re.sub(r"[^a-z0-9]", "", first_word.casefold()), *([str(work["year"])] if "year" in work else [])])
    lines = "".join(f"  {name:<13} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{'article' if 'journal' in work else 'misc'}{{{key},\n{lines}}}"


def _author(author: dict) -> str:
    """A group's name is kept whole by braces; a person's family name, which may be several words, comes first."""
    if "name" in author:
        return f"{{{_escaped(author['name'])}}}"
    return _escaped(f"{author['family-names']}, {author['given-names']}")


def _arxiv(work: dict) -> str:
    return next((one["value"] for one in work.get("identifiers", []) if one["value"].startswith("arXiv:")), "")


def _escaped(text: str) -> str:
    """`text` with those characters escaped that LaTeX would take for commands."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text)
