"""Resamples of test images: drawn by whole patients and duplicate groups, in the order of the images' names."""

import pandas as pd
import pytest

from mlprobe_utils.cards import load_data_card
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.errors import InputError
from mlprobe_utils.tested import resamples_of_tested


def image_set(**changed) -> ImageSet:
    """Test images of three patients, and a train image whose duplicates are of two of them."""
    columns = {
        "image": ["f", "b", "d", "a", "c", "e"],
        "option": ["Normal", "Benign", "Normal", "Benign", "Normal", "Benign"],
        "patient": ["one", "one", "two", "two", "three", None],
        "duplicate_group": [None, None, None, None, None, None],
        "split_paper": ["test", "test", "test", "test", "test", "train"],
    }
    return ImageSet(load_data_card("busi"), pd.DataFrame(columns | changed), "0" * 64, {}, None)


def test_a_patient_is_drawn_whole_and_images_are_sorted():
    resamples, images = resamples_of_tested(image_set(), "paper")
    assert images == ["a", "b", "c", "d", "f"]
    drawn = dict(zip(images, resamples.counts.T, strict=True))
    for together in ("ad", "bf"):
        assert (drawn[together[0]] == drawn[together[1]]).all()
    assert (drawn["a"] != drawn["b"]).any()
    assert (drawn["a"] != drawn["c"]).any()
    assert (drawn["a"] + drawn["b"] + drawn["c"] == 3).all()


def test_images_are_of_one_piece_through_an_image_of_another_part():
    """Train image e is of patient one, and a copy of test image c."""
    linked = image_set(
        patient=["one", "one", "two", "two", "three", "one"], duplicate_group=[None, None, None, None, "copy", "copy"]
    )
    resamples, images = resamples_of_tested(linked, "paper")
    drawn = dict(zip(images, resamples.counts.T, strict=True))
    assert (drawn["c"] == drawn["b"]).all()
    assert (drawn["c"] != drawn["a"]).any()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"split_paper": ["test"] + ["train"] * 5}, r"busi: its test set \(1 images\) is of one patient"),
        ({"split_paper": ["train"] * 6}, r"busi: its test set \(0 images\)"),
        ({"patient": ["one"] * 6}, r"busi: its test set \(5 images\) .* add test images of others"),
    ],
)
def test_what_has_no_interval_is_named_with_the_mend(changed, said):
    with pytest.raises(InputError, match=said):
        resamples_of_tested(image_set(**changed), "paper")
