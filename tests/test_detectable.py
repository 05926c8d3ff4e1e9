"""Which differences a test set can show: against simulated tests, and at the ends."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mlprobe_utils.detectable import chance_to_find, chance_to_find_mean, images_needed, least_gain, least_gains, table


@pytest.mark.parametrize(("gain", "disagreement", "images"), [(0.1, 0.2, 150), (0.02, 0.1, 624), (-0.08, 0.1, 203)])
def test_the_chance_is_that_of_simulated_tests(gain, disagreement, images):
    rng, found, times = np.random.default_rng(0), 0, 4000
    split = rng.binomial(images, disagreement, times)
    won = rng.binomial(split, (1 + gain / disagreement) / 2)
    for (ups, all_of), often in Counter(zip(won, split, strict=True)).items():
        found += often * (all_of > 0 and binomtest(ups, all_of).pvalue <= 0.05)
    chance = chance_to_find(gain, disagreement, images)
    assert chance == pytest.approx(found / times, abs=4 * np.sqrt(chance * (1 - chance) / times))


@given(st.floats(0.01, 1), st.integers(1, 700))
def test_where_there_is_no_difference_it_is_found_at_most_as_often_as_the_level_allows(disagreement, images):
    assert 0 <= chance_to_find(0, disagreement, images) <= 0.05


@given(st.floats(0, 1), st.floats(0.05, 1), st.integers(2, 700))
def test_the_sign_of_a_gain_changes_nothing(part, disagreement, images):
    gain = part * disagreement
    assert chance_to_find(gain, disagreement, images) == pytest.approx(chance_to_find(-gain, disagreement, images))


def test_few_images_find_nothing_however_large_the_gain():
    assert chance_to_find(1, 1, 5) == 0  # of five images, all on one side are no rarer than 1 in 16
    assert chance_to_find(1, 1, 6) == pytest.approx(1)
    assert np.isnan(least_gain(1, 5))
    assert images_needed(1, 1) == 6
    assert images_needed(0.01, 0.5, most=100) is None


def test_the_least_gain_and_the_images_needed_are_found_as_often_as_was_asked():
    gain = least_gain(0.1, 203)
    assert chance_to_find(gain, 0.1, 203) == pytest.approx(0.8, abs=1e-3)
    images = int(images_needed(0.05, 0.1))
    assert chance_to_find(0.05, 0.1, images) >= 0.8
    assert chance_to_find(0.05, 0.1, int(0.95 * images)) < 0.8


def test_the_mean_of_one_set_is_about_as_often_found_as_by_the_exact_test():
    exact, normal = chance_to_find(0.05, 0.1, 2000), chance_to_find_mean(0.05, 0.1, [2000])
    assert normal == pytest.approx(exact, abs=0.02)
    assert chance_to_find_mean(0.02, 0.1, [150, 203, 624]) > chance_to_find_mean(0.02, 0.1, [150])


def test_a_disagreement_below_the_gain_is_refused():
    with pytest.raises(ValueError, match="between the gain"):
        chance_to_find(0.2, 0.1, 100)


def test_the_table_has_a_row_a_gain_and_disagreement():
    found = table([1.0, -2.0], {"fewest": None, "10 %": 10.0}, {"a": 100, "b": 1000})
    assert found[["gain", "they disagree on"]].to_numpy().tolist() == [
        [1.0, "fewest"], [1.0, "10 %"], [-2.0, "fewest"], [-2.0, "10 %"]
    ]  # fmt: skip
    assert found.at[3, "b"] == pytest.approx(100 * chance_to_find(0.02, 0.1, 1000))
    assert found.at[2, "a"] == pytest.approx(100 * chance_to_find(0.02, 0.02, 100))
    assert (found["images needed"] > 100).all()


def test_least_gains_are_of_disagreements_that_are_known():
    found = least_gains({"fewest": None, "10 %": 10.0}, {"a": 150, "b": 624})
    assert found["they disagree on"].tolist() == ["10 %"]
    assert found.at[0, "b"] == pytest.approx(100 * least_gain(0.1, 624))
    assert found.at[0, "b"] < found.at[0, "a"]
