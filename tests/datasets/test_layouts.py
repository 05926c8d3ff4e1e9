"""Releases as people have them: folders and zips, the three layouts, and what is refused."""

import os
import shutil
import stat
import zipfile
from collections import Counter

import pytest
from made_releases import image_bytes, make_busi, make_chest_xray, make_covid_ct, write, zipped

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets import file_tree
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.manifest import read_release
from mlprobe_utils.pipeline.cards import load_data_card

MAKERS = {"busi": make_busi, "chest-xray": make_chest_xray, "covid19-ct": make_covid_ct}
COVID = "COVID-CT/Images-processed"
PLACES = {"busi": ("Dataset_BUSI_with_GT/normal", "Dataset_BUSI_with_GT/cyst")}  # a class's folder, and what is none
PLACES |= {"chest-xray": ("chest_xray/test/NORMAL", "chest_xray/train/COVID")}
PLACES |= {"covid19-ct": (f"{COVID}/CT_COVID", f"{COVID}/CT_Flu")}
TRAIN, METADATA = "Data-split/COVID/trainCT_COVID.txt", "NonCOVID-CT-MetaInfo.csv"
LINK = zipfile.ZipInfo("link.png")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


def read(root, slug):
    return read_release(FileTree(root), load_data_card(slug))[0]


def refused(root, slug, *words):
    with pytest.raises(InputError) as error:
        read(root, slug)
    assert [word for word in words if word not in str(error.value)] == []


def test_all_three_are_found_beside_each_other(tmp_path):
    for make in MAKERS.values():
        make(tmp_path)
    busi, chest, covid = (read(tmp_path, slug) for slug in MAKERS)
    assert Counter(busi["label"]) == {"benign": 4, "malignant": 3, "normal": 2}  # no masks
    first = {"image": "benign/benign (1).png", "label": "benign", "official_split": None, "patient": None}
    assert busi.iloc[0].to_dict() == first | {"path": "Dataset_BUSI_with_GT/benign/benign (1).png"}
    assert Counter(covid["label"] + covid["official_split"])["COVIDtrain"] == 4
    assert covid["image"][0] == "Images-processed/CT_COVID/test-p0%0.png"
    assert covid["patient"].tolist()[:2] == ["COVID test 0"] * 2
    assert Counter(chest["official_split"]) == {"train": 6, "val": 2, "test": 4}


@pytest.mark.parametrize("slug", MAKERS)
def test_the_releases_own_folder_may_be_given_and_zips_read_like_folders(tmp_path, slug):
    def found(root) -> list[list]:
        return read(root, slug)[["image", "label", "patient"]].to_numpy().tolist()

    refused(tmp_path, slug, slug, "data/README.md", str(tmp_path))  # nothing is there
    release = MAKERS[slug](tmp_path)
    unpacked = found(tmp_path)
    assert found(release) == unpacked
    renamed = release.rename(tmp_path / "renamed")
    assert found(renamed) == unpacked
    renamed.rename(release)
    if slug == "covid19-ct":  # its images are released as two zips
        for name in ("CT_COVID", "CT_NonCOVID"):
            zipped(release / "Images-processed" / name)
    archive = zipped(release)
    assert found(tmp_path) == found(archive) == unpacked


def test_deeper_copies_are_ignored_and_two_at_one_depth_refused(tmp_path):
    release = make_chest_xray(tmp_path)
    shutil.copytree(release, tmp_path / "copy")
    shutil.move(tmp_path / "copy", release / "chest_xray")
    assert len(read(tmp_path, "chest-xray")) == 12
    make_busi(tmp_path / "sets/busi")
    make_busi(tmp_path / "sets/busi/native_samples")
    assert read(tmp_path, "busi")["path"].str.startswith("sets/busi/Dataset_BUSI_with_GT/").all()
    make_busi(tmp_path / "sets/more")
    refused(tmp_path, "busi", "'sets/busi/Dataset_BUSI_with_GT' and 'sets/more/Dataset_BUSI_with_GT'")


@pytest.mark.parametrize("slug", PLACES)
def test_unknown_missing_and_empty_folders_and_other_files_are_refused(tmp_path, slug):
    folder, unknown = PLACES[slug]
    root = MAKERS[slug](tmp_path).parent
    added = {f"{unknown}/x.png": (f"unknown folder {unknown}", "expected"), f"{folder}/more/x.png": ("unknown folder",)}
    for name, words in (added | {f"{folder}/notes.txt": ("notes.txt) is none of PNG",)}).items():
        file = write(root / name, image_bytes())
        refused(root, slug, *words)
        file.unlink() if file.parent == root / folder else shutil.rmtree(file.parent)
    shutil.rmtree(root / folder)
    (root / folder).mkdir()
    refused(root, slug, f"missing or empty folder {folder}", "expected")


def test_chest_patients_are_type_and_number_and_the_official_validation_set_may_be_missing(tmp_path):
    release = make_chest_xray(tmp_path)
    shutil.rmtree(release / "val")  # the authors' own archive has none
    assert Counter(read(tmp_path, "chest-xray")["official_split"]) == {"train": 6, "test": 4}
    normal = ["IM-0500-0001.jpeg", "IM-0500-0002.jpeg", "IM-0500-0001-0002.jpeg", "NORMAL2-IM-0500-0001.jpeg"]
    ill = ["person500_virus_1.jpeg", "person500_virus_2.jpeg", "person500_bacteria_3.jpeg"]
    for name in (*normal, *ill):
        write(release / "train" / ("NORMAL" if name in normal else "PNEUMONIA") / name, image_bytes())
    table = read(tmp_path, "chest-xray")
    patients = table.set_index(table["image"].str.split("/").str[-1])["patient"]
    assert [patients[names].nunique() for names in (normal[:3], normal + ill)] == [1, 4]
    write(release / "train/NORMAL/scan 7.jpeg", image_bytes())
    refused(tmp_path, "chest-xray", "scan 7.jpeg does not contain its patient")


def test_covid_tables_are_read_whatever_their_line_ends_and_their_suffix(tmp_path):
    release = make_covid_ct(tmp_path)
    train, metadata = release / "Data-split/COVID/trainCT_COVID.txt", release / "NonCOVID-CT-MetaInfo.csv"
    train.write_text("\ufeff" + train.read_text().replace("\n", "\r\n") + "\r\n")  # of Windows, and a blank line
    metadata.rename(metadata.with_suffix(".xlsx"))  # a CSV whatever its ending
    patients = read(tmp_path, "covid19-ct")["patient"].tolist()
    assert (len(patients), patients[-1]) == (16, "NonCOVID val 0")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (TRAIN, lambda text: text + "gone%1.png\n", "gone%1.png is in CT_COVID or in the lists of COVID-CT/Data-split"),
        (TRAIN, lambda text: text + "test-p0%0.png\n", "gives 'test-p0%0.png' two values"),
        (TRAIN, lambda text: b"\xff\xfe\x00", "trainCT_COVID.txt is not a text table"),
        (TRAIN, None, "trainCT_COVID.txt is missing"),
        (METADATA, lambda text: text[: text.rindex("7,")], "test-p0%1.jpg has no patient in NonCOVID-CT-MetaInfo"),
        (METADATA, lambda text: text + "99,test-p0%1.jpg,somebody else\n", "gives 'test-p0%1.jpg' two values"),
        (METADATA, lambda text: "a,b\n1,2\n", "NonCOVID-CT-MetaInfo.csv lacks the column"),
    ],
)
def test_covid_tables_that_do_not_fit_the_images(tmp_path, name, change, words):
    file = make_covid_ct(tmp_path) / name
    write(file, change(file.read_text())) if change else file.unlink()
    refused(tmp_path, "covid19-ct", words)


def forge(path, entries):
    """A zip of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def test_the_root_may_be_a_zip_and_a_zip_may_hold_zips_but_not_too_deep(tmp_path):
    inner = forge(tmp_path / "inner.zip", [("images/x.png", b"x")]).read_bytes()
    outer = forge(tmp_path / "COVID-CT-master.ZIP", [("COVID-CT-master/Images/inner.zip", inner)])
    tree = FileTree(outer)
    assert tree.paths == ["COVID-CT-master/Images/images/x.png"]
    assert tree.read(tree.paths[0]) == b"x"
    assert tree.source(tree.paths[0]).endswith("COVID-CT-master.ZIP: COVID-CT-master/Images/inner.zip: images/x.png")
    content = inner
    for i in range(file_tree.ZIP_DEPTH):
        content = forge(tmp_path / f"{i}.zip", [(f"{i}.zip", content)]).read_bytes()
    with pytest.raises(InputError, match="unpack the outer ones"):
        _ = FileTree(tmp_path / f"{i}.zip").paths


def test_junk_is_left_out_and_of_a_file_and_its_zipped_copy_the_file_is_read(tmp_path):
    for name in (".DS_Store", "a/Thumbs.db", "__MACOSX/._x.png", ".git/config", "a/x.png", "y.png"):
        write(tmp_path / name, b"file")
    forge(tmp_path / "z.zip", [("__MACOSX/z/._y.png", b"1"), ("z/.DS_Store", b"1"), ("y.png", b"copy")])
    assert FileTree(tmp_path).paths == ["a/x.png", "y.png"]
    assert FileTree(tmp_path).read("y.png") == b"file"
    write(tmp_path / "y.png", b"longer")
    with pytest.raises(InputError, match=r"y\.png .6 bytes. and .*z\.zip: y\.png .4 bytes. differ"):
        _ = FileTree(tmp_path).paths


def patched(offset: int, value: bytes):
    """Overwrites bytes at an offset in the record of a zip's last entry."""

    def patch(content: bytes) -> bytes:
        start = content.rindex(b"PK\x01\x02") + offset
        return content[:start] + value + content[start + len(value) :]

    return patch


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        *((name, bytes, r"bad\.zip: the entry .*outside") for name in ("a/../../x", "/etc/x", "c:x", "a\\..\\..\\x")),
        (LINK, bytes, r"bad\.zip: the entry .*is a link"),
        ("x.png", patched(8, b"\x01\x00"), r"bad\.zip: the entry 'x.png' is encrypted"),
        ("x.png", patched(10, b"\x09\x00"), r"x\.png cannot be read .*unpack it with another program"),
        ("x.png", patched(24, (2**31).to_bytes(4, "little")), "the entry 'x.png' claims 2147483648 bytes"),
        ("x.png", lambda whole: whole[: len(whole) // 2], r"bad\.zip is not a zip, or a damaged one"),
        ("x.png", lambda whole: whole.replace(b"xx", b"xy", 1), r"bad\.zip: x\.png cannot be read"),
    ],
)
def test_unsafe_encrypted_absurd_and_damaged_zips_are_refused(tmp_path, name, damage, words):
    path = forge(tmp_path / "bad.zip", [(name, b"x" * 1000)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=words):
        FileTree(tmp_path).read("x.png")


def test_links_and_what_is_no_folder(tmp_path):
    root = tmp_path / "root"
    inside = write(root / "x.png", b"x")
    (root / "y.png").symlink_to(inside)
    assert FileTree(root).read("y.png") == b"x"
    (tmp_path / "linked_root").symlink_to(root)
    assert FileTree(tmp_path / "linked_root").paths == ["x.png", "y.png"]
    outside = write(tmp_path / "secret.png", b"s")
    for name, target in (("z.png", outside), ("folder", root)):
        (root / name).symlink_to(target)
        with pytest.raises(InputError, match=f"{name} is a link to a folder or outside of"):
            _ = FileTree(root).paths
        os.unlink(root / name)
    with pytest.raises(InputError, match="nowhere does not exist"):
        FileTree(tmp_path / "nowhere")
    with pytest.raises(InputError, match="give the folder"):
        _ = FileTree(outside).paths


def test_the_fingerprint_follows_the_files_and_opens_none(tmp_path):
    file = write(tmp_path / "a/x.zip", b"no zip at all")
    first = FileTree(tmp_path).fingerprint()
    assert FileTree(tmp_path).fingerprint() == first
    os.utime(file, ns=(1, 1))
    assert FileTree(tmp_path).fingerprint() != first
