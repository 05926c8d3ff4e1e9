"""The five metrics equal scikit-learn's, whatever the answers and probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from mlprobe_utils.metrics import areas_under_curve, score


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
    assert found == pytest.approx({name: 100 * value for name, value in known.items()}, nan_ok=True)


def test_area_is_half_where_all_are_tied():
    assert areas_under_curve(np.array([0, 1, 1]), np.full((3, 2), 0.5)).tolist() == [0.5, 0.5]
