"""Own images: folders and lists as people have them, their splits, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from made_releases import encoded, write
from PIL import Image

import mlprobe_utils as mp
from mlprobe_utils.common.errors import InputError


def draw(folder, *files):
    """Pictures of different content, one a path."""
    for number, file in enumerate(files):
        write(folder / file, encoded(Image.fromarray(np.full((4, 6), number, np.uint8))))
    return folder


def of_each(count, *folders):
    return [f"{folder}/{label}/{number}.png" for folder in folders for label in "ab" for number in range(count)]


def test_classes_are_split_by_label_whatever_the_order_of_files(tmp_path):
    images = mp.image_folder(draw(tmp_path, *of_each(20, "."), ".DS_Store/x.png"))
    counts = images.table.groupby(["split", "label"]).size()
    assert counts["test"].tolist() == [4, 4]
    assert counts["validation"].between(2, 3).all()
    paths = [tmp_path / name for name in images.names]
    split = images.table.set_index("image")["split"]
    again = mp.image_list(paths[::-1], images.table["label"][::-1], names=images.names[::-1])
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
    images = mp.image_list(pictures, ["a", "b"] * 40, patients=patients)
    assert images.table.groupby("patient")["split"].nunique().max() == 1
    splits = images.table["split"].to_numpy().reshape(40, 2)
    assert (splits[:, 0] == splits[:, 1]).all()
    assert images.clusters[0] == images.clusters[7] != images.clusters[8]


def test_metadata_names_labels_splits_and_patients(tmp_path):
    files = [f"scans/{number}.png" for number in range(6)]
    draw(tmp_path, *files)
    table = pd.DataFrame({"file_name": files, "label": ["a", "b"] * 3, "patient": list("001122")})
    table = table.assign(split=["train", "train", "valid", "valid", "TEST", "TEST"])
    table.to_csv(tmp_path / "metadata.csv", index=False)
    images = mp.image_folder(tmp_path)
    assert images.table["split"].tolist() == PARTS
    assert images.table["patient"].tolist() == list("001122")
    wrong = {r"scans/0.png is not in metadata.csv": table[1:], "has no column 'label'": table.drop(columns="label")}
    for words, own in wrong.items():
        own.to_csv(tmp_path / "metadata.csv", index=False)
        with pytest.raises(InputError, match=words):
            mp.image_folder(tmp_path)


def test_pictures_of_every_kind(tmp_path):
    draw(tmp_path, "x.png")
    deep = Image.fromarray(np.full((40, 20), 65535, np.uint16))
    images = mp.image_list([tmp_path / "x.png", deep, np.ones((3, 5, 3), np.uint8)])
    assert [image.shape for image in images] == [(4, 6, 3), (40, 20, 3), (3, 5, 3)]
    assert images[1].max() == 255
    assert images.names == ["x.png", "00001", "00002"]
    assert images.split_drawn == "no labels: all are test images"


NOISE = [np.full((2, 2), number, np.uint8) for number in range(6)]
LABELS, PARTS = list("ababab"), ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": list("ababac")}, "no image of split 'train' has the label 'c'"),
        ({"labels": LABELS[:5]}, "6 images, but 5 of `label`"),
        ({"labels": [*LABELS[:5], None]}, "image 00005 has no label"),
        ({"splits": [*PARTS[:5], "hold-out"]}, "unknown split 'hold-out'.*test, train, validation"),
        ({"splits": ["train", *PARTS[1:3], "train", "test", "test"]}, "split 'validation' has the label 'b'"),
        ({"patients": list("012304")}, "patient 0 is in the splits train and test"),
        ({"splits": None}, "too few images of class 'a' to set a test split aside"),
        ({"test_fraction": 0}, "test_fraction is 0: give a share"),
        ({"names": list("abcdea")}, "two images are called a"),
        ({"pictures": [*NOISE[:5], np.zeros((2, 2))]}, r"image 00005 is float64 \[2, 2\]"),
        ({"pictures": [*NOISE[:5], "nowhere.png"]}, "there is no image nowhere.png"),
    ],
)
def test_lists_that_are_wrong(changed, words):
    given = {"pictures": NOISE, "labels": LABELS, "splits": PARTS} | changed
    with pytest.raises(InputError, match=words):
        mp.image_list(**given)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no images"),
        (["a/1.png", "a/notes.txt", "b/x.gif"], r"a/notes.txt and 1 more files are none of PNG, JPEG, TIFF"),
        (["a/1.png", "2.png"], "2.png is in no folder of a class"),
        (["train/a/1.png", "extra/a/2.png"], "'extra' lies beside 'train'"),
        (["train/1.png"], "train/1.png is in no folder of a class"),
    ],
)
def test_folders_that_are_wrong(files, words, tmp_path):
    for file in files:
        write(tmp_path / file, b"")
    with pytest.raises(InputError, match=words):
        mp.image_folder(tmp_path)
