"""Probes with other settings against the main ones: planted changes are significant, and chance is not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import image_set, right_of, rows_of

from mlprobe_utils.analysis import probe_settings
from mlprobe_utils.analysis.probe_settings import BEFORE, FIRST, LAST
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.stats.paired import counted

IMAGES = 400
SETS = {"d": image_set(IMAGES)}
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
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
    assert changes[["settings", "module"]].to_numpy().tolist() == [
        [name, module] for name in ("raw", "linear") for module in "VCL"
    ]
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
    np.testing.assert_allclose(losses["change"][[FIRST, LAST, BEFORE]], [-40, -20, -20], atol=4)
    assert (losses["high"] < 0).all()
    shared = probe_settings.transfer_losses(rows_between(np.full((3, 3), 0.9)), SETS, "paper")
    assert (shared["p (Holm)"] > 0.05).all()
    assert probe_settings.transfer_losses(rows_between(np.array([[0.9]]), LAYERS[:1]), SETS, "paper").empty  # one layer
