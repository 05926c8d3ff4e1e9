"""Resamples of test images by patients and duplicates, and outcomes that are of exactly these images."""

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of
from simulated_rows import image_set as plain_set

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import evaluated, resamples_of_tested

LINKED = {  # train image e is of patient one, and a copy of test image c
    "patient": ["one", "one", "two", "two", "three", "one"],
    "duplicate_group": [None, None, None, None, "copy", "copy"],
}


def image_set(**changed) -> ImageSet:
    """Test images of three patients, and a train image."""
    columns = {"image": [*"fbdace"], "option": ["Normal", "Benign"] * 3, "duplicate_group": [None] * 6}
    columns |= {"patient": ["one", "one", "two", "two", "three", None], "split_paper": ["test"] * 5 + ["train"]}
    return ImageSet(load_data_card("busi"), pd.DataFrame(columns | changed), "0" * 64, {}, None)


@pytest.mark.parametrize(("changed", "together"), [({}, ["ad", "bf", "c"]), (LINKED, ["ad", "bfc"])])
def test_a_patient_is_drawn_whole_and_images_are_sorted(changed, together):
    resamples, images = resamples_of_tested(image_set(**changed), "paper")
    assert images == ["a", "b", "c", "d", "f"]
    drawn = dict(zip(images, resamples.counts.T, strict=True))
    for names in together:
        assert all((drawn[name] == drawn[names[0]]).all() for name in names)
    assert (drawn["a"] != drawn["b"]).any()
    assert (sum(drawn[names[0]] for names in together) == len(together)).all()


def test_what_has_no_interval_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"busi: its test set \(0 images\)"):
        resamples_of_tested(image_set(split_paper=["train"] * 6), "paper")
    with pytest.raises(InputError, match=r"\(5 images\) is of one patient.* add test images of others"):
        resamples_of_tested(image_set(patient=["one"] * 6), "paper")


def test_outcomes_are_read_model_by_model_and_have_to_be_of_the_test_images():
    sets = {dataset: plain_set(20) for dataset in "de"}
    selection, read = Selection(("m", "n"), ("d", "e"), "miniature", "paper"), []

    def outcomes_of(one: Selection) -> dict:
        read.append((*one.datasets, *one.models))
        return {("finetuned", "answers"): output_outcomes(answers_of(np.arange(20) < 15))}

    found = evaluated(selection, sets, outcomes_of)
    assert read == [(own.dataset, own.model) for own in found] == [("d", "m"), ("d", "n"), ("e", "m"), ("e", "n")]
    assert found[0].resamples is found[1].resamples
    assert (found[0].positive, found[0].place(stage="s")) == ("Yes", {"model": "m", "dataset": "d", "stage": "s"})
    with pytest.raises(InputError, match="m on d, finetuned, answers: its rows are not of the test images"):
        evaluated(selection, {"d": plain_set(22), "e": plain_set(20)}, outcomes_of)
