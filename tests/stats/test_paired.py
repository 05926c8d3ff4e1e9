"""Exact paired tests equal known ones; which differences a test set can show; means of differences."""

import itertools

import numpy as np
import pandas as pd
import pytest
from detectable import images_needed, power, table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mlprobe_utils.stats import paired
from mlprobe_utils.stats.intervals import PROBE, RECIPE
from mlprobe_utils.stats.paired import WORDS, Pair, compare, holm, sign_flip_p, verdicts
from mlprobe_utils.stats.resampling import accuracy, resample

LOWER, HIGHER, NEITHER = WORDS
TABLE = pd.DataFrame({"dataset": ["b", "a", "b"], "change": [1.0, -2, 3], "low": [-1.0, -3, 2], "high": [4.0, -1, 6]})


def outcomes(shape: tuple, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize(("images", "share"), [(20, 0.6), (203, 0.75), (624, 0.99)])
def test_of_independent_images_it_is_the_test_of_mcnemar(images, share):
    before, after = outcomes((3, images), 0.7), outcomes((3, images), share, 1)
    for point, p in enumerate(sign_flip_p(before, after, np.arange(images))):
        gained, lost = (after & ~before)[point].sum(), (before & ~after)[point].sum()
        assert p == pytest.approx(binomtest(int(gained), int(gained + lost)).pvalue)
    assert sign_flip_p(before, before, np.arange(images)).tolist() == [1, 1, 1]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 3))
def test_of_clusters_it_is_the_share_of_all_exchanges(seed, count, seeds):
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(count), rng.integers(0, count, 8)])
    before, after = (rng.random((seeds, 1, len(clusters))) < share for share in (0.5, 0.7))
    totals = [int((after.astype(int) - before)[:, :, clusters == cluster].sum()) for cluster in range(count)]
    sums = np.array([*itertools.product((-1, 1), repeat=count)]) @ totals
    assert sign_flip_p(before, after, clusters)[0] == pytest.approx(np.mean(np.abs(sums) >= abs(sum(totals))))


def test_a_table_of_comparisons_is_corrected_for_its_number_and_has_verdicts():
    drawn, before = resample(np.arange(300) // 2), outcomes((5, 1, 300), 0.5)
    moved = {"lost": before & (np.arange(300) > 90), "gained": before | (np.arange(300) < 90), "same": before[:1]}
    pairs = [Pair({"what": what, "n": 1}, before, after, drawn, RECIPE) for what, after in moved.items()]
    pairs.append(Pair({"what": "metric", "n": 1}, *(accuracy(own, drawn) for own in (before, moved["lost"])), drawn))
    table = compare(pairs, ["n", "what"], "gain", WORDS)
    assert table.columns.tolist() == ["n", "what", "gain", "low", "high", "p", "p (Holm)", "verdict"]
    assert table["verdict"].tolist() == [LOWER, HIGHER, NEITHER, LOWER]
    for own, after in zip(table.itertuples(), moved.values(), strict=False):
        expected = Pair({}, before, np.broadcast_to(after, before.shape), drawn, RECIPE).tests().iloc[0]
        assert [own.gain, own.low, own.high, own.p] == pytest.approx(expected[["value", "low", "high", "p"]].tolist())
    np.testing.assert_allclose(table["p (Holm)"], holm(table["p"]))
    exact = compare([Pair({}, before, moved["lost"], drawn)], []).iloc[0]
    assert exact["p"] == pytest.approx(sign_flip_p(before, moved["lost"], drawn.clusters)[0])
    assert exact["p"] != pytest.approx(table["p"].iloc[3])  # a metric has no exact test
    counts = paired.counted(table, "gain", ["n"])
    assert counts[["pairs", "significantly higher", "significantly lower"]].to_numpy().tolist() == [[4, 1, 2]]
    assert compare([], ["what"], words=WORDS).columns.tolist() == ["what", "change", *table.columns[3:]]
    assert verdicts(pd.Series([-2, 1, -1]), pd.Series([0.01, 0.04, 0.05])).tolist() == [LOWER, HIGHER, NEITHER]


def test_the_recipe_is_judged_by_its_seeds():
    before = np.repeat(outcomes((1, 2, 400), 0.8), 5, axis=0)
    after = before.copy()
    after[:, 0, :60] = False
    after[0, 1, :200] = False
    drawn = resample(np.arange(400))
    of_probes, of_recipe = (Pair({}, before, after, drawn, scope).tests() for scope in (PROBE, RECIPE))
    assert max(*of_probes["p"], of_recipe["p"][0]) < 1e-6 < 0.2 < of_recipe["p"][1]
    assert (of_recipe["high"] < 0).tolist() == [True, False]


def test_p_values_are_adjusted_as_holm_did_and_a_missing_one_stays_missing():
    """The least times their number, the next times one less, and none below one that was smaller."""
    p = pd.Series([0.04, np.nan, 0.01, 0.03, 0.5])
    np.testing.assert_allclose(holm(p), [0.09, np.nan, 0.04, 0.09, 0.5])
    assert holm(pd.Series([0.6, 0.7])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("gain", "disagreement", "images"), [(0.3, 0.4, 40), (0.05, 0.5, 30), (-0.2, 0.3, 25), (0, 0.6, 40)]
)
def test_power_is_the_sum_over_all_outcomes_of_the_test(gain, disagreement, images):
    expected = 0
    for split in range(1, images + 1):
        won = binom.pmf(range(split + 1), split, (1 + gain / disagreement) / 2)
        found = [binomtest(ups, split).pvalue <= 0.05 for ups in range(split + 1)]
        expected += binom.pmf(split, images, disagreement) * (won @ found)
    found = power(gain, disagreement, images)
    assert [found, power(-gain, disagreement, images)] == pytest.approx([expected] * 2)
    assert gain or found <= 0.05
    with pytest.raises(ValueError, match="between the gain"):
        power(2 * disagreement, disagreement, images)


def test_tables_of_detectable_gains():
    assert power(1, 1, 5) == 0  # of five images, all on one side are no rarer than 1 in 16
    assert (images_needed(1, 1), images_needed(0.01, 0.5, most=100)) == (6, None)
    disagreements = {"fewest": None, "10 %": 10.0}
    found = table([1.0, -2.0], disagreements, {"a": 100, "b": 1000})
    rows = [[gain, words] for gain in (1.0, -2.0) for words in disagreements]
    assert found[["gain", "disagreement"]].to_numpy().tolist() == rows
    assert found.at[3, "b"] == pytest.approx(100 * power(0.02, 0.1, 1000))
    assert found.at[2, "a"] == pytest.approx(100 * power(0.02, 0.02, 100))
    of_one = table([5.0], disagreements, {"a": 2000}).iloc[1]
    assert of_one["mean of all"] == pytest.approx(of_one["a"], abs=2)
    images = int(found.at[3, "images needed"])
    assert power(0.02, 0.1, images) >= 0.8 > power(0.02, 0.1, int(0.95 * images))


def test_means_of_groups_keep_their_order_and_have_sentences():
    found = paired.counted(TABLE.assign(**{"p (Holm)": 1.0}), "change", ["dataset"])
    assert found[[*TABLE]].to_numpy().tolist() == [["b", 2.0, 0.5, 5.0], ["a", -2.0, -3.0, -1.0]]
    assert paired.in_words(TABLE[:1], "change") == "+1.0 (-1.0 to +4.0)"
    assert paired.in_words(TABLE[:0], "change") == "nothing to compare"
