"""The three layouts: what is found, where, and what is refused."""

import shutil
from collections import Counter

import pytest
from made_releases import image_bytes, make_busi, make_chest_xray, make_covid_ct, write, zipped

from mlprobe_utils.cards import load_data_card
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.layouts import read_release
from mlprobe_utils.errors import InputError

MAKERS = {"busi": make_busi, "chest-xray": make_chest_xray, "covid19-ct": make_covid_ct}


def read(root, slug):
    return read_release(FileTree(root), load_data_card(slug))


def refused(root, slug, *words):
    with pytest.raises(InputError) as error:
        read(root, slug)
    for word in words:
        assert word in str(error.value)


@pytest.fixture
def beside_each_other(tmp_path):
    for make in MAKERS.values():
        make(tmp_path)
    return tmp_path


def test_all_three_are_found_beside_each_other(beside_each_other):
    busi = read(beside_each_other, "busi")
    assert Counter(r.label for r in busi.records) == {"benign": 4, "malignant": 3, "normal": 2}
    assert busi.records[0].image == "benign/benign (1).png"
    assert (busi.folder, busi.ignored["masks"]) == ("Dataset_BUSI_with_GT", 12)
    covid = read(beside_each_other, "covid19-ct")
    assert Counter((r.official_split, r.label) for r in covid.records)["train", "COVID"] == 4
    assert covid.records[0].image == "Images-processed/CT_COVID/test-p0%0.png"
    assert covid.records[0].patient == covid.records[1].patient == "COVID test 0"
    chest = read(beside_each_other, "chest-xray")
    assert Counter(r.official_split for r in chest.records) == {"train": 6, "val": 2, "test": 4}


@pytest.mark.parametrize("slug", MAKERS)
def test_the_releases_own_folder_may_be_given(tmp_path, slug):
    release = MAKERS[slug](tmp_path)
    outside = [r.image for r in read(tmp_path, slug).records]
    assert [r.image for r in read(release, slug).records] == outside
    renamed = release.rename(tmp_path / "renamed")
    assert [r.image for r in read(renamed, slug).records] == outside


@pytest.mark.parametrize("slug", MAKERS)
def test_zips_read_like_folders(tmp_path, slug):
    release = MAKERS[slug](tmp_path)
    unpacked = [(r.image, r.label, r.patient) for r in read(tmp_path, slug).records]
    if slug == "covid19-ct":  # its images are released as two zips
        for name in ("CT_COVID", "CT_NonCOVID"):
            zipped(release / "Images-processed" / name)
        assert [(r.image, r.label, r.patient) for r in read(tmp_path, slug).records] == unpacked
    archive = zipped(release)
    for root in (tmp_path, archive):
        assert [(r.image, r.label, r.patient) for r in read(root, slug).records] == unpacked


@pytest.mark.parametrize("slug", MAKERS)
def test_a_set_that_is_not_there(tmp_path, slug):
    refused(tmp_path, slug, slug, "data/README.md", str(tmp_path))


def test_deeper_copies_are_ignored_and_counted(tmp_path):
    release = make_chest_xray(tmp_path)
    shutil.copytree(release, tmp_path / "copy")
    shutil.move(tmp_path / "copy", release / "chest_xray")
    write(release / "__MACOSX/._x", b"")
    write(release / "train/NORMAL/.DS_Store", b"")
    chest = read(tmp_path, "chest-xray")
    assert (len(chest.records), chest.ignored) == (12, {"masks": 0, "other_copies": 12, "junk": 2})
    make_busi(tmp_path / "sets/busi")
    make_busi(tmp_path / "sets/busi/native_samples")
    busi = read(tmp_path, "busi")
    assert busi.folder == "sets/busi/Dataset_BUSI_with_GT"
    assert busi.ignored == {"masks": 12, "other_copies": 21, "junk": 2}


def test_two_copies_at_one_depth_are_refused(tmp_path):
    make_busi(tmp_path / "a")
    make_busi(tmp_path / "b")
    refused(tmp_path, "busi", "'a/Dataset_BUSI_with_GT' and 'b/Dataset_BUSI_with_GT'")


@pytest.mark.parametrize(
    ("slug", "folder"),
    [
        ("busi", "Dataset_BUSI_with_GT/cyst"),
        ("chest-xray", "chest_xray/train/COVID"),
        ("chest-xray", "chest_xray/holdout"),
        ("covid19-ct", "COVID-CT/Images-processed/CT_Flu"),
        ("covid19-ct", "COVID-CT/Data-split/Flu"),
    ],
)
def test_unknown_folders_are_refused(beside_each_other, slug, folder):
    write(beside_each_other / folder / "x.png", image_bytes())
    refused(beside_each_other, slug, f"unknown folder {folder}", "expected")


@pytest.mark.parametrize(
    ("slug", "folder"),
    [
        ("busi", "Dataset_BUSI_with_GT/normal"),
        ("chest-xray", "chest_xray/test/NORMAL"),
        ("covid19-ct", "COVID-CT/Images-processed/CT_COVID"),
    ],
)
def test_empty_and_missing_class_folders_are_refused(beside_each_other, slug, folder):
    shutil.rmtree(beside_each_other / folder)
    refused(beside_each_other, slug, f"folder {folder} is missing", "expected")
    (beside_each_other / folder).mkdir()
    refused(beside_each_other, slug, f"{folder} under {beside_each_other} holds no images")


def test_a_missing_split_folder(tmp_path):
    release = make_chest_xray(tmp_path)
    shutil.rmtree(release / "val")  # the authors' own archive has none
    assert Counter(r.official_split for r in read(tmp_path, "chest-xray").records) == {"train": 6, "test": 4}
    shutil.rmtree(release / "test")
    refused(tmp_path, "chest-xray", "folder chest_xray/test is missing")


def test_a_class_of_masks_only(tmp_path):
    release = make_busi(tmp_path)
    for path in (release / "normal").iterdir():
        if "_mask" not in path.name:
            path.unlink()
    refused(tmp_path, "busi", "Dataset_BUSI_with_GT/normal", "only masks")


@pytest.mark.parametrize(("name", "word"), [("notes.txt", "is no image"), ("more/x.png", "inside a class folder")])
def test_other_files_among_the_images_are_refused(beside_each_other, name, word):
    places = {
        "busi": "Dataset_BUSI_with_GT/benign",
        "chest-xray": "chest_xray/test/NORMAL",
        "covid19-ct": "COVID-CT/Images-processed/CT_COVID",
    }
    for slug, folder in places.items():
        write(beside_each_other / folder / name, image_bytes())
        refused(beside_each_other, slug, name, word)


def test_chest_patients_are_type_and_number(tmp_path):
    release = make_chest_xray(tmp_path)
    names = {
        "NORMAL": ["IM-0500-0001.jpeg", "IM-0500-0002.jpeg", "IM-0500-0001-0002.jpeg", "NORMAL2-IM-0500-0001.jpeg"],
        "PNEUMONIA": ["person500_virus_1.jpeg", "person500_virus_2.jpeg", "person500_bacteria_3.jpeg"],
    }
    for label, files in names.items():
        for name in files:
            write(release / "train" / label / name, image_bytes())
    patients = {r.image.split("/")[-1]: r.patient for r in read(tmp_path, "chest-xray").records}
    assert len({patients[name] for name in names["NORMAL"][:3]}) == 1
    assert len({patients[name] for files in names.values() for name in files}) == 4
    write(release / "train/NORMAL/scan 7.jpeg", image_bytes())
    refused(tmp_path, "chest-xray", "scan 7.jpeg", "does not say its patient")


def test_covid_split_files(tmp_path):
    release = make_covid_ct(tmp_path)
    folder = release / "Data-split/COVID"
    train = folder / "trainCT_COVID.txt"
    names = train.read_text()
    train.write_text("\ufeff" + names.replace("\n", "\r\n") + "\r\n")  # Windows line ends and a blank line
    assert len(read(tmp_path, "covid19-ct").records) == 16
    train.write_text(names + "gone%1.png\n")
    refused(tmp_path, "covid19-ct", "trainCT_COVID.txt", "gone%1.png", "not in CT_COVID")
    train.write_text(names + (folder / "testCT_COVID.txt").read_text())
    refused(tmp_path, "covid19-ct", "test-p0%0.png", "again")
    train.write_text("\n".join(names.split()[1:]))
    refused(tmp_path, "covid19-ct", names.split()[0], "in none of the split files")
    train.write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, "covid19-ct", "trainCT_COVID.txt", "not a text file")
    train.unlink()
    refused(tmp_path, "covid19-ct", "trainCT_COVID.txt", "missing")


def test_covid_metadata(tmp_path):
    release = make_covid_ct(tmp_path)
    metadata = release / "NonCOVID-CT-MetaInfo.csv"
    content = metadata.read_text()
    metadata = metadata.rename(metadata.with_suffix(".xlsx"))  # a CSV whatever its ending
    assert read(tmp_path, "covid19-ct").records[-1].patient == "NonCOVID val 0"
    metadata.write_text("\n".join(content.splitlines()[:-1]))
    refused(tmp_path, "covid19-ct", "test-p0%1.jpg", "NonCOVID-CT-MetaInfo")
    metadata.write_text(content + "99,test-p0%1.jpg,somebody else\n")
    refused(tmp_path, "covid19-ct", "test-p0%1.jpg", "two patients")
    metadata.write_text("a,b\n1,2\n")
    refused(tmp_path, "covid19-ct", "NonCOVID-CT-MetaInfo", "lacks the column")
    metadata.write_bytes(b"")
    refused(tmp_path, "covid19-ct", "NonCOVID-CT-MetaInfo", "not a CSV")
    metadata.unlink()
    refused(tmp_path, "covid19-ct", "NonCOVID-CT-MetaInfo", "is missing")


def test_a_part_of_covid_ct_is_not_enough(tmp_path):
    make_covid_ct(tmp_path)
    refused(tmp_path / "COVID-CT/Images-processed", "covid19-ct", "give the folder that holds 'Images-processed'")
