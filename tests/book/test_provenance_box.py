"""The box at the end of a page: names all that the page depends on, and holds a command that makes the page again."""

import html
import json
import re
import shlex
import shutil
import subprocess
import time

import pytest

from mlprobe_utils.book import chapter
from mlprobe_utils.book.provenance_box import provenance_box
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.baseline_card import baseline_folder
from mlprobe_utils.pipeline.cards import load_data_card, load_model_card, load_protocol
from mlprobe_utils.pipeline.configuration import Run, configure
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.jobs import prepare
from mlprobe_utils.pipeline.results import Selection

MODEL, DATASET, DATA_HASH = "lingshu-7b-miniature", "busi-phantom", "0123456789abcdef" * 4
MODEL_CARD, DATA_CARD, PROTOCOL = load_model_card(MODEL), load_data_card(DATASET), load_protocol("miniature")
PARAMETERS = {"models": [MODEL], "datasets": [DATASET], "split_rule": "clean", "data": "", "metric": "recall"}
WEIGHTS = "c0ffee" * 6  # the hub's commit
MADE_BY = "python -m maker"


def rows(text: str) -> list[list[str]]:
    """The rows of all tables of a text, each a list of its cells' texts."""
    cells = [re.findall(r"<t[hd].*?</t[hd]>", own, re.DOTALL) for own in re.findall(r"<tr.*?</tr>", text, re.DOTALL)]
    return [[html.unescape(re.sub("<.*?>", "", cell)) for cell in own] for own in cells]


def row(box: str, first: str) -> list[str]:
    """The one row that begins with this cell."""
    (found,) = [cells for cells in rows(box) if cells[0] == first]
    return found


def column(box: str, table: str, first: str, name: str) -> str:
    """The cell under a column's name, in the row that begins with `first` of the table that begins with `table`."""
    return dict(zip(row(box, table), row(box, first), strict=True))[name]


def box(name="03_probing", parameters=PARAMETERS, model=MODEL_CARD, data_card=DATA_CARD, started=None) -> str:
    image_set = ImageSet(data_card, None, DATA_HASH, {}, None)
    return provenance_box(name, parameters, PROTOCOL, [PROTOCOL, model, image_set], started or time.time())


def command(text: str) -> str:
    """The command as a reader copies it."""
    return html.unescape(re.search("<pre><code>(.*?)</code></pre>", text, re.DOTALL)[1])


@pytest.fixture
def made(outputs, monkeypatch):
    """Every artefact of one model on one data set, of which nothing is read yet; name -> folder."""
    monkeypatch.setattr(artefacts, "READ", {})
    folder = Selection((MODEL,), (DATASET,), "miniature", "clean").folder(MODEL, DATASET)
    states = ("pretrained", "finetuned-0", "finetuned-1")
    names = ["adapter-0", "adapter-1", *(f"{kind}-{state}" for kind in ("predictions", "features") for state in states)]
    folders = {name: folder / name for name in [*names, "probes"]} | {"data": folder.parents[1] / "data"}
    folders["baseline"] = baseline_folder("miniature", DATASET, "clean", "resnet")
    reading = {"model": WEIGHTS, "reading": {"precision": "bfloat16", "max_pixels": 4096, "chat_template": "{{ 1 }}"}}
    upstream = {"probes": [name for name in names if name.startswith("features")]}
    for run in range(2):
        upstream |= {f"{kind}-finetuned-{run}": [f"adapter-{run}"] for kind in ("predictions", "features")}
    for name, place in folders.items():
        sources = {artefacts.from_outputs(folder / source): "" for source in upstream.get(name, [])}
        with artefacts.artefact(place, (reading if place.parent == folder else {}) | {"upstream": sources}):
            pass
    return folders


@pytest.fixture
def read(made):
    """Reads artefacts by name, as a chapter does."""

    def of(*names):
        for name in names:
            artefacts.read_made_from(made[name], MADE_BY)

    return of


def record(folder, **fields) -> None:
    """Changes fields of a provenance.json; None removes one."""
    path = folder / "provenance.json"
    changed = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def counted(text: str) -> dict[str, int]:
    """Kind of artefact -> how many, as in the box."""
    table = text.partition("Artefacts behind this page")[2].partition("</table>")[0]
    return {cells[0]: int(cells[1]) for cells in rows(table)[1:]}


def test_the_box_names_what_the_page_depends_on(made, read):
    read("data", "probes", "predictions-finetuned-1")
    text = box(started=time.time() - 5000)
    assert float(row(text, "duration (s)")[1]) == pytest.approx(5000, rel=0.1)
    assert text.startswith("<details")
    assert row(text, "protocol")[:4] == ["protocol", "miniature", PROTOCOL.title, PROTOCOL.content_hash[:12]]
    how = "precision bfloat16, max pixels 4096, its card's chat template"
    assert row(text, "model") == ["model", MODEL, MODEL_CARD.name, MODEL_CARD.content_hash[:12], WEIGHTS, how]
    assert row(text, "data set") == ["data set", DATASET, DATA_CARD.name, DATA_CARD.content_hash[:12], DATA_HASH, ""]
    assert row(text, "seed of the split")[1] == str(PROTOCOL.splits.seed)
    assert row(text, "seeds of the runs")[1] == "0, 1"
    now = artefacts.provenance(time.time())
    assert row(text, "commit")[1] == now["commit"]
    for package, version in now["versions"].items():
        assert row(text, package) == [package, version, version]
    assert float(row(text, "peak memory of the kernel (MiB)")[1]) == pytest.approx(now["peak_memory_mib"], rel=0.5)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["data", "predictions-finetuned-0"], {"manifest": 1, "adapter": 1, "predictions": 1}),
        (["probes", "features-pretrained"], {"adapter": 2, "features": 3, "probes": 1}),
        (["data", "baseline"], {"manifest": 1, "baseline": 1}),
    ],
)
def test_what_was_read_is_listed_with_what_it_was_made_of(read, names, expected):
    read(*names)
    assert counted(box()) == expected


def test_artefacts_are_summed_up_with_what_was_recorded_of_them(made, read):
    """Each field of two adapters, of which one was made on an accelerator; an earlier manifest has less."""
    read("data", "adapter-0", "adapter-1")
    assert "accelerator" not in box()
    one = {"made_at": "2026-01-02T00:00:00Z", "seconds": 1.25, "peak_memory_mib": 300.0, "commit": "aaa1111"}
    two = {"made_at": "2026-01-01T00:00:00Z", "seconds": 2.5, "peak_memory_mib": 700.5, "commit": "bbb2222-dirty"}
    accelerators = ({"accelerator": "Big One", "accelerator_peak_memory_mib": peak} for peak in (900.0, 1000.0))
    versions = ({"torch": "1.0"}, {"torch": "2.0", "numpy": "1.5"})
    for number, fields in enumerate((one, two)):
        record(made[f"adapter-{number}"], **fields, **next(accelerators), versions=versions[number])
    record(made["data"], peak_memory_mib=None)
    text = box()
    dates, commits = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"], "aaa1111, bbb2222-dirty"
    assert row(text, "adapter") == ["adapter", "2", *dates, "3.8", "700.5", commits, "Big One", "1000.0"]
    names = ("highest peak memory (MiB)", "accelerators", "highest peak on one (MiB)")
    assert [column(text, "artefact", "manifest", name) for name in names] == ["", "", ""]
    assert row(text, "torch")[2].startswith("1.0, 2.0")
    assert row(text, "numpy")[2].startswith("1.5")


@pytest.mark.parametrize("content", [None, "{", '{"made_at": "2026-01-01T00:00:00Z"}'])
def test_a_provenance_that_cannot_be_read_is_named_with_the_remedy(made, read, content):
    read("probes")
    path = made["adapter-1"] / "provenance.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=rf"adapter-1/provenance.json .*remove the folder .*`{MADE_BY}`"):
        box()
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    with pytest.raises(InputError, match=rf"adapter-1 is not there: make it with `{MADE_BY}`"):
        box()


def test_everything_is_escaped(made, read):
    evil = '<b onclick="x">&'
    record(made["data"], commit=evil)
    read("data")
    named = MODEL_CARD.model_copy(update={"name": evil})
    text = box(parameters=PARAMETERS | {"data": evil}, model=named)
    assert "<b" not in text
    assert row(text, "model")[2] == evil
    assert column(text, "artefact", "manifest", "commits") == evil
    assert json.loads(shlex.split(command(text))[-1])["data"] == evil


@pytest.mark.parametrize("folder", ["", '../it\'s $HOME `here` "ü"\\n'])
def test_the_command_reaches_the_chapter_through_a_shell(read, folder):
    read("data")
    parameters = PARAMETERS | {"data": folder}
    printed = re.sub(r"^\S+", r"printf '%s\\0'", command(box(parameters=parameters)))
    said = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, check=True).stdout
    *command_line, name, output, option, given = said.split("\0")[:-1]
    assert command_line == ["-m", "mlprobe_utils", "chapter"]
    assert (name, output, option) == ("03_probing", "03_probing.ipynb", "--parameters")
    assert json.loads(given) == parameters


def test_a_chapter_knows_its_parameters_and_what_it_read(outputs, monkeypatch, tmp_path):
    """Through `start` and real image sets: values that count, not the empty defaults; nothing of an earlier page."""
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(outputs))
    monkeypatch.delenv("MLPROBE_PREPARED", raising=False)
    prepare(Run((), (DATASET,), "miniature", "paper", ""))
    monkeypatch.setenv("MLPROBE_PREPARED", "1")
    monkeypatch.setitem(artefacts.READ, tmp_path / "of-another-page", MADE_BY)
    declared = dict.fromkeys(("models", "datasets"), list[str]) | dict.fromkeys(("protocol", "split_rule", "data"), str)
    given = {"models": [], "datasets": [DATASET], "protocol": "miniature", "split_rule": "clean", "data": ""}
    page = chapter.start({"__annotations__": declared | {"metric": str}, "metric": "f1"} | given)
    text = page.provenance("01_datasets").data
    run = configure(*given.values())
    assert json.loads(shlex.split(command(text))[-1]) == run.parameters() | {"metric": "f1"}
    assert row(text, "data set")[-2] == load_image_set(DATASET, "miniature").data_hash
    assert counted(text) == {"manifest": 1, "phantom": 1}
    with pytest.raises(InputError, match="did you mean '01_datasets'"):
        page.provenance("01_dataset")
