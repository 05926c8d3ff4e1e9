"""No dead link inside the book: every link between its files leads to a file, and to an id that stands there."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from browser import pages


@dataclass
class Document(HTMLParser):
    """The ids of an HTML file, and what it leads to or loads."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    def __post_init__(self):
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] for name in ("href", "src", "action", "poster") if given.get(name)}


def dead_links(folder: Path) -> list[str]:
    """Links inside a folder's pages that lead nowhere; those that leave it are not followed."""
    documents = {page: Document((folder / f"{page}.html").read_text()) for page in pages(folder)}
    dead = []
    for page, document in documents.items():
        for link in document.links:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                continue
            path = (folder / f"{page}.html").parent / unquote(there.path) if there.path else folder / f"{page}.html"
            path = path.resolve()
            if not path.is_file() or not path.is_relative_to(folder.resolve()):
                dead.append(f"{page}: {link}: no such file")
            elif there.fragment and path.suffix == ".html":
                target = documents[str(path.relative_to(folder.resolve()).with_suffix(""))]
                if unquote(there.fragment) not in target.ids:
                    dead.append(f"{page}: {link}: no such place")
    return sorted(dead)


def test_no_link_inside_the_book_is_dead(book):
    documents = [Document((book.html / f"{page}.html").read_text()) for page in pages(book.html)]
    assert sum(len(document.links) for document in documents) > 100
    assert dead_links(book.html) == []


def test_a_dead_link_is_named(tmp_path):
    (tmp_path / "outside.html").write_text("")
    folder = tmp_path / "book"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "other.html").write_text('<h2 id="über-uns"></h2><a href="../index.html?q=1#top">back</a>')
    good = '<b id="top"></b><a href="#top">t</a><a href="sub/other.html#%C3%BCber-uns">o</a><a href="https://a.org/b">w</a>'
    (folder / "index.html").write_text(good)
    assert dead_links(folder) == []
    dead = {"#nowhere": "place", "../outside.html": "file", "away.html": "file", "sub": "file"}
    dead["sub/other.html#nowhere"] = "place"
    (folder / "index.html").write_text(good + "".join(f'<a href="{link}">dead</a>' for link in dead))
    assert dead_links(folder) == sorted(f"index: {link}: no such {what}" for link, what in dead.items())
