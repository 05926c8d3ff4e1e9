"""The readout: finds a class that the scores hold under other names, and nothing in scores that hold none."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from mlprobe_utils.analysis.misalignment import readout_rows
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows, predicted_option

OPTIONS = ["Normal", "Benign", "Malignant"]
VALIDATION, TEST = 60, 300


def answered(scores: np.ndarray, truth: np.ndarray, options=OPTIONS, **constants) -> pd.DataFrame:
    """Rows of answers with these scores, [images, options]; the first images validate."""
    images = pd.DataFrame({"image": [f"{i}.png" for i in range(len(truth))], "option": np.array(options)[truth]})
    images["split"] = np.where(np.arange(len(truth)) < VALIDATION, "validation", "test")
    chances = softmax(scores, axis=1)
    fixed = {"model": "m", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
    rows = image_rows(images, options, chances, **fixed | {"stage": "finetuned", "run": 0} | constants)
    return rows.assign(text="", parsed=predicted_option(rows))


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell 97 of 100 classes, and the classes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, VALIDATION + TEST)
    return 5 * np.eye(3)[truth] + 1.5 * rng.normal(size=(len(truth), 3)), truth


def accuracy(rows: pd.DataFrame) -> float:
    own = rows[rows["split"] == "test"]
    return (predicted_option(own) == own["label"]).mean()


def test_swapped_options_are_recovered(planted):
    scores, truth = planted
    rows = answered(scores[:, [1, 2, 0]], truth)
    read = SCHEMA.validate(readout_rows(rows))
    assert accuracy(rows) < 0.05
    assert accuracy(read) > 0.9
    assert set(read["probe"]) == {"readout"}
    assert read["point"].isna().all()
    assert list(read["image"]) == list(rows.loc[rows["split"] == "test", "image"])
    np.testing.assert_allclose(read[[f"p_{option}" for option in OPTIONS]].sum(axis=1), 1)


def test_what_the_scores_hold_is_found_and_nothing_in_random_ones(planted):
    scores, truth = planted
    always_benign = answered(scores + np.array([0, 30, 0]), truth)
    assert accuracy(always_benign) == pytest.approx((truth[VALIDATION:] == 1).mean())
    assert accuracy(readout_rows(always_benign)) > 0.9
    certain = answered(400 * scores, truth)  # a probability of nothing has a finite score
    assert (certain[[f"p_{option}" for option in OPTIONS]] == 0).any(axis=None)
    assert accuracy(readout_rows(certain)) > 0.9
    assert accuracy(readout_rows(answered(scores, truth))) > accuracy(answered(scores, truth)) - 0.03
    nothing = np.random.default_rng(1).normal(size=scores.shape)
    assert accuracy(readout_rows(answered(nothing, truth))) < 0.45


def test_test_images_are_not_fitted_on(planted):
    scores, truth = planted
    other = np.where(np.arange(len(truth)) < VALIDATION, truth, (truth + 1) % 3)
    columns = [f"p_{option}" for option in OPTIONS]
    first, second = (readout_rows(answered(scores, labels)) for labels in (truth, other))
    np.testing.assert_array_equal(first[columns], second[columns])


def test_every_state_is_read_by_itself(planted):
    """Two runs, of which one has its options swapped, the pretrained model and another data set with other options."""
    scores, truth = planted
    two = answered(scores[:, :2], np.minimum(truth, 1), ["Yes", "No"], dataset="covid19-ct")
    parts = [
        answered(scores, truth),
        answered(scores[:, [2, 0, 1]], truth, run=1),
        answered(0 * scores, truth, stage="pretrained", run=None),
        two,
    ]
    read = SCHEMA.validate(readout_rows(pd.concat(parts, ignore_index=True)))
    assert len(read) == 4 * TEST
    for rows in parts:
        own = rows[rows["split"] == "test"]
        alone = readout_rows(rows)
        keys = ["dataset", "stage", "run"]
        same = read.merge(own[keys].drop_duplicates().astype({"run": "Int64"}), on=keys)
        columns = [column for column in alone if column.startswith("p_")]
        np.testing.assert_array_equal(same[columns].to_numpy(), alone[columns].to_numpy())
    assert read.loc[read["dataset"] == "busi", ["p_Yes", "p_No"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda rows: rows[(rows["split"] == "test") | (rows["label"] == "Benign")],
         r"m on busi: .* several classes, found 1: raise validation_fraction"),
        (lambda rows: rows[rows["split"] == "test"], "found 0"),
        (lambda rows: rows.assign(p_Benign=rows["p_Benign"].where(rows.index != 3)), "m on busi: an option without a"),
        (lambda rows: rows[rows["split"] == "validation"], "m on busi: no test images"),
    ],
)  # fmt: skip
def test_validation_images_of_one_class_or_no_test_images_are_errors(planted, wrong, words):
    with pytest.raises(InputError, match=words):
        readout_rows(wrong(answered(*planted)))
