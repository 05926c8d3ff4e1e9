"""What adaptation, other wordings and other probes change: planted changes are significant, and chance is not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of, image_set, right_of, rows_of

from mlprobe_utils.analysis import adaptation, probe_settings
from mlprobe_utils.analysis.certainty import prompt_changes
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.pipeline.cards import load_model_card, load_protocol
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER, counted, judged

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
    words = ["after fine-tuning: retrained model", "after fine-tuning: fixed model", "before fine-tuning: fixed model"]
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


def test_a_drop_is_significant_by_its_images_and_outside_by_its_size():
    easy = np.random.default_rng(0).permutation(400)
    right = {"much": easy < 200, "less": easy < 268, "more": easy < 292, "other": easy[::-1] < 284}
    rows = pd.concat([answers_of(own, control=name) for name, own in right.items()], ignore_index=True)
    rows.loc[(rows["control"] == "much") & (rows["parsed"] != rows["label"]), "parsed"] = None
    own = answers_of(easy < 280, control=OWN_PROMPT)
    found = prompt_changes(pd.concat([rows, own]), SETS, "paper").set_index("prompt").loc[[*right]]
    assert found["verdict"].tolist() == [LOWER, LOWER, HIGHER, NEITHER]
    assert found["outside"].tolist() == [True, False, False, False]
    assert found["unparsed"].tolist() == [50, 0, 0, 0]
    assert found["change"].tolist() == pytest.approx([-20, -3, 3, 1])
    assert (found["accuracy"] - found[OWN_PROMPT]).tolist() == pytest.approx(found["change"].tolist())
    assert prompt_changes(own, SETS, "paper").empty


LAYERS = ["L.08", "L.09", "L.10"]  # by number, not by name
POINTS = ["V.00", "V.01", "C.00", "L.00", "L.01", "L.02"]


def curve(seed: int, of_llm: float = 0.7) -> pd.DataFrame:
    columns = {"pooling": "image_mean", "seed": 0, "probe": str(seed)}
    shares = [of_llm if point[0] == "L" else 0.7 for point in POINTS]
    right = [right_of(HARD, share, [seed, n]) for n, share in enumerate(shares)]
    frames = [rows_of(own, point=point, **columns) for point, own in zip(POINTS, right, strict=True)]
    return pd.concat([*frames, frames[0].assign(split="validation")], ignore_index=True)


def test_a_change_is_significant_in_the_module_it_was_planted_in():
    rows = {"main": curve(0), "raw": curve(1, of_llm=0.5), "linear": curve(2)}
    changes = probe_settings.setting_changes(rows, SETS, "paper")
    expected = [[name, module] for name in ("raw", "linear") for module in "VCL"]
    assert changes[["settings", "module"]].to_numpy().tolist() == expected
    significant = changes[changes["p (Holm)"] < 0.05].set_index(["settings", "module"])["change"]
    assert significant.to_dict() == pytest.approx({("raw", "L"): -20}, abs=2)


def test_the_main_settings_alone_has_no_changes_and_others_need_its_points():
    assert counted(probe_settings.setting_changes({"main": curve(0)}, SETS, "paper"), "change", ["settings"]).empty
    other = curve(1)
    with pytest.raises(ValueError, match="'raw' was not fitted at the points"):
        probe_settings.setting_changes({"main": curve(0), "raw": other[other["point"] != "L.02"]}, SETS, "paper")


def test_probes_of_fewer_labels_take_as_many_steps_as_those_of_all():
    """Else what fewer labels cost is confounded with a shorter training."""
    labels = [label for label, count in {"benign": 144, "malignant": 70, "normal": 43}.items() for _ in range(count)]
    found = probe_settings.training_steps(load_protocol("miniature"), labels).set_index("settings")
    assert found.loc[["30 % of the images", "10 % of the images"], "images"].tolist() == [77, 25]
    assert found["steps"].eq(20 * 9).all()  # 20 passes over 257 images in batches of 32
    paper = probe_settings.training_steps(load_protocol("paper"), labels * 2)
    assert paper["steps"].max() / paper["steps"].min() < 1.03


def rows_between(shares: np.ndarray, points: list[str] = LAYERS) -> pd.DataFrame:
    """Rows of every pair with these shares right, [fitted at, applied at]."""
    frames = [
        rows_of(right_of(HARD, shares[i][j], [i, j]), pooling="image_mean", probe=fitted_at, point=point, seed=0)
        for (i, fitted_at), (j, point) in itertools.product(enumerate(points), repeat=2)
    ]
    return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=0)


def test_pairs_are_in_their_places():
    shares = np.array([[0.5, 0.6, 0.7], [0.55, 0.9, 0.65], [0.75, 0.8, 0.85]])
    right, points = probe_settings.transferred(rows_between(shares))
    assert points == LAYERS
    np.testing.assert_allclose(right.mean(axis=2), shares, atol=0.05)
    scores = probe_settings.transfer_scores(rows_between(shares)).set_index(["fitted at", "applied at"])["accuracy"]
    assert scores["L.10", "L.08"] == pytest.approx(75, abs=5)


def test_a_code_that_changes_at_one_layer_is_found_and_a_shared_one_is_not():
    changed = np.full((3, 3), 0.9)
    changed[:2, 2], changed[2, :2] = 0.5, 0.7  # the last layer writes the class in a code of its own
    losses = probe_settings.transfer_losses(rows_between(changed), SETS, "paper").set_index("probe of")
    assert (losses["p (Holm)"] < 0.05).all()
    read_at = [probe_settings.FIRST, probe_settings.LAST, probe_settings.BEFORE]
    np.testing.assert_allclose(losses["change"][read_at], [-40, -20, -20], atol=4)
    assert (losses["high"] < 0).all()
    shared = probe_settings.transfer_losses(rows_between(np.full((3, 3), 0.9)), SETS, "paper")
    assert (shared["p (Holm)"] > 0.05).all()
    assert probe_settings.transfer_losses(rows_between(np.array([[0.9]]), LAYERS[:1]), SETS, "paper").empty  # one layer
