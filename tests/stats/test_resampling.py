"""Resamples of whole clusters and the accuracy in them: as drawn one by one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import components
from mlprobe_utils.stats.resampling import accuracy, resample

DRAWN = resample(np.arange(60), resamples=10)
RIGHT = np.random.default_rng(0).random((2, 60)) < 0.5


def test_equal_to_drawing_clusters_one_by_one():
    rng = np.random.default_rng(0)
    clusters, right = rng.integers(0, 12, 40), rng.random((5, 3, 40)) < 0.7
    found = accuracy(right, resample(clusters, resamples=50, seed=1))
    drawing, names = np.random.default_rng(1), np.unique(clusters)
    for row in found.resampled:
        drawn = drawing.choice(names, len(names))
        images = np.concatenate([np.flatnonzero(clusters == cluster) for cluster in drawn])
        assert row == pytest.approx(100 * right[..., images].mean(axis=-1))
    assert found.values == pytest.approx(100 * right.mean(axis=-1))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 25))
def test_components_are_what_is_linked_through_patients_or_copies(seed, images):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, images, (images, 2)), columns=["patient", "duplicate_group"])
    table = table.astype(object).mask(rng.random(table.shape) < 0.5)
    found = components(table)
    for image in range(images):
        reached, before = {image}, set()
        while reached != before:
            before = set(reached)
            for column in table:
                reached |= set(np.flatnonzero(table[column].isin(table[column].iloc[[*before]].dropna())))
        assert set(np.flatnonzero(found == found[image])) == reached


def test_unequal_clusters_count_for_less():
    right = np.ones((1, 12), dtype=bool)
    for clusters, number in ((np.arange(12), 12), (np.arange(12) // 3, 4), (np.array([0] * 10 + [1, 2]), 144 / 102)):
        assert accuracy(right, resample(clusters)).clusters == pytest.approx(number)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: resample(np.array([7] * 9)), "add images of other patients"),
        (lambda: accuracy(RIGHT.astype(float), DRAWN), r"correct must be bool .*, found float64 \(2, 60\)"),
        (lambda: accuracy(RIGHT[:, 1:], DRAWN), r"correct must be bool \[points, 60 images\]"),
        (lambda: accuracy(RIGHT, DRAWN) - accuracy(RIGHT, resample(np.arange(60), 10, 1)), "on the same resamples"),
        (lambda: accuracy(RIGHT, DRAWN) - accuracy(RIGHT[:1], DRAWN), r"not paired: values are \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_refused(wrong, said):
    with pytest.raises((InputError, ValueError), match=said):
        wrong()
