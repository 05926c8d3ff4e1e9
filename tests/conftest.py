"""Fixtures that several test files share: outputs, a random-weight model with its card, an image set, a book."""

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pytest
import torch
from browser import CHROMIUM, NO_CHROMIUM, Tab, chromium, serve
from filelock import FileLock
from hypothesis import settings
from small_book import MODEL, SECOND, SmallBook
from tiny_parts import make_image_set, make_tiny
from transformers import BatchFeature

from mlprobe_utils import __main__ as command_line
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel, load
from mlprobe_utils.pipeline import artefacts, cards

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # no test fails for the time it takes
settings.load_profile("untimed")
OF_THE_BOOK = {"first_book", "book", "site", "visit"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """What reads the built book is slow. The file that builds it goes first, with the longest, those that only read it
    last: a process need not wait for it."""
    reading = [item for item in items if OF_THE_BOOK & {*getattr(item, "fixturenames", ())}]
    for item in reading:
        item.add_marker(pytest.mark.slow) if not item.get_closest_marker("nightly") else None
    slow = {item.path for item in reading}
    items.sort(key=lambda item: (item.path.stem not in ("test_book", "test_faults")) * (1 + (item.path in slow)))


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder of the test's own."""
    folder = tmp_path / "outputs"
    monkeypatch.setattr(artefacts, "OUTPUTS", folder)
    return folder


@pytest.fixture
def own_cards(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the cards that a test may change, in place of them."""
    folder = shutil.copytree(artefacts.ROOT / "data", tmp_path / "cards", ignore=shutil.ignore_patterns("raw"))
    monkeypatch.setattr(cards, "CARDS", folder)
    cards.load_card.cache_clear()
    yield folder
    cards.load_card.cache_clear()


@pytest.fixture
def error_of(capsys) -> Callable[..., str]:
    """Runs a command that has to end with exit code 2 and one line; returns what it says."""

    def run(*command) -> str:
        with pytest.raises(SystemExit, match=r"^2$"):
            command_line.main([*map(str, command)])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture(scope="session")
def family(request) -> str:
    """The family of the tiny model: Qwen2.5-VL, unless a test is marked `each_family`."""
    return getattr(request, "param", "qwen2_5_vl")


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> Callable[[str], Path]:
    """A saved checkpoint of a family's class with random weights."""
    return functools.cache(lambda family: make_tiny(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="session")
def tiny_folder(tiny_folders, family) -> Path:
    return tiny_folders(family)


@pytest.fixture
def copied(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def tiny_card(tiny_folder) -> cards.ModelCard:
    return cards.ModelCard(slug="tiny", name="tiny", source=str(tiny_folder))


@pytest.fixture
def tiny(tiny_card) -> LoadedModel:
    """The tiny model, freshly loaded: a test may change it."""
    return load(tiny_card)


@pytest.fixture(scope="session")
def image_set(tmp_path_factory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"))


@pytest.fixture
def encoder(tiny, image_set) -> Encoder:
    return Encoder(tiny.processor, image_set.card.template)


@pytest.fixture
def images(image_set) -> list[np.ndarray]:
    """Of four sizes, see tiny_parts."""
    return [image_set.pixels(i) for i in range(4)]


@pytest.fixture
def inputs(encoder, images) -> BatchFeature:
    """The question about each of them, padded."""
    return encoder.questions(images)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Path:
    """A folder that all processes of a test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def first_book(shared) -> SmallBook:
    """The one build that serves all processes: two models, the second trained on from the first, and one data set.

    For the tests of one file, which run it again and damage what they put back; beside it lies a copy for all others.
    """
    place, log = shared / "first_book", shared / "first_book.txt"
    with FileLock(shared / "first_book.lock"):
        if not log.exists():
            code, words = SmallBook(place, (MODEL, SECOND)).make()
            shutil.copytree(place, shared / "book", symlinks=True)
            log.write_text(f"{code}\n{words}")
    code, _, words = log.read_text().partition("\n")
    assert code == "0", words
    return SmallBook(place, (MODEL, SECOND), said=words)


@pytest.fixture(scope="session")
def book(first_book, shared) -> SmallBook:
    """A book to read, which no test changes."""
    return replace(first_book, place=shared / "book")


@pytest.fixture(scope="session")
def site(book):
    """The address of the built book."""
    with serve(book.html) as address:
        yield address


@pytest.fixture(scope="module")  # no longer: while it is open, no other test can start an event loop
def browser():
    if not CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    with chromium() as window:
        yield window


@pytest.fixture
def visit(site, browser):
    """Opens pages of the book by their names; nothing that a test does there may fail unseen or leave this host."""
    tabs: list[Tab] = []

    def open_page(page: str, **settings) -> Tab:
        tabs.append(Tab(browser, f"{site}/{page}.html", **settings))
        return tabs[-1].wait()

    yield open_page
    complaints = {tab.url: [*tab.foreign(), *tab.errors(), *tab.complaints] for tab in tabs}
    for tab in tabs:
        tab.close()
    assert not any(complaints.values()), complaints
