"""The front page's claims on the test images and on fresh phantoms, and that it reports a verdict that changed."""

from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
from simulated_rows import SITES, image_set, made

from mlprobe_utils.analysis import headlines
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.diagnosis import STATEMENTS, Usual
from mlprobe_utils.evaluation.names import OUTPUT, READ_OUT_GAP
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.results import Selection

DATASET = "busi-phantom"
EVEN = dict.fromkeys(SITES, 0.9)
LOST = EVEN | {OUTPUT: 0.6}
READ = {"end_rows": "probed", "prediction_rows": "predicted", "reference_rows": "reference"}


def rows(after: dict, images: int) -> dict[str, pd.DataFrame]:
    before, own = made(LOST, images, stage="pretrained", dataset=DATASET), made(after, images, dataset=DATASET)
    both = {name: pd.concat([before[name], own[name]], ignore_index=True) for name in ("probed", "predicted")}
    return both | {"reference": own["reference"].assign(dataset=DATASET)}


@pytest.mark.parametrize(("after", "held"), [(LOST, True), (EVEN, False)])
def test_a_claim_held_where_its_verdict_is_the_same_on_fresh_phantoms(after, held, monkeypatch, tmp_path):
    tested, fresh = rows(LOST, 400), rows(after, 500)
    for name, own in READ.items():
        monkeypatch.setattr(headlines.results, name, lambda _, own=own: tested[own])
    drawn = pd.concat([*fresh.values(), fresh["reference"]], ignore_index=True)  # the latter of two models
    monkeypatch.setattr(headlines.results, "gather", lambda *_: drawn)
    monkeypatch.setattr(
        headlines.tables, "usual_losses", lambda _: {"m": {s.name: Usual(3.0, 0.3, 2.0, 60) for s in STATEMENTS}}
    )
    manifest = image_set(400).manifest.assign(split_paper="test")
    sets = {DATASET: ImageSet(load_data_card(DATASET), manifest, "0" * 64, {}, tmp_path)}
    planted = partial(headlines.faults_found, [SimpleNamespace(slug="m", mode=READ_OUT_GAP)])
    of_run = Selection(("m",), (DATASET,), "miniature", "paper"), sets
    table = headlines.replicated(headlines.CLAIMS | {"faults": planted}, *of_run)
    assert table["test images"][0].startswith("+")
    assert [*table["replicated"]] == ["yes", *["yes" if held else "no"] * 4]
    for row, what in ((3, "pairs"), (4, "cases")):
        assert [*table.iloc[row, 1:3]] == [f"1 of 1 {what}", f"{int(held)} of 1 {what}"]


def test_nothing_is_replicated_on_real_images():
    assert headlines.replicated(headlines.CLAIMS, Selection(("m",), ("busi",), "miniature", "paper"), {}).empty
