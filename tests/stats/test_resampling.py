"""Resamples of whole clusters and the statistics in them: as drawn one by one, and as metrics of what was drawn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import components
from mlprobe_utils.evaluation.metrics import score
from mlprobe_utils.stats.resampling import RESAMPLED, accuracy, metric, resample

OPTIONS = ["a", "b", "c"]


def answers(images: int, seed: int = 0, points: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """truth [images], said [points, images] and probabilities [points, images, options] of some answers."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 6, (points, images, len(OPTIONS))) / 5  # few values: many ties
    return rng.integers(0, len(OPTIONS), images), rng.integers(-1, len(OPTIONS), (points, images)), probabilities


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


@pytest.mark.parametrize("name", RESAMPLED)
@pytest.mark.parametrize("positive", [None, "b"])
def test_metrics_equal_those_of_the_images_drawn(name, positive):
    truth, said, probabilities = answers(60)
    drawn = resample(np.arange(60) // 2, resamples=8)
    found = metric(name, truth, said, probabilities, OPTIONS, positive, drawn)
    for counts, row in zip([np.ones(60, dtype=int), *drawn.counts], [found.values, *found.resampled], strict=True):
        images = np.repeat(np.arange(60), counts)
        for point in range(2):
            scores = score(truth[images], said[point, images], probabilities[point, images], OPTIONS, positive)
            assert row[point] == pytest.approx(scores[name])


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


def test_unequal_clusters_count_for_less_and_a_mean_over_classes_rests_on_the_small_ones():
    right = np.ones((1, 12), dtype=bool)
    for clusters, number in ((np.arange(12), 12), (np.arange(12) // 3, 4), (np.array([0] * 10 + [1, 2]), 144 / 102)):
        assert accuracy(right, resample(clusters)).clusters == pytest.approx(number)
    truth, drawn = np.repeat([0, 1, 2], [24, 84, 42]), resample(np.arange(150))
    mean, of_one = (metric("recall", truth, truth[None], np.zeros((1, 150, 3)), OPTIONS, positive, drawn)
                    for positive in (None, "a"))  # fmt: skip
    assert mean.clusters == pytest.approx(9 / (1 / 24 + 1 / 84 + 1 / 42))
    assert of_one.clusters == 24


@pytest.mark.parametrize(
    ("having", "clusters", "said"),
    [
        (0, np.arange(60), "class 'b' is missing from 100% of the resamples, as only 0 patients"),
        (20, np.where(np.arange(60) < 20, 0, np.arange(60)), "class 'b' is missing from 3.% .* as only 1 patients"),
        (2, np.arange(60), "recall: class 'b' is missing from 1.% .* as only 2 patients"),
    ],
)
def test_a_class_that_hangs_on_few_patients_is_named(having, clusters, said):
    truth, given_answers, probabilities = answers(60)
    truth[:] = np.arange(60) < having
    with pytest.raises(InputError, match=said):
        metric("recall", truth, given_answers, probabilities, OPTIONS, "b", resample(clusters))
    assert accuracy(given_answers == truth, resample(clusters)).resampled.shape == (2000, 2)  # needs no class
    truth[:] = np.arange(60) < 4  # few resamples lack it: it is left out of those
    found = metric("recall", truth, given_answers, probabilities, OPTIONS, "b", resample(np.arange(60)))
    assert 0 < np.isnan(found.resampled).any(axis=1).mean() < 0.05
    assert not np.isnan(found.values).any()


DRAWN = resample(np.arange(60), resamples=10)
RIGHT = np.random.default_rng(0).random((2, 60)) < 0.5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: resample(np.array([7] * 9)), "two independent ones are the least"),
        (lambda: accuracy(RIGHT.astype(float), DRAWN), "correct must be of bool, found float64"),
        (lambda: accuracy(RIGHT[:, 1:], DRAWN), r"correct must be \[points, 60 images\]"),
        (lambda: metric("recal", *answers(60), OPTIONS, None, DRAWN), "unknown metric 'recal': did you mean 'recall'"),
        (lambda: accuracy(RIGHT, DRAWN) - accuracy(RIGHT, resample(np.arange(60), 10, 1)), "from the same resamples"),
        (lambda: accuracy(RIGHT, DRAWN) - accuracy(RIGHT[:1], DRAWN), r"no pairs: values are \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_refused(wrong, said):
    with pytest.raises((InputError, ValueError), match=said):
        wrong()
