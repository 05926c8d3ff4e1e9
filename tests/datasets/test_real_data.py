"""The facts of the three real releases, on the (shrunk) images in the folder that REAL_DATA names."""

import os
from pathlib import Path

import pandas as pd
import pytest

from mlprobe_utils.datasets.controls import pixel_statistics, rows_without_model
from mlprobe_utils.datasets.splits import leaks
from mlprobe_utils.datasets.summary import counts, format_shortcuts
from mlprobe_utils.evaluation.metrics import control_scores
from mlprobe_utils.evaluation.names import FILE_FORMAT, MAJORITY
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.images import build_manifest, load_image_set

REAL_DATA = os.environ.get("REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL_DATA, reason="REAL_DATA names no folder with the real images")
FOLDERS = {"busi": "BUSI/Dataset_BUSI_with_GT", "covid19-ct": "COVID-CT", "chest-xray": "Chest-Xray/chest_xray"}


@pytest.fixture(scope="module")
def image_sets(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        for slug in FOLDERS:
            build_manifest(slug, "miniature", Path(REAL_DATA))
        yield {slug: load_image_set(slug, "miniature") for slug in FOLDERS}


@pytest.mark.parametrize("slug", FOLDERS)
def test_every_image_is_found_with_its_facts(image_sets, slug):
    """Those of manifest.csv, the folder's own description of its files."""
    table, release = image_sets[slug].manifest.set_index("image"), FOLDERS[slug].split("/")[0]
    expected = pd.read_csv(Path(REAL_DATA, release, "manifest.csv"), dtype={"patient_id": str})
    path = release + "/" + expected["path"].astype(str)
    expected = expected.assign(image=path.str.removeprefix(FOLDERS[slug] + "/"))
    expected = expected[(expected["image"] != path) & (expected["kind"] == "image")].set_index("image")
    assert len(table) == len(expected)
    expected = expected.loc[table.index]
    facts = ["bytes", "sha256", "width", "height", "mode", "format"]
    assert (table[facts] == expected[facts]).all(axis=None)
    if slug != "busi":  # which has neither splits nor patients
        assert (table["official_split"] == expected["split"]).all()
        pairs = pd.DataFrame({"ours": table["patient"], "theirs": expected["patient_id"]}).drop_duplicates()
        assert pairs["ours"].notna().all()
        assert pairs.nunique().eq(len(pairs)).all()  # one of theirs for each of ours


def test_counts_of_the_releases(image_sets):
    table = counts(image_sets).query("found != released")  # 1,200 of Chest-Xray's train images are here
    found = table[["official split", "class", "found"]].to_numpy().tolist()
    assert sorted(found) == [["train", "NORMAL", 309], ["train", "PNEUMONIA", 891]]


@pytest.mark.parametrize("slug", FOLDERS)
def test_the_papers_test_sets(image_sets, slug):
    card, images = load_data_card(slug), image_sets[slug]
    expected = card.test_counts or card.release_counts["test"]
    assert images.rows_of("paper", "test")["label"].value_counts().to_dict() == expected
    clean = images.rows_of("clean", "test")["label"].value_counts().to_dict()
    # COVID-CT's two test images that lie in train under the other label are dropped
    assert clean == (expected if slug != "covid19-ct" else {"COVID": 96, "NonCOVID": 105})
    assert leaks(images.manifest, "clean").empty


def test_the_format_shortcut_of_covid_ct_and_its_control(image_sets):
    image_set = image_sets["covid19-ct"]
    table = image_set.manifest
    assert format_shortcuts({"": image_set}, "paper")["correct"].tolist() == ["163/203"]
    assert set(table.loc[table["mode"] == "RGBA", "label"]) == {"COVID"}
    assert set(table.loc[table["extension"] == ".jpg", "label"]) == {"NonCOVID"}
    assert ((table["format"] == "JPEG") & (table["extension"] == ".png")).sum() == 34
    rows = rows_without_model(image_set, "paper", pixel_statistics(image_set))
    scores = control_scores(rows, {"covid19-ct": image_set.card.positive}).set_index("control")
    correct = (scores["accuracy"] * scores["images"] / 100).round(6)
    assert (correct[FILE_FORMAT], correct[MAJORITY]) == (163, 105)


def test_the_cross_label_leak_of_covid_ct(image_sets):
    found = leaks(image_sets["covid19-ct"].manifest, "paper")
    conflicts = found[found["kind"] == "label conflict"]
    names = [{image.split("/")[-1] for image in images} for images in conflicts["images"]]
    assert names == [{"kjr-21-e24-p5-29.png", "71%0.jpg"}, {"kjr-21-e24-p5-31.png", "71%1.jpg"}]
    assert set(conflicts["splits"]) == {"test + train"}


def test_the_duplicates_of_busi_and_of_chest_xray_where_they_are_identical_files(image_sets):
    table = image_sets["busi"].manifest
    groups = table.dropna(subset=["duplicate_group"]).groupby("duplicate_group")
    mixed = groups["label"].nunique() > 1
    # the folder's README: 127 clusters, 292 images, 7 mixed at correlation > 0.95
    assert (groups.ngroups, int(groups.size().sum()), int(mixed.sum())) == (132, 292, 7)
    same = table[table["sha256"].duplicated(keep=False)]
    assert set(same["image"]) == {"benign/benign (433).png", "malignant/malignant (145).png"}
    conflicting = table[table["duplicate_group"].isin(mixed.index[mixed])]
    assert (conflicting["split_clean"] == "unused").all()
    assert (table["split_clean"] == "unused").sum() == len(conflicting) == 16

    table = image_sets["chest-xray"].manifest
    groups = table.dropna(subset=["duplicate_group"]).groupby("duplicate_group")
    identical = table[table["sha256"].duplicated(keep=False)]
    assert groups.ngroups == identical["sha256"].nunique() == 12
    assert groups.size().sum() == len(identical) == 25
    assert (groups[["sha256", "official_split", "label"]].nunique() == 1).all(axis=None)
