"""The manifest as a whole: built, current, read back; and its errors."""

import json
import os

import numpy as np
import pytest
from made_releases import image_bytes, make_busi, make_covid_ct, picture, write

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import MANIFEST
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.images import build_manifest, load_image_set

pytestmark = pytest.mark.usefixtures("outputs")


@pytest.fixture
def covid(tmp_path):
    make_covid_ct(tmp_path / "raw", {"train": 20, "val": 2, "test": 4})
    return tmp_path / "raw"


def test_built_and_read_back(tmp_path, covid, outputs):
    folder = build_manifest("covid19-ct", "miniature", covid)
    assert folder == outputs / "miniature/covid19-ct/data"
    images = load_image_set("covid19-ct", "miniature")
    table = images.manifest
    assert list(table.columns) == list(MANIFEST.columns)
    assert len(table) == 52
    assert set(zip(table["label"], table["option"], strict=True)) == {("COVID", "Yes"), ("NonCOVID", "No")}
    assert sum(len(images.rows_of("paper", part)) for part in ("train", "validation", "test")) == 48
    assert images.report["found"]["train"] == {"COVID": 20, "NonCOVID": 20}
    row = table[table["image"] == "Images-processed/CT_COVID/train-p0%1.png"].iloc[0]
    expected = picture(30_002).resize((64, 64), 3)
    assert np.array_equal(images.pixels(row.name), np.asarray(expected))
    assert (row["stored_height"], row["stored_width"], row["extension"]) == (64, 64, ".png")
    record = json.loads((folder / "made_from.json").read_text())
    assert record.keys() == {"stage", "version", "card", "images", "splits", "source", "upstream"}
    images.pixels(0)[:] = 0  # a copy
    assert images.pixels(0).any()


def test_unsquared_working_copies(tmp_path):
    make_busi(tmp_path / "raw", {"benign": 96, "malignant": 54, "normal": 36})
    write(tmp_path / "raw/Dataset_BUSI_with_GT/normal/normal (1).png", image_bytes(9, size=(1400, 1000)))
    build_manifest("busi", "paper", tmp_path / "raw")
    images = load_image_set("busi", "paper")
    big = images.manifest.index[images.manifest["image"] == "normal/normal (1).png"][0]
    assert images.pixels(big).shape == (757, 1060, 3)
    assert np.array_equal(images.pixels(0), np.asarray(picture(0)))
    for split_rule in ("paper", "clean"):
        counts = images.rows_of(split_rule, "test")["label"].value_counts().to_dict()
        assert counts == load_data_card("busi").test_counts


def test_a_current_manifest_is_not_rebuilt_and_a_changed_one_is(covid):
    folder = build_manifest("covid19-ct", "miniature", covid)
    first = load_image_set("covid19-ct", "miniature").data_hash
    made = (folder / "provenance.json").stat().st_mtime_ns
    build_manifest("covid19-ct", "miniature", covid)
    assert (folder / "provenance.json").stat().st_mtime_ns == made
    target = covid / "COVID-CT/Images-processed/CT_COVID/train-p0%0.png"
    os.utime(target, ns=(1, 1))  # touched, not changed: rebuilt, but the same data
    build_manifest("covid19-ct", "miniature", covid)
    assert (folder / "provenance.json").stat().st_mtime_ns != made
    assert load_image_set("covid19-ct", "miniature").data_hash == first
    target.write_bytes(image_bytes(77))
    build_manifest("covid19-ct", "miniature", covid)
    assert load_image_set("covid19-ct", "miniature").data_hash != first


def test_a_changed_card_is_noticed_on_reading_and_a_failed_build_leaves_what_was_there(covid, monkeypatch):
    folder = build_manifest("covid19-ct", "miniature", covid)
    before = (folder / "manifest.parquet").read_bytes()
    image = covid / "COVID-CT/Images-processed/CT_NonCOVID/train-p0%0.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"train-p0%0\.jpg is truncated or damaged"):
        build_manifest("covid19-ct", "miniature", covid)
    assert (folder / "manifest.parquet").read_bytes() == before
    changed = load_data_card("covid19-ct").model_copy(update={"test_counts": {"COVID": 1}})
    monkeypatch.setattr("mlprobe_utils.pipeline.images.load_data_card", lambda slug: changed)
    with pytest.raises(InputError, match="made with another card or protocol: run `python -m"):
        load_image_set("covid19-ct", "miniature")


def test_errors_of_use(covid):
    with pytest.raises(InputError, match=r"DATA=<folder>.*data/README\.md.*busi-phantom"):
        build_manifest("busi", "miniature", None)
    with pytest.raises(InputError, match=r"mlprobe_utils manifest covid19-ct --protocol miniature --data <folder>"):
        load_image_set("covid19-ct", "miniature")
    build_manifest("covid19-ct", "miniature", covid)
    images = load_image_set("covid19-ct", "miniature")
    with pytest.raises(InputError, match="unknown split 'val'"):
        images.rows_of("paper", "val")
