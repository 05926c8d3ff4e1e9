"""Every metric equals scikit-learn's, or a slow reference, whatever the answers and probabilities."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_rows import answers_of
from sklearn import metrics as sk

from mlprobe_utils.evaluation.metrics import CALIBRATION_BINS, METRICS, collapsed, collapsed_in_words, score


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 4), st.sampled_from([1, 3, 1000]))
@pytest.mark.parametrize("averaged", [True, False])
def test_equal_to_the_library(averaged, seed, images, classes, steps):
    rng = np.random.default_rng(seed)
    options = list("ABCD"[:classes])
    truth, said = rng.integers(0, classes, images), rng.integers(-1, classes, images)
    probabilities = rng.integers(0, steps, (images, classes)) / steps  # few steps: many ties; one: nothing else
    positive = None if averaged else options[-1]
    found = score(truth, said, probabilities, options, positive)
    chosen = list(range(classes)) if averaged else [classes - 1]
    macro = {"labels": chosen, "average": "macro", "zero_division": 0}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, said, **macro)
    areas = [
        sk.roc_auc_score(truth == k, probabilities[:, k]) if 0 < (truth == k).sum() < images else np.nan for k in chosen
    ]
    known = {"accuracy": sk.accuracy_score(truth, said), "f1": f1, "precision": precision, "recall": recall}
    specificities = [sk.recall_score(truth != k, (said != k) & (said >= 0), zero_division=0) for k in chosen]
    known |= {"auc": np.mean(areas), "sensitivity": recall, "specificity": np.mean(specificities)}
    known["mcc"] = sk.matthews_corrcoef(truth, said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an answer that is no class: unparsed, or without images
        known["balanced_accuracy"] = sk.balanced_accuracy_score(truth, said)
    precisions = [sk.average_precision_score(truth == k, probabilities[:, k]) if k in truth else np.nan for k in chosen]
    known["average_precision"] = np.mean(precisions)
    known["calibration_error"] = slow_calibration_error(truth, probabilities)
    assert tuple(found) == METRICS
    assert found == pytest.approx({name: 100 * value for name, value in known.items()}, nan_ok=True)


def slow_calibration_error(truth, probabilities) -> float:
    """Bin by bin: an image's bin is what share of all images is less confident than it, in tenths."""
    images = [(max(row), float(np.argmax(row) == true)) for row, true in zip(probabilities, truth, strict=True)]
    bins = [[] for _ in range(CALIBRATION_BINS)]
    for confidence, right in images:
        lower = sum(other < confidence for other, _ in images)
        bins[CALIBRATION_BINS * lower // len(images)].append((confidence, right))
    errors = [len(own) * abs(np.mean(own, axis=0) @ [1, -1]) for own in bins if own]
    return sum(errors) / len(images)


def test_collapsed_runs_are_flagged_with_their_reason():
    fine = answers_of(np.random.default_rng(0).random(200) < 0.8)
    one, unparsed = fine.assign(run=1, parsed="Yes"), fine["parsed"].mask(fine["parsed"] == "No")
    rows = pd.concat([fine, one, fine.assign(run=2, parsed=unparsed), one.assign(stage="pretrained", run=None)])
    words = "Em on Dee, run 1 ('Yes' to 100 % of the images; never 'No'); Em on Dee, run 2 (never 'No')"
    assert collapsed_in_words(rows, {"m": "Em", "d": "Dee"}) == words
    assert collapsed_in_words(rows[rows["run"] == 0], {}) == "none"
    assert collapsed(one.drop(columns="parsed")).empty  # of a classifier the most probable option counts
    fine = fine.drop(columns="parsed")  # and a data set is judged by its own options, though others' are null there
    other = fine.rename(columns={"p_Yes": "p_A", "p_No": "p_B"}).replace({"label": {"Yes": "A", "No": "B"}})
    assert collapsed(pd.concat([fine, other.assign(dataset="e")])).empty
