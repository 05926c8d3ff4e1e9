"""How to cite the project and its paper: CITATION.cff as plain text and as BibTeX."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import ROOT, relative

CITATION = ROOT / "CITATION.cff"
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}  # what LaTeX would take for a command


class _Part(BaseModel):
    """A block of the file; of what the format allows only what a citation needs is read."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))


class Author(_Part):
    """A person (family and given names), or a group (name)."""

    name: str | None = None
    family_names: str | None = None
    given_names: str | None = None

    @property
    def plain(self) -> str:
        return self.name or " ".join(filter(None, (self.given_names, self.family_names)))

    @property
    def bibtex(self) -> str:
        """A group's name is kept whole by braces; a person's family name comes first, be it several words."""
        if self.name:
            return f"{{{_escaped(self.name)}}}"
        return ", ".join(_escaped(part) for part in (self.family_names, self.given_names) if part)


class Identifier(_Part):
    type: str
    value: str


class Work(_Part):
    """The project itself, or one of the works that it refers to."""

    title: str
    authors: list[Author] = Field(min_length=1)
    year: int | None = None
    journal: str | None = None
    identifiers: list[Identifier] = []
    url: str | None = None

    @property
    def arxiv(self) -> str | None:
        numbers = (i.value.removeprefix("arXiv:") for i in self.identifiers if i.value.startswith("arXiv:"))
        return next(numbers, None)


class Citation(Work):
    """CITATION.cff."""

    references: list[Work] = []


def load_citation(path: Path = CITATION) -> Citation:
    """What the file says. Raises InputError, which names the file and the field, if it is not valid."""
    try:
        return Citation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{relative(path)} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise InputError(f"{relative(path)}: {problems}") from error


def plain(work: Work) -> str:
    """A work as one line of text: authors, year, title, where it appeared.

    >>> plain(Work(title="On dogs", authors=[Author(name="A club")], year=1990))
    'A club (1990). On dogs.'
    """
    *others, last = (author.plain for author in work.authors)
    authors = f"{', '.join(others)} and {last}" if others else last
    year = f" ({work.year})" if work.year else ""
    places = [work.journal, f"arXiv:{work.arxiv}" if work.arxiv else None]
    where = ", ".join(filter(None, places))
    sentences = [f"{authors}{year}", work.title, where, work.url]
    return ". ".join(filter(None, sentences)) + ("" if work.url else ".")


def bibtex(work: Work) -> str:
    """A work as a BibTeX entry that LaTeX reads as it is (in UTF-8): @article with a journal, @misc without."""
    fields = {
        "title": f"{{{_escaped(work.title)}}}",  # its capitals are meant
        "author": " and ".join(author.bibtex for author in work.authors),
        "journal": work.journal and _escaped(work.journal),
        "year": work.year,
        "eprint": work.arxiv,
        "archiveprefix": work.arxiv and "arXiv",
        "url": work.url,
    }
    lines = "".join(f"  {name:<13} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{'article' if work.journal else 'misc'}{{{_key(work)},\n{lines}}}"


def citations() -> str:
    """The Markdown of the page: the project, then the works that it refers to, each in both forms."""
    citation = load_citation()
    sections = {"This project": citation} | {
        "The paper" if n == 0 else work.title: work for n, work in enumerate(citation.references)
    }
    return "\n".join(
        f"## {heading}\n\n```text\n{plain(work)}\n```\n\n```bibtex\n{bibtex(work)}\n```\n"
        for heading, work in sections.items()
    )


def _key(work: Work) -> str:
    first = work.authors[0]
    words = (first.family_names or work.title).casefold()
    word = "".join(c for c in words.split()[0] if c.isascii() and c.isalnum())
    return f"{word}-{work.year}" if work.year else word


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
