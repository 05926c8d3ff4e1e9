"""What adaptation gained: a planted gain is significant, chance is not, and absolute and relative gains are right."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of, image_set, right_of

from mlprobe_utils.analysis import adaptation
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.cards import load_model_card
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import NEITHER, judged

IMAGES = 400
SETS = {"d": image_set(IMAGES), "e": image_set(IMAGES)}
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES  # the same images are hard for all


def answers(share: float, seed: int, model: str, dataset: str = "d", run: int = 0) -> pd.DataFrame:
    return answers_of(right_of(HARD, share, seed), model=model, dataset=dataset, run=run)


def of_two_models(own: float, base: float) -> pd.DataFrame:
    places = itertools.product({"own": own, "base": base}.items(), SETS, (0, 1, 2))
    frames = [answers(share, 20 + n, model, dataset, run) for n, ((model, share), dataset, run) in enumerate(places)]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(("own", "expected"), [(0.85, adaptation.GAINED), (0.7, NEITHER), (0.55, adaptation.LOST)])
def test_a_gain_is_significant_if_it_was_planted(own, expected):
    after, before = of_two_models(own, 0.7), of_two_models(0.7, 0.7).query("run == 0").assign(stage="pretrained")
    both = adaptation.gains(pd.concat([after, before]), [("own", "base")], SETS, "paper")
    words = [
        "after fine-tuning: retrained model",
        "after fine-tuning: fixed model",
        "before fine-tuning: fixed model",
    ]
    assert both["statement"].tolist() == list(np.repeat(words, 3))
    assert both["verdict"].dropna().tolist() == [expected] * 4 + [NEITHER] * 2  # the mean of two is not tested
    table = both[:3]
    assert table["dataset"].tolist() == ["d", "e", adaptation.MEAN]
    assert (table["p (Holm)"].dropna() < 0.05).tolist() == [expected != NEITHER] * 2
    np.testing.assert_allclose(table["gain"], 100 * (own - 0.7), atol=3)
    np.testing.assert_allclose(table["gain"], table["accuracy"] - table["accuracy of the base"])
    relative = 100 * (table["accuracy"] / table["accuracy of the base"] - 1)  # of one data set, not of the mean
    np.testing.assert_allclose(table["relative gain (%)"][:2], relative[:2])
    assert (table["disagreement"][:2] >= table["gain"][:2].abs() - 1e-9).all()


def test_the_sentence_counts_what_the_chart_marks_and_names_the_largest_loss():
    """Four intervals are above 0 and one below; after Holm's correction two gains remain, and the loss."""
    planted = pd.DataFrame({"gain": [9.0, 8, 4, 3, -34.9, 0.5], "p": [1e-6, 1e-5, 0.03, 0.04, 1e-9, 0.9]})
    planted = planted.assign(low=planted["gain"] - 2, high=planted["gain"] + 2, dataset="Set", statement="after")
    planted["model"] = [f"M{n}" for n in planted.index]
    words = adaptation.LOST, adaptation.GAINED, NEITHER
    tested = judged(planted, "gain", words)
    said = adaptation.summary(tested)
    drawn = change_chart(tested.rename(columns={"gain": "change"}), {}, "Gains", words)
    marked = [drawn.numbers["verdict"].tolist().count(word) for word in words]
    assert marked == [1, 2, 3]
    assert "5 of 6 differences are above 0, 2 of them significantly; significant losses: 1." in said
    assert "the largest loss is -34.9 pp (-36.9 to -32.9; M4, Set)" in said
    assert "there is no loss; the smallest is +0.5 pp" in adaptation.summary(tested.query("gain > 0"))
    assert "no pair" in adaptation.summary(tested[:0])


def test_gains_at_the_edges():
    """A base that is never right has no relative gain; two that answer alike have a gain of 0 and an interval."""
    row = adaptation.gains(of_two_models(0.7, -1), [("own", "base")], SETS, "paper").iloc[0]
    assert row["gain"] == pytest.approx(70, abs=3)
    assert np.isnan(row["relative gain (%)"])
    rows = pd.concat(answers(0.7, 0, model) for model in ("own", "base"))
    (row,) = adaptation.gains(rows, [("own", "base")], SETS, "paper").to_dict("records")
    assert (row["gain"], row["relative gain (%)"], row["p"]) == (0, 0, 1)
    assert row["low"] < 0 < row["high"]
    assert row["scope"] == "fixed model"  # of one run, nothing is said of others
    assert {"dataset", "model", "base", "gain", "p (Holm)"} <= {*adaptation.gains(rows, [], SETS, "paper")}
    with pytest.raises(InputError, match="own on d: its rows are not from the test images"):
        adaptation.gains(rows.query("image != '0003.png' or model != 'own'"), [("own", "base")], SETS, "paper")


def test_models_are_paired_with_their_bases():
    slugs = ["lingshu-7b-miniature", "qwen2.5-vl-7b-miniature", "medvlm-r1-miniature", "gemma-3-4b"]
    models = {slug: load_model_card(slug) for slug in slugs}
    assert adaptation.pairs(models) == [("lingshu-7b-miniature", "qwen2.5-vl-7b-miniature")]
    qwen = load_model_card("qwen2.5-vl-7b")
    own = load_model_card("lingshu-7b").model_copy(update={"base": qwen.source})  # by its hub id
    assert adaptation.pairs({"own": own, "qwen2.5-vl-7b": qwen}) == [("own", "qwen2.5-vl-7b")]
