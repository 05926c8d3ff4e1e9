"""Results as a file: without tensors, read under the file's name, refused where they were changed or do not fit."""

import json
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, exchange, jobs
from mlprobe_utils.pipeline.cards import load_model_card, slugs
from mlprobe_utils.pipeline.configuration import Run
from mlprobe_utils.pipeline.exchange import check_imported, export_results, import_results
from mlprobe_utils.pipeline.results import Selection, adapter_sizes
from mlprobe_utils.pipeline.variants import load_discussion, taking_part

MODEL, DATASET = "lingshu-7b-miniature", "busi-phantom"
OF_RUN = {"datasets": [DATASET], "protocol": "miniature", "split_rule": "paper"}
SELECTION = Selection((MODEL,), (DATASET,), "miniature", "paper")


@pytest.fixture
def exported(outputs, own_cards, monkeypatch):
    """A file of a model's results, two artefacts, whose outputs are gone; its data are of the hash `images`."""
    folder = SELECTION.folder(MODEL, DATASET)
    adapter = artefacts.Artefact(folder / "adapter-0", "adapter", {"seed": 0})
    probes = artefacts.Artefact(folder / "probes", "probes", {"seed": 0}, (adapter,))
    with artefacts.artefact(adapter.folder, adapter.made_from()) as place:
        save_file({"layer.lora_A.weight": np.zeros((4, 3))}, place / "adapter_model.safetensors")
    controls = artefacts.Artefact(SELECTION.controls(DATASET), "image controls", {})
    with artefacts.artefact(controls.folder, controls.made_from()) as place:
        for name in ("controls.parquet", "task.parquet"):
            pd.DataFrame({"model": [None]}).to_parquet(place / name)
    with artefacts.artefact(probes.folder, probes.made_from()) as place:
        pd.DataFrame({"model": [MODEL] * 2, "image": ["a", "b"]}).to_parquet(place / "probes.parquet")
    images = SimpleNamespace(card=SimpleNamespace(slug=DATASET), data_hash="images")
    made = [adapter, controls, probes]
    own = SimpleNamespace(image_set=images, of_pipeline=lambda: made, of_discussion=lambda card: [])
    monkeypatch.setattr(exchange, "places", lambda *of: [own])
    monkeypatch.setattr(exchange, "load_image_set", lambda slug, protocol: images)
    export_results(MODEL, **OF_RUN, file=(file := outputs.parent / "theirs.results.zip"))
    with zipfile.ZipFile(file) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".safetensors")]
    shutil.rmtree(outputs)
    with pytest.raises(InputError, match=rf"adapter-0 is not up to date: run `python -m mlprobe_utils model {MODEL}"):
        export_results(MODEL, **OF_RUN, file=file.with_name("other.zip"))
    return file


def test_rows_card_and_provenance_stand_under_the_name_of_the_file(exported, outputs):
    assert import_results(exported) == "theirs"
    folder = SELECTION.folder("theirs", DATASET)
    rows = pd.read_parquet(folder / "probes" / "probes.parquet")
    assert rows.to_dict("list") == {"model": ["theirs"] * 2, "image": ["a", "b"]}
    assert adapter_sizes(folder / "adapter-0") == {"layer.lora_A.weight": 12}
    assert artefacts.upstream(folder / "probes") == [folder / "probes", folder / "adapter-0"]
    assert json.loads((folder / "probes" / "provenance.json").read_text())["versions"]
    assert "theirs" in slugs(type(load_model_card(MODEL)))
    card, own = load_model_card("theirs"), load_model_card(MODEL)
    assert card.name == f"{own.name} (theirs)"
    assert (card.made_by, card.recipe, card.miniature_of) == (None, None, own.miniature_of)
    assert len([*SELECTION.controls(DATASET).iterdir()]) == 5
    before = (folder / "probes" / "probes.parquet").stat().st_mtime_ns
    import_results(exported)
    assert (folder / "probes" / "probes.parquet").stat().st_mtime_ns == before


def test_nothing_is_made_of_them_but_what_they_hold_is_checked(exported):
    import_results(exported)
    run = Run(("theirs",), (DATASET,), "miniature", "paper", "")
    (job,) = [own for own in jobs.jobs_of(run) if own.kind == "model"]
    assert job.command[:2] == ("fits", "theirs")
    assert job.due() == []
    assert taking_part(load_discussion("question-first"), ["theirs", MODEL]) == ["theirs", MODEL]
    with pytest.raises(InputError, match="faults can only be planted in models with local weights"):
        jobs.laboratory_jobs(run)


def test_results_of_another_run_question_or_protocol_do_not_fit(exported, own_cards, monkeypatch):
    import_results(exported)
    for changed, words in (
        ({"protocol": "paper"}, "choose these, PROTOCOL=miniature SPLIT=paper"),
        ({"split_rule": "clean"}, "choose these"),
        ({"datasets": ("chest-xray-phantom",)}, f"other data sets than 'chest-xray-phantom': .*{DATASET}"),
    ):
        with pytest.raises(InputError, match=words):
            check_imported("theirs", **(OF_RUN | changed))
    monkeypatch.setattr(exchange, "load_image_set", lambda slug, protocol: SimpleNamespace(data_hash="others"))
    with pytest.raises(InputError, match=f"of other images, splits or another question of '{DATASET}'"):
        check_imported("theirs", **OF_RUN)
    monkeypatch.setattr(exchange, "load_image_set", lambda slug, protocol: SimpleNamespace(data_hash="images"))
    card = own_cards / "datasets" / f"{DATASET}.yml"
    card.write_text(card.read_text().replace("Study this", "Look at this"))
    exchange.cards.load_card.cache_clear()
    with pytest.raises(InputError, match=f"other `paraphrases` of '{DATASET}' than here"):
        check_imported("theirs", **OF_RUN)
    protocol = own_cards / "protocols" / "miniature.yml"
    protocol.write_text(protocol.read_text().replace("probe_seeds: ", "probe_seeds: 1"))
    exchange.cards.load_card.cache_clear()
    with pytest.raises(InputError, match="a protocol 'miniature' with other values"):
        check_imported("theirs", **OF_RUN)


def rewritten(file, changes: dict[str, bytes], sealed: bool):
    """The file with some entries changed; with hashes and seal made anew as its author could."""
    with zipfile.ZipFile(file) as archive:
        contents, seal = {name: archive.read(name) for name in archive.namelist()} | changes, archive.comment
    if sealed:
        hashes = {name: exchange.hash_of(data) for name, data in contents.items() if name != exchange.HASHES}
        contents[exchange.HASHES] = json.dumps(hashes).encode()
        seal = exchange.hash_of(contents[exchange.HASHES]).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        archive.comment = seal


PROBES = f"miniature/{DATASET}/paper/{MODEL}/probes"
OLD = json.dumps({"stage": "probes", "version": 0, "upstream": {}}).encode()


@pytest.mark.parametrize(
    ("changes", "sealed", "words"),
    [
        ({f"{PROBES}/probes.parquet": b"better"}, False, "changed after its export .*/probes/probes.parquet"),
        ({exchange.HASHES: b"{}"}, False, "was changed after its export"),
        ({f"{PROBES}/made_from.json": OLD}, True, "'probes' is of version 0, and of version [1-9] in this project"),
        ({"../stolen.txt": b""}, True, r"contains \.\./stolen.txt, which points outside outputs/"),
    ],
)
def test_files_that_are_refused(exported, outputs, changes, sealed, words):
    rewritten(exported, changes, sealed)
    with pytest.raises(InputError, match=words):
        import_results(exported)
    assert not (outputs / "imported").exists()


def test_other_files_and_names_that_are_taken(exported):
    taken = exported.rename(exported.with_name(f"{MODEL}.results.zip"))
    with pytest.raises(InputError, match=f"you have a model '{MODEL}': rename the file"):
        import_results(taken)
    with pytest.raises(InputError, match=r"there is no .*theirs"):
        import_results(exported)
    exported.write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a complete file of `mlprobe export`"):
        import_results(exported)
