"""Exact paired tests: equal to McNemar's, to scipy's permutations and to counting; p values corrected by Holm."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from mlprobe_utils.errors import InputError
from mlprobe_utils.intervals import RECIPE
from mlprobe_utils.paired_tests import holm, paired_tests, sign_flip_p
from mlprobe_utils.resampling import resample


def outcomes(shape: tuple, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize("images", [20, 203, 624])
@pytest.mark.parametrize("share", [0.6, 0.75, 0.99])
def test_of_independent_images_it_is_the_test_of_mcnemar(images, share):
    before, after = outcomes((3, images), 0.7), outcomes((3, images), share, 1)
    for point, p in enumerate(sign_flip_p(before, after, np.arange(images))):
        gained, lost = (after & ~before)[point].sum(), (before & ~after)[point].sum()
        assert p == pytest.approx(binomtest(int(gained), int(gained + lost)).pvalue)


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 3))
def test_of_clusters_it_is_the_share_of_all_exchanges(seed, count, seeds):
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(count), rng.integers(0, count, 8)])
    before, after = (rng.random((seeds, 1, len(clusters))) < share for share in (0.5, 0.7))
    totals = [int((after.astype(int) - before)[:, :, clusters == cluster].sum()) for cluster in range(count)]
    sums = [
        abs(sum(s * d for s, d in zip(signs, totals, strict=True)))
        for signs in itertools.product((-1, 1), repeat=count)
    ]
    assert sign_flip_p(before, after, clusters)[0] == pytest.approx(np.mean(np.array(sums) >= abs(sum(totals))))


def test_of_clusters_it_is_the_permutation_test_of_scipy():
    clusters = np.arange(30) // 3
    before, after = outcomes((1, 30), 0.5), outcomes((1, 30), 0.8, 1)
    sides = [np.bincount(clusters, side[0]) for side in (after, before)]
    known = permutation_test(sides, lambda x, y: np.sum(x - y), permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(before, after, clusters)[0] == pytest.approx(known.pvalue)


def test_nothing_changed_is_no_evidence():
    right = outcomes((2, 50), 0.7)
    assert sign_flip_p(right, right, np.arange(50)).tolist() == [1, 1]


@pytest.mark.parametrize("size", [1, 3])
def test_of_equal_accuracies_it_rejects_as_seldom_as_it_says(size):
    rng = np.random.default_rng(0)
    clusters = np.arange(150) // size
    luck = rng.random((2000, 150 // size))[:, clusters]  # all of a patient are right or wrong together
    before, after = luck < 0.7, np.where(rng.random((2000, 150 // size))[:, clusters] < 0.3, 1 - luck, luck) < 0.7
    rejected = (sign_flip_p(before, after, clusters) < 0.05).mean()
    assert 0.01 < rejected < 0.06
    if size == 3:  # whoever takes images for patients is wrong much more often
        assert (sign_flip_p(before, after, np.arange(150)) < 0.05).mean() > 0.12


def test_a_planted_change_is_found_and_corrected_for_its_number():
    clusters = np.arange(300) // 2
    before = outcomes((6, 300), 0.8)
    after = before.copy()
    after[0, :60] = False
    table = paired_tests(before, after, resample(clusters))
    assert table["p (Holm)"][0] == pytest.approx(6 * table["p"][0])
    assert table["p (Holm)"][0] < 0.001
    assert table["high"][0] < 0
    assert (table["p (Holm)"][1:] == 1).all()
    assert table["value"].tolist() == pytest.approx([100 * (after[0].mean() - before[0].mean()), 0, 0, 0, 0, 0])


def test_the_recipe_is_judged_by_its_seeds():
    """A change that every seed has is one of the recipe; one that a single seed has is not."""
    before = np.repeat(outcomes((1, 2, 400), 0.8), 5, axis=0)
    after = before.copy()
    after[:, 0, :60] = False
    after[0, 1, :200] = False
    drawn = resample(np.arange(400))
    of_probes, of_recipe = paired_tests(before, after, drawn), paired_tests(before, after, drawn, RECIPE)
    assert (of_probes["p"] < 1e-6).all()
    assert of_recipe["p"][0] < 1e-6
    assert of_recipe["p"][1] > 0.2
    assert (of_recipe["high"] < 0).tolist() == [True, False]
    with pytest.raises(InputError, match="5 seeds or more, found 3"):
        paired_tests(before[:3], after[:3], drawn, RECIPE)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_a_cautious_monotone_adjustment(values):
    p = pd.Series(values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert adjusted[p.sort_values().index].is_monotonic_increasing
    assert adjusted.min() == pytest.approx(min(1, p.min() * len(p)))
