"""Every metric equals scikit-learn's, or a slow reference, whatever the answers and probabilities."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from mlprobe_utils.artefacts import ROOT
from mlprobe_utils.metrics import (
    CALIBRATION_BINS,
    METRICS,
    areas_under_curve,
    average_precisions,
    calibration_error,
    score,
)


@given(
    seed=st.integers(0, 10**6), images=st.integers(2, 40), classes=st.integers(2, 4), steps=st.sampled_from([3, 1000])
)
@pytest.mark.parametrize("averaged", [True, False])
def test_equal_to_the_library(seed, images, classes, steps, averaged):
    rng = np.random.default_rng(seed)
    options = list("ABCD"[:classes])
    truth, said = rng.integers(0, classes, images), rng.integers(-1, classes, images)
    probabilities = rng.integers(0, steps, (images, classes)) / steps  # few steps: many ties
    positive = None if averaged else options[-1]
    found = score(truth, said, probabilities, options, positive)
    chosen = list(range(classes)) if averaged else [classes - 1]
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, said, labels=chosen, average="macro", zero_division=0
    )
    areas = [
        roc_auc_score(truth == k, probabilities[:, k]) if 0 < (truth == k).sum() < images else np.nan for k in chosen
    ]
    known = {"accuracy": accuracy_score(truth, said), "f1": f1, "precision": precision, "recall": recall}
    known["auc"] = np.mean(areas)
    known["sensitivity"] = recall
    specificities = [recall_score(truth != k, (said != k) & (said >= 0), zero_division=0) for k in chosen]
    known["specificity"] = np.mean(specificities)
    known["mcc"] = matthews_corrcoef(truth, said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an answer that is no class: unparsed, or without images
        known["balanced_accuracy"] = balanced_accuracy_score(truth, said)
    precisions = [average_precision_score(truth == k, probabilities[:, k]) if k in truth else np.nan for k in chosen]
    known["average_precision"] = np.mean(precisions)
    known["calibration_error"] = slow_calibration_error(truth, probabilities)
    assert tuple(found) == METRICS
    assert found == pytest.approx({name: 100 * value for name, value in known.items()}, nan_ok=True)


def test_area_is_half_where_all_are_tied():
    assert areas_under_curve(np.array([0, 1, 1]), np.full((3, 2), 0.5)).tolist() == [0.5, 0.5]


def slow_calibration_error(truth, probabilities) -> float:
    """Bin by bin: an image's bin is what share of all images is less confident than it, in tenths."""
    images = [(max(row), float(np.argmax(row) == true)) for row, true in zip(probabilities, truth, strict=True)]
    bins = [[] for _ in range(CALIBRATION_BINS)]
    for confidence, right in images:
        lower = sum(other < confidence for other, _ in images)
        bins[CALIBRATION_BINS * lower // len(images)].append((confidence, right))
    errors = [len(own) * abs(np.mean(own, axis=0) @ [1, -1]) for own in bins if own]
    return sum(errors) / len(images)


@given(seed=st.integers(0, 10**6), steps=st.sampled_from([3, 1000]))
def test_no_metric_depends_on_the_order_of_the_images(seed, steps):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, 3, 30), rng.integers(-1, 3, 30)
    probabilities, order = rng.integers(0, steps, (30, 3)) / steps, rng.permutation(30)
    options = list("ABC")
    found = score(truth[order], said[order], probabilities[order], options, "C")
    assert found == pytest.approx(score(truth, said, probabilities, options, "C"), nan_ok=True)


def test_calibration_error_of_planted_probabilities():
    """Right as often as said: chance alone is left. Said too high by 20 points: 20 points, and no metric else moves."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 0.8, 100_000)
    truth = (rng.uniform(size=100_000) > confidence).astype(int)  # option 0 is named, and right with that probability
    honest, boastful = (np.stack([c, 1 - c], axis=1) for c in (confidence, confidence + 0.2))
    assert calibration_error(truth, honest) < 0.01
    assert calibration_error(truth, boastful) == pytest.approx(0.2, abs=0.01)


def test_bins_hold_equally_many_images():
    """Wrong on the least confident tenth alone, and as confident there as anywhere: a tenth of the error."""
    confidence = np.linspace(0.9, 0.9001, 100)
    truth = np.where(np.arange(100) < 10, 1, 0)
    error = calibration_error(truth, np.stack([confidence, 1 - confidence], axis=1))
    assert error == pytest.approx(0.1 * 0.9 + 0.9 * 0.1, abs=1e-3)


def test_always_naming_the_frequent_class_earns_accuracy_and_nothing_else():
    truth, said = np.array([0] * 8 + [1] * 2), np.zeros(10, int)
    found = score(truth, said, np.full((10, 2), 0.5), ["No", "Yes"], "Yes")
    wanted = {"accuracy": 80, "balanced_accuracy": 50, "sensitivity": 0, "specificity": 100, "mcc": 0}
    assert {name: found[name] for name in wanted} == wanted
    assert found["average_precision"] == pytest.approx(20)


def test_an_unparsed_answer_lowers_sensitivity_and_specificity_alike():
    truth, said = np.array([0, 0, 1, 1]), np.array([0, -1, 1, -1])
    found = score(truth, said, np.full((4, 2), 0.5), ["No", "Yes"], "Yes")
    assert (found["sensitivity"], found["specificity"], found["balanced_accuracy"]) == (50, 50, 50)


def test_an_option_without_images_has_no_area():
    truth, probabilities = np.array([0, 1, 1]), np.full((3, 3), 1 / 3)
    assert np.isnan(average_precisions(truth, probabilities)).tolist() == [False, False, True]
    assert np.isnan(areas_under_curve(truth, probabilities)).tolist() == [False, False, True]


def test_the_glossary_names_every_metric():
    glossary = (ROOT / "book" / "glossary.md").read_text()
    assert not [name for name in METRICS if f"`{name}`" not in glossary]
