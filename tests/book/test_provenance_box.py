"""The box at the end of a page: names all that the page depends on, and holds a command that makes the page again."""

import html
import json
import re
import shlex
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


def rows(text: str) -> dict[str, list[str]]:
    """The texts of the cells of all rows, by that of the first."""
    cells = [re.findall(r"<t[hd].*?</t[hd]>", own, re.DOTALL) for own in re.findall(r"<tr.*?</tr>", text, re.DOTALL)]
    texts = [[html.unescape(re.sub("<.*?>", "", cell)) for cell in own] for own in cells]
    return {first: others for first, *others in texts}


def box(parameters=PARAMETERS, model=MODEL_CARD, started=None) -> str:
    cards = [PROTOCOL, model, ImageSet(DATA_CARD, None, DATA_HASH, {}, None)]
    return provenance_box("03_probing", parameters, PROTOCOL, cards, started or time.time())


def command(text: str) -> str:
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


def read(*folders) -> None:
    for folder in folders:
        artefacts.read_made_from(folder, MADE_BY)


def record(folder, **fields) -> None:
    """Changes fields of a provenance.json; None removes one."""
    path = folder / "provenance.json"
    changed = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    artefacts.complete(folder)


def counted(text: str) -> dict[str, int]:
    """Kind of artefact -> how many, as in the box."""
    table = text.partition("Artefacts behind this page")[2].partition("</table>")[0]
    return {kind: int(cells[0]) for kind, cells in rows(table).items() if kind != "artefact"}


def test_the_box_names_what_the_page_depends_on(made):
    """And the artefacts that were read, with what they were made of."""
    read(made["data"], made["probes"], made["features-pretrained"], made["baseline"])
    text = box(started=time.time() - 5000)
    assert counted(text) == {"adapter": 2, "features": 3, "probes": 1, "manifest": 1, "baseline": 1}
    assert text.startswith("<details")
    found, now = rows(text), artefacts.provenance(time.time())
    assert found["protocol"][:3] == ["miniature", PROTOCOL.title, PROTOCOL.content_hash[:12]]
    how = "precision bfloat16, max pixels 4096, its card's chat template"
    assert found["model"] == [MODEL, MODEL_CARD.name, MODEL_CARD.content_hash[:12], WEIGHTS, how]
    assert found["data set"] == [DATASET, DATA_CARD.name, DATA_CARD.content_hash[:12], DATA_HASH, ""]
    own = [found[name] for name in ("split seed", "run seeds", "commit")]
    assert own == [[str(PROTOCOL.splits.seed)], ["0, 1"], [now["commit"]]]
    assert found.items() >= {package: [version, version] for package, version in now["versions"].items()}.items()
    assert float(found["duration (s)"][0]) == pytest.approx(5000, rel=0.1)
    assert float(found["peak memory (MiB)"][0]) == pytest.approx(now["peak_memory_mib"], rel=0.5)


def test_artefacts_are_summed_up_with_what_was_recorded_of_them(made):
    """Each field of two adapters that were made on an accelerator; an earlier manifest has less."""
    read(made["data"], made["adapter-0"], made["adapter-1"])
    assert "accelerator" not in box()
    one = {"made_at": "2026-01-02T00:00:00Z", "seconds": 1.25, "peak_memory_mib": 300.0, "commit": "aaa1111"}
    two = {"made_at": "2026-01-01T00:00:00Z", "seconds": 2.5, "peak_memory_mib": 700.5, "commit": "bbb2222-dirty"}
    accelerators = ({"accelerator": "Big One", "accelerator_peak_memory_mib": peak} for peak in (900.0, 1000.0))
    versions = ({"torch": "1.0"}, {"torch": "2.0", "numpy": "1.5"})
    for number, fields in enumerate((one, two)):
        record(made[f"adapter-{number}"], **fields, **next(accelerators), versions=versions[number])
    record(made["data"], peak_memory_mib=None)
    found = rows(box())
    dates, commits = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"], "aaa1111, bbb2222-dirty"
    assert found["adapter"] == ["2", *dates, "3.8", "700.5", commits, "Big One", "1000.0"]
    assert [found["manifest"][place] for place in (4, 6, 7)] == ["", "", ""]
    assert found["torch"][1].startswith("1.0, 2.0")
    assert found["numpy"][1].startswith("1.5")


def test_everything_is_escaped_and_the_command_reaches_the_chapter_through_a_shell(made):
    evil = '<b onclick="x">&../it\'s $HOME `here` "ü"\\n'
    record(made["data"], commit=evil)
    read(made["data"])
    parameters = PARAMETERS | {"data": evil}
    text = box(parameters=parameters, model=MODEL_CARD.model_copy(update={"name": evil}))
    assert "<b" not in text
    assert rows(text)["model"][1] == rows(text)["manifest"][5] == evil
    printed = re.sub(r"^\S+", r"printf '%s\\0'", command(text))
    said = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, check=True).stdout
    *command_line, given = said.split("\0")[:-1]
    assert " ".join(command_line) == "-m mlprobe_utils chapter 03_probing 03_probing.ipynb --parameters"
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
    assert rows(text)["data set"][-2] == load_image_set(DATASET, "miniature").data_hash
    assert counted(text) == {"manifest": 1, "phantom": 1}
    with pytest.raises(InputError, match="did you mean '01_datasets'"):
        page.provenance("01_dataset")
