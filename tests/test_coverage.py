"""Simulated outcomes have the truth they are said to have, and the intervals hold it as often as they say."""

import functools

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.coverage import TEST_SETS, coverage, simulate, simulated_clusters
from mlprobe_utils.intervals import intervals

SMALL = {"tiny": (40, 2.0)}


def test_outcomes_have_their_stated_truth():
    rng = np.random.default_rng(0)
    expected = np.array([[0.6, 0.8, 0.9], [0.7, 0.7, 0.95]])
    made = simulate(expected, np.arange(20_000) // 2, 3, rng)
    assert made.right.mean(axis=-1) == pytest.approx(made.fitted, abs=0.015)
    fitted = np.mean(
        [simulate(expected, np.zeros(1, dtype=int), 100, rng).fitted.mean(axis=0) for _ in range(50)], axis=0
    )
    assert fitted == pytest.approx(expected, abs=0.01)


def test_outcomes_are_correlated_as_in_probing():
    """In a patient, along the curve, and between the stages; more between near points than between far ones."""
    expected = np.full((2, 10), 0.8)
    right = simulate(expected, np.arange(8000) // 2, 2, np.random.default_rng(0)).right.astype(float)
    image, stages, seeds = right[0, 0], right[0, :, 0], right[:, 0, 0]
    near, far = np.corrcoef(image)[0, [1, 9]]
    assert near > far + 0.2 > 0.3
    assert np.corrcoef(image[0, ::2], image[0, 1::2])[0, 1] > 0.1
    assert np.corrcoef(stages)[0, 1] > 0.4
    assert np.corrcoef(seeds)[0, 1] > 0.4


@pytest.mark.parametrize("size", [1.0, 2.1])
def test_clusters_have_the_mean_size_that_is_asked_for(size):
    clusters = simulated_clusters(5000, size, np.random.default_rng(0))
    assert len(clusters) == 5000
    assert np.unique(clusters).tolist() == [*range(clusters.max() + 1)]
    assert 5000 / (clusters.max() + 1) == pytest.approx(size, rel=0.1)


def test_a_table_has_every_construction_and_is_made_again_alike():
    one, again = (coverage(SMALL, ["in the middle"], 3, repetitions=4, resamples=50) for _ in range(2))
    pd.testing.assert_frame_equal(one, again)
    assert one.groupby(["question", "what"], sort=False)["interval"].agg(list).to_dict() == {
        (question, what): ["pointwise", "band", *extra]
        for question, extra in (("this probe", ["percentile"]), ("this recipe", []))
        for what in ("accuracy", "change")
    }
    assert one["covered"].between(0, 100).all()
    assert (one["width"] > 0).all()


def test_coverage_sees_intervals_that_are_too_narrow(monkeypatch):
    monkeypatch.setattr("mlprobe_utils.coverage.intervals", functools.partial(intervals, level=0.5))
    table = coverage(SMALL, ["in the middle"], 3, repetitions=100, resamples=100)
    assert table[table["interval"] == "pointwise"]["covered"].between(40, 65).all()


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return coverage(repetitions=1000)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", TEST_SETS)
@pytest.mark.parametrize("question", ["this probe", "this recipe"])
@pytest.mark.parametrize("what", ["accuracy", "change"])
def test_95_percent_intervals_hold_the_truth_93_to_97_times_in_100(measured, dataset, question, what):
    """Within two standard errors of the simulation.

    One construction misses that, on the safe side: bands of a change of these probes, where few images are wrong.
    """
    own = measured.query("dataset == @dataset and question == @question and what == @what and interval != 'percentile'")
    assert len(own) == 4
    wide = own.eval("question == 'this probe' and what == 'change' and interval == 'band'") & (
        own["curve"] == "near the ceiling"
    )
    assert (own["covered"] + 2 * own["error"] >= 93).all(), own
    assert (own["covered"] - 2 * own["error"] <= np.where(wide, 100, 97)).all(), own


@pytest.mark.slow
def test_percentiles_of_the_bootstrap_would_be_too_narrow(measured):
    """Why they are not taken: where 3 to 10 % of 150 or 203 images are wrong they miss half as often again."""
    own = measured.query("interval == 'percentile' and curve == 'near the ceiling' and images < 600")
    assert len(own) == 4
    assert (own["covered"] + 2 * own["error"] < 94).all(), own
