"""Chapters in an open kernel, as people work in them: cells run again, changed parameters, edited cards."""

import html
import json
import re
import shutil

import pytest
from notebook_cells import code_cells, names_of
from small_book import DATASET, MODEL, SECOND

from mlprobe_utils.book.book_pages import NOTEBOOKS, notebooks
from mlprobe_utils.book.run_chapter import running_kernel

DISCUSSED = (
    "claims",
    "10_vision_tower",
    "11_comprehension_utilization",
)  # in the first model; faults are planted in the second


class Reader:
    """Runs cells in one kernel, one after the other, and keeps what they show."""

    def __init__(self, kernel, cards):
        self.cards = cards  # the folder, to edit
        self.client = kernel.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready()

    def run(self, source: str) -> str:
        """What a cell shows, as HTML. Raises AssertionError with the cell and its error, where there is one."""
        shown = []
        reply = self.client.execute_interactive(source, output_hook=shown.append, timeout=600)["content"]
        assert reply["status"] == "ok", f"{source}\n{reply['ename']}: {reply['evalue']}"
        return "".join(message["content"].get("data", {}).get("text/html", "") for message in shown)

    def run_all(self, name: str, times: int = 1, **parameters) -> str:
        """What a notebook shows whose parameters were edited; `times`: how often in a row each cell is run."""
        cells = code_cells(name)
        for parameter, value in parameters.items():
            cells[0].source = re.sub(rf"^({parameter}: \S+ = ).*$", rf"\1{value!r}", cells[0].source, flags=re.M)
        return "".join([self.run(cell.source) for cell in cells for _ in range(times)])


@pytest.fixture(scope="module")
def reader(book, tmp_path_factory):
    """In one kernel for all chapters; its start-up file has variables of all names that chapters make."""
    place = tmp_path_factory.mktemp("reader")
    cells = [cell for name in notebooks() for cell in code_cells(name)]
    names = {"display", "show", "start"}.union(*(names_of(cell.source)[0] for cell in cells))
    start_up = place / "profile_default" / "startup" / "own.py"
    start_up.parent.mkdir(parents=True)
    start_up.write_text("".join(f"{name} = 'of my own'\n" for name in sorted(names)))
    cards = shutil.copytree(book.cards, place / "cards")
    places = {name: value for name, value in book.environment.items() if name.startswith("MLPROBE")}
    places |= {"MLPROBE_CARDS": str(cards), "IPYTHONDIR": str(place), "MLPROBE_PREPARED": ""}
    with running_kernel(NOTEBOOKS, **places) as kernel:
        yield Reader(kernel, cards)


@pytest.mark.parametrize("name", notebooks())
def test_every_cell_can_be_run_again_and_with_another_parameter(name, reader, book):
    """In the second pass each cell twice in a row. Everything is current: nothing is made."""
    made = {path: path.stat().st_mtime_ns for path in book.outputs.rglob("made_from.json")}
    given = {"datasets": [DATASET], "models": [MODEL] if name == "model" else [MODEL, SECOND]}
    reader.run_all(name, **given)
    has_metric = "metric: str" in code_cells(name)[0].source
    changed = {"metric": "auc"} if has_metric else {"models": [MODEL if name in DISCUSSED else SECOND]}
    shown = reader.run_all(name, times=2, **given | changed)
    (value,) = changed.values()
    assert shown.count(f"<td>{html.escape(json.dumps(value), quote=False)}</td>") == 2  # the opening, twice
    assert {path: path.stat().st_mtime_ns for path in book.outputs.rglob("made_from.json")} == made


def test_an_edited_card_counts_while_the_kernel_is_open(reader):
    given = {"models": [MODEL], "datasets": [DATASET]}
    assert "edited" not in reader.run_all("model", **given)
    for name, field in ((f"models/{MODEL}", "name"), (f"datasets/{DATASET}", "name"), ("protocols/miniature", "title")):
        card = reader.cards / f"{name}.yml"
        edited = f"{field}: edited {name.partition('/')[0]}"
        card.write_text(re.sub(rf"^{field}: .*$", edited, card.read_text(), flags=re.M))
    shown = reader.run_all("model", **given)
    assert "The images of edited datasets are synthetic" in shown
    assert "<figcaption>Pipeline and probe points of edited models" in shown
    assert "Protocol: edited protocols." in shown
