"""The readout: finds a class that the scores hold under other names, and nothing in scores that hold none."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from mlprobe_utils.analysis.diagnosis_tables import readout_rows
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows, predicted_option

OPTIONS = ["Normal", "Benign", "Malignant"]
COLUMNS = [f"p_{option}" for option in OPTIONS]
VALIDATION, TEST = 60, 300
TRUTH = np.random.default_rng(0).integers(0, 3, VALIDATION + TEST)
NOISE = np.random.default_rng(1).normal(size=(len(TRUTH), 3))
SCORES = 5 * np.eye(3)[TRUTH] + 1.5 * NOISE  # of 97 in 100 images the true class has the highest


def answered(scores: np.ndarray, truth: np.ndarray = TRUTH, options=OPTIONS, **constants) -> pd.DataFrame:
    """Rows of answers with these scores, [images, options]; the first images validate."""
    images = pd.DataFrame({"image": [f"{i}.png" for i in range(len(truth))], "option": np.array(options)[truth]})
    images["split"] = np.where(np.arange(len(truth)) < VALIDATION, "validation", "test")
    fixed = {"model": "m", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
    constants = fixed | {"stage": "finetuned", "run": 0} | constants
    rows = image_rows(images, options, softmax(scores, axis=1), **constants)
    return rows.assign(text="", parsed=predicted_option(rows))


def accuracy(rows: pd.DataFrame) -> float:
    own = rows[rows["split"] == "test"]
    return (predicted_option(own) == own["label"]).mean()


def test_what_the_scores_hold_is_found_and_nothing_in_random_ones():
    swapped = answered(SCORES[:, [1, 2, 0]])
    read = SCHEMA.validate(readout_rows(swapped))
    assert accuracy(swapped) < 0.05
    assert set(read["probe"]) == {"readout"}
    assert list(read["image"]) == list(swapped.loc[swapped["split"] == "test", "image"])
    always_benign = answered(SCORES + np.array([0, 30, 0]))
    certain = answered(400 * SCORES)  # a probability of 0 has a finite score
    assert (certain[COLUMNS] == 0).any(axis=None)
    for rows in (swapped, always_benign, certain):
        assert accuracy(readout_rows(rows)) > 0.9
    assert accuracy(readout_rows(answered(SCORES))) > accuracy(answered(SCORES)) - 0.03
    assert accuracy(readout_rows(answered(NOISE))) < 0.45


def test_test_images_are_not_fitted_on():
    other = np.where(np.arange(len(TRUTH)) < VALIDATION, TRUTH, (TRUTH + 1) % 3)
    first, second = (readout_rows(answered(SCORES, labels)) for labels in (TRUTH, other))
    np.testing.assert_array_equal(first[COLUMNS], second[COLUMNS])


def test_every_state_is_fitted_by_itself():
    """Two runs, of which one has its options swapped, the pretrained model and another data set with other options."""
    parts = [
        answered(SCORES),
        answered(SCORES[:, [2, 0, 1]], run=1),
        answered(0 * SCORES, stage="pretrained", run=None),
        answered(SCORES[:, :2], np.minimum(TRUTH, 1), ["Yes", "No"], dataset="covid19-ct"),
    ]
    read, keys = SCHEMA.validate(readout_rows(pd.concat(parts, ignore_index=True))), ["dataset", "stage", "run"]
    assert len(read) == 4 * TEST
    for alone in map(readout_rows, parts):
        same = read.merge(alone[keys].drop_duplicates().astype({"run": "Int64"}), on=keys)
        columns = [column for column in alone if column.startswith("p_")]
        np.testing.assert_array_equal(same[columns].to_numpy(), alone[columns].to_numpy())
    assert read.loc[read["dataset"] == "busi", ["p_Yes", "p_No"]].isna().all(axis=None)


def test_validation_images_of_one_class_are_an_error():
    rows = answered(SCORES)
    with pytest.raises(InputError, match=r"m on busi: .* several classes, found 1: raise validation_fraction"):
        readout_rows(rows[(rows["split"] == "test") | (rows["label"] == "Benign")])
