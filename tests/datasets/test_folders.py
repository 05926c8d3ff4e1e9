"""Own images: folders, tables, arrays and lists as people have them, their splits, and what is refused."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from made_releases import encoded, image_bytes, write
from PIL import Image

import mlprobe_utils as mp
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.manifest import write_manifest
from mlprobe_utils.pipeline.cards import DataCard, load_protocol

NOISE = [np.full((2, 2), number, np.uint8) for number in range(6)]
LABELS, PARTS = list("ababab"), ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def draw(folder, *files):
    """Pictures of different content, one a path."""
    for number, file in enumerate(files):
        write(folder / file, encoded(Image.fromarray(np.full((4, 6), number, np.uint8))))
    return folder


def of_each(count, *folders):
    return [f"{folder}/{label}/{number}.png" for folder in folders for label in "ab" for number in range(count)]


FOUR = of_each(2, ".")


def test_classes_are_split_by_label_whatever_the_order_of_files(tmp_path):
    images = mp.image_folder(draw(tmp_path, *of_each(20, "."), ".DS_Store/x.png"))
    counts = images.table.groupby(["split", "label"]).size()
    assert counts["test"].tolist() == [4, 4]
    assert counts["validation"].between(2, 3).all()
    paths = [tmp_path / name for name in images.names]
    split = images.table.set_index("image")["split"]
    again = mp.image_list(paths[::-1], images.table["label"][::-1].tolist(), names=images.names[::-1])
    pd.testing.assert_series_equal(again.table.set_index("image")["split"][::-1], split)
    other = mp.image_folder(tmp_path, seed=1)
    assert not other.table["split"].equals(images.table["split"])


def test_splits_that_are_given_stay_and_validation_comes_out_of_train(tmp_path):
    images = mp.image_folder(draw(tmp_path, *of_each(8, "Train", "test")), validation_fraction=0.25)
    given = images.table["image"].str.split("/").str[0]
    assert (images.table["split"][given == "test"] == "test").all()
    assert images.table["split"][given == "Train"].value_counts().to_dict() == {"train": 12, "validation": 4}
    assert images.split_drawn.startswith("test: as given; validation: drawn, 0.25 of 16 images")
    assert [len(images), images[3].shape, images[3].dtype, images.sizes[0]] == [32, (4, 6, 3), np.uint8, (4, 6)]


def test_patients_and_copies_stay_together():
    pictures = [np.full((2, 2), number // 2, np.uint8) for number in range(80)]  # every picture twice
    patients = [f"p{number // 8}" if number < 40 else None for number in range(80)]
    images = mp.image_list(pictures, ["a", "b"] * 40, patients=patients, accept=["patients", "copies"])
    assert images.table.groupby("patient")["split"].nunique().max() == 1
    splits = images.table["split"].to_numpy().reshape(40, 2)
    assert (splits[:, 0] == splits[:, 1]).all()
    assert images.clusters[0] == images.clusters[7] != images.clusters[8]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_says_what_it_knows_and_folders_the_rest(suffix, tmp_path):
    files = [f"scans/{number}.png" for number in range(6)]
    draw(tmp_path, *files)
    table = pd.DataFrame({"path": files, "kind": ["a", "b"] * 3, "patient": [0, 0, 1, 1, None, None]})
    given = ["train", "train", "valid", "valid", "TEST", "TEST"]
    table = table.assign(label="of something else", split=given).astype({"patient": "Int64"})
    save = {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[suffix]
    options = {"orient": "records", "lines": True} if suffix == "jsonl" else {"index": False}
    save(tmp_path / f"metadata.{suffix}", **options)
    draw(tmp_path, "scans/0_mask.png")
    columns = {"file_name": "path", "label": "kind"}
    images = mp.image_folder(tmp_path, columns=columns, leave_out="*_mask*", accept=["patients"])
    assert images.table["split"].tolist() == PARTS
    assert images.table["patient"].dropna().tolist() == list("0011")


def test_a_table_of_patients_goes_with_folders_of_classes_and_splits(tmp_path):
    draw(tmp_path, *(files := of_each(16, "train", "test")))
    for split in ("train", "test"):  # as Hugging Face has it: one a split, which names files relative to itself
        own = [file.removeprefix(f"{split}/") for file in files if file.startswith(split)]
        patients = [f"{split} {own[0]}{number // 2}" for number, own in enumerate(own)]
        pd.DataFrame({"file_name": own, "patient": patients}).to_csv(tmp_path / split / "metadata.csv", index=False)
    images = mp.image_folder(tmp_path).table
    assert (images["label"] == images["image"].str.split("/").str[1]).all()
    assert (images["split"][images["image"].str.startswith("test")] == "test").all()
    assert images.groupby("patient")["split"].nunique().tolist() == [1] * 32


@pytest.mark.parametrize(
    ("files", "table", "words"),
    [
        (FOUR, "file_name\nb/1.png\nb/9.png\n", r"1 file \(b/9.png\) is listed but missing, 3 files \(.*\) are not l"),
        (FOUR, "file_name\nb/1.png\nb/1.png\n", r"1 file \(b/1.png\) is listed twice"),
        (FOUR, "name,label\nb/1.png,b\n", "has no column 'file_name', it has name, label"),
        (FOUR, "file_name,label\nb/1.png,b\n,b\n", "rows without file_name"),
        (FOUR, "file_name,label\na/0.png,a\na/1.png,\nb/0.png,b\nb/1.png,\n", "2 images .*without a label"),
        (FOUR, '{"file_name": ', "not a table of images"),
        ([], None, "holds no images"),
        (["a/1.png", "a/notes.txt", "b/x.gif"], None, r"2 files \(a/notes.txt, b/x.gif\) are none of PNG, JPEG, TIFF"),
        (["a/1.png", "2.png"], None, r"1 file \(2.png\) is outside the class folders"),
        (["train/a/1.png", "extra/a/2.png"], None, "'extra' is beside 'train'"),
        (["train/1.png"], None, r"1 file \(train/1.png\) is outside the class folders"),
    ],
)
def test_folders_and_tables_that_are_wrong(files, table, words, tmp_path):
    draw(tmp_path, *files)
    if table:
        write(tmp_path / f"metadata.{'jsonl' if table.startswith('{') else 'csv'}", table)
    with pytest.raises(InputError, match=words):
        mp.image_folder(tmp_path)


def card_of(*labels, **fields):
    classes = [{"name": label, "option": f"kind {label}"} for label in labels]
    template = f"<image> Is it {' or '.join(own['option'] for own in classes)}?"
    return DataCard(slug="scans", name="Scans", classes=classes, template=template, licence="x", **fields)


def manifest_of(root, card, place):
    """The manifest and report of a card's images, from the protocol `miniature`."""
    protocol = load_protocol("miniature")
    place.mkdir(exist_ok=True)
    write_manifest(FileTree(root), card, protocol.images, protocol.splits, place)
    return pd.read_parquet(place / "manifest.parquet"), json.loads((place / "report.json").read_text())


def test_a_card_of_five_lines_has_splits_by_patient_and_the_page_says_what_was_left_out(tmp_path):
    labels = [unicodedata.normalize("NFD", "bösartig"), "gutartig"]  # as macOS writes the first
    rows = []
    for label in labels:
        for number in range(60):
            write(tmp_path / f"raw/{label}/{number}.png", image_bytes(len(rows)))
            write(tmp_path / f"raw/{label}/{number}_mask.png", b"no image")
            rows.append({"file_name": f"{label}/{number}.png", "patient": f"{label}{number // 3}"})
    pd.DataFrame(rows).to_csv(tmp_path / "raw/metadata.csv", index=False)
    card = card_of("bösartig", "gutartig", leave_out=["*_mask*"])
    table, report = manifest_of(tmp_path / "raw", card, tmp_path / "made")
    assert table["label"].value_counts().to_dict() == {"bösartig": 60, "gutartig": 60}
    assert report["left_out"] == {"*_mask*": 120}
    assert report["splits"].startswith("test: drawn, 0.2 of 120 images; validation: drawn, ")
    assert table["split_paper"].equals(table["split_clean"])
    assert table.groupby("patient")["split_paper"].nunique().max() == 1
    share = (table["split_paper"] == "test").groupby(table["label"]).mean()
    assert share.between(0.15, 0.25).all()
    again, _ = manifest_of(tmp_path / "raw", card, tmp_path / "made")
    pd.testing.assert_frame_equal(again, table)


def test_splits_that_are_given_stay_and_clean_keeps_what_is_linked_in_one(tmp_path):
    files = [f"{split}/{label}/{n}.png" for split in ("train", "val", "test") for label in "ab" for n in range(20)]
    for number, file in enumerate(files):
        write(tmp_path / "raw" / file, image_bytes(number))
    write(tmp_path / "raw/train/a/0.png", image_bytes(files.index("test/a/3.png")))
    write(tmp_path / "raw/val/b/0.png", image_bytes(files.index("val/a/5.png")))
    with pytest.raises(InputError, match=r"4 files are 2 pictures.*2 of them in several classes or splits \("):
        manifest_of(tmp_path / "raw", card_of(*"ab"), tmp_path / "made")
    table, report = manifest_of(tmp_path / "raw", card_of(*"ab", accept=["copies"]), tmp_path / "made")
    assert report["splits"] == "test: as given; validation: as given"
    given = table["image"].str.split("/").str[0].replace("val", "validation")
    assert (table["split_paper"] == given).all()
    unused = ["train/a/0.png", "val/a/5.png", "val/b/0.png"]
    assert sorted(table["image"][table["split_clean"] == "unused"]) == unused
    assert (table["split_clean"] == given)[~table["image"].isin(unused)].all()


def test_twenty_classes_of_a_medmnist_file(tmp_path):
    arrays = {}
    for seed, (split, count) in enumerate({"train": 200, "val": 40, "test": 60}.items()):
        coarse = np.random.default_rng(seed).integers(0, 256, (count, 7, 7), dtype=np.uint8)
        arrays[f"{split}_images"] = coarse.repeat(4, 1).repeat(4, 2)
        arrays[f"{split}_labels"] = np.arange(count).reshape(-1, 1) % 20
    np.savez_compressed(tmp_path / "mnist.npz", **arrays)
    card = card_of(*map(str, range(20)))
    table, report = manifest_of(tmp_path / "mnist.npz", card, tmp_path / "made")
    assert table["official_split"].value_counts().to_dict() == {"train": 200, "val": 40, "test": 60}
    assert report["found"]["test"] == dict.fromkeys(sorted(map(str, range(20))), 3)
    pixels = np.fromfile(tmp_path / "made/pixels.bin", np.uint8).reshape(-1, 64, 64, 3)
    assert len(pixels) == 300
    images = mp.image_folder(tmp_path / "mnist.npz")
    picture = images[images.names.index("val/7/000027.png")]
    np.testing.assert_array_equal(picture[..., 0], arrays["val_images"][27])
    for changed, words in (
        ({"val_labels": np.zeros((40, 14))}, r"val_labels is \[40, 14\], expected one label"),
        ({"val_images": np.zeros((40, 28, 28, 28), np.uint8)}, r"val_images is uint8 \[40, 28, 28, 28\]"),
        ({"val_images": np.array([{}])}, "not a file of plain arrays"),
    ):
        np.savez(tmp_path / "wrong.npz", **arrays | changed)
        with pytest.raises(InputError, match=words):
            mp.image_folder(tmp_path / "wrong.npz")


@pytest.mark.parametrize(
    ("files", "fields", "words"),
    [
        ({"c/0.png": 99}, {}, r"does not declare: 'c' \(1 images\): add them to classes"),
        ({}, {"classes": "abc"}, "no image has the label 'c'"),
        ({"a/x.png": 0}, {}, r"2 files are 1 pictures, byte by byte \(a/0.png and a/x.png\)"),
        ({"a/x.png": b"", "b/x.png": b"", "b/y.png": b"text"}, {}, r"3 of 63 images cannot be read.*a/x.png is empty"),
        ({"a/notes.txt": b""}, {}, r"1 file \(a/notes.txt\) is none of PNG"),
        ({"metadata.csv": "x"}, {"columns": {"patient": "subject"}}, "has no column 'subject'"),
        ({"metadata.csv": "p"}, {}, r"of several classes: 1 \(patient p: a and b\)"),
    ],
)
def test_what_does_not_fit_the_card(files, fields, words, tmp_path):
    names = of_each(30, ".")
    for number, file in enumerate(names):
        write(tmp_path / "raw" / file, image_bytes(number))
    for name, content in files.items():
        if name == "metadata.csv":
            rows = {"file_name": [file.removeprefix("./") for file in names], "patient": content}
            content = pd.DataFrame(rows).to_csv(index=False)
        write(tmp_path / "raw" / name, image_bytes(content) if isinstance(content, int) else content)
    with pytest.raises(InputError, match=words):
        manifest_of(tmp_path / "raw", card_of(*fields.pop("classes", "ab"), **fields), tmp_path / "made")


def test_pictures_of_every_kind(tmp_path):
    draw(tmp_path, "x.png")
    deep = Image.fromarray(np.full((40, 20), 65535, np.uint16))
    images = mp.image_list([tmp_path / "x.png", deep, np.ones((3, 5, 3), np.uint8)])
    assert [image.shape for image in images] == [(4, 6, 3), (40, 20, 3), (3, 5, 3)]
    assert (images[1].max(), images.names) == (255, ["x.png", "00001", "00002"])
    assert images.split_drawn == "no labels: all are test images"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": list("ababac")}, "no image of split 'train' has the label 'c'"),
        ({"labels": LABELS[:5]}, "6 images, but 5 of `label`"),
        ({"labels": [*LABELS[:5], None]}, "image 00005 has no label"),
        ({"splits": [*PARTS[:5], "hold-out"]}, "unknown split 'hold-out'.*test, train, validation"),
        ({"splits": ["train", *PARTS[1:3], "train", "test", "test"]}, "split 'validation' has the label 'b'"),
        ({"accept": ["copy"]}, "unknown value of accept 'copy'.*copies, patients"),
        ({"patients": list("012304")}, r"of several splits: 1 \(patient 0: test and train\)"),
        ({"splits": None}, "too few images of class 'a' to set a test split aside"),
        ({"test_fraction": 0}, "test_fraction is 0: give a share"),
        ({"names": list("abcdea")}, "two images are named a"),
        ({"pictures": [*NOISE[:5], np.zeros((2, 2))]}, r"image 00005 is float64 \[2, 2\]"),
        ({"pictures": [*NOISE[:5], "nowhere.png"]}, "there is no image nowhere.png"),
    ],
)
def test_lists_that_are_wrong(changed, words):
    given = {"pictures": NOISE, "labels": LABELS, "splits": PARTS} | changed
    with pytest.raises(InputError, match=words):
        mp.image_list(**given)
