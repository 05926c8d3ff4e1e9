"""Fixtures that several test files share: outputs, a random-weight model with its card, an image set, a book."""

import mlprobe_utils  # noqa: F401  isort: skip  (first: it makes torchvision importable beside a CPU torch)

from pathlib import Path

import pytest
import torch
from browser import CHROMIUM, NO_CHROMIUM, Tab, chromium, serve
from small_book import MODEL, SECOND, SmallBook
from tiny_parts import ARCHITECTURE, make_image_set

from mlprobe_utils import artefacts
from mlprobe_utils.cards import ModelCard, load_data_card
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.encoding import Encoder
from mlprobe_utils.loading import LoadedModel, load
from mlprobe_utils.miniatures import making

torch.set_num_threads(1)


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder of the test's own."""
    folder = tmp_path / "outputs"
    monkeypatch.setattr(artefacts, "OUTPUTS", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A saved checkpoint of Qwen2.5-VL's class: random weights, 4 vision blocks, 3 decoder layers, any image size."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        # "Benign" and "Yes" are one token each, "Malignant" is several
        patch.setattr(making, "corpus", lambda: [load_data_card("chest-xray").template, "Benign Normal"] * 9)
        model, processor = making.from_scratch(ARCHITECTURE)
    for parameter in model.parameters():  # no bias is exactly zero and no norm exactly one, as after training
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.1)
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    making.save(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_card(tiny_folder) -> ModelCard:
    return ModelCard(slug="tiny", name="tiny", source=str(tiny_folder))


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


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> SmallBook:
    """The one build that serves all tests: two models, the second trained on from the first, and one data set.

    A test may run it again, or damage what it puts back: it leaves a book that is whole and current.
    """
    small = SmallBook(tmp_path_factory.mktemp("book"), (MODEL, SECOND))
    code, small.said = small.make()
    assert code == 0, small.said
    return small


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
        return tabs[-1]

    yield open_page
    complaints = {tab.url: [*tab.foreign(), *tab.errors(), *tab.complaints] for tab in tabs}
    for tab in tabs:
        tab.close()
    assert not any(complaints.values()), complaints
