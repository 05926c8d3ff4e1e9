"""Recipes of probes against the main one: planted changes are significant module by module, and chance is not."""

import numpy as np
import pandas as pd
import pytest
import torch
from site_rows import image_set, rows_of

from mlprobe_utils.analysis.probe_recipes import (
    BEFORE,
    FIRST,
    LAST,
    counted,
    differing,
    extremes,
    label_efficiency,
    recipe_changes,
    transfer_losses,
    transfer_scores,
    transferred,
)
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.probing.probes import fit_probes, share_of_each_class

IMAGES = 400
SETS = {"d": image_set(IMAGES)}
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
LAYERS = ["L.08", "L.09", "L.10"]  # by number, not by name
POINTS = ["V.00", "V.01", "C.00", "L.00", "L.01", "L.02"]
SHARES = dict.fromkeys(POINTS, 0.7)


def curve(seed: int, **changed: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    shares = SHARES | {point.replace("_", "."): share for point, share in changed.items()}
    frames = [
        rows_of(HARD + rng.normal(0, 0.05, IMAGES) < share, point=point, pooling="image_mean", seed=0, probe=str(seed))
        for point, share in shares.items()
    ]
    return pd.concat([*frames, frames[0].assign(split="validation")], ignore_index=True)


def test_a_change_is_significant_in_the_module_it_was_planted_in():
    rows = {"main": curve(0), "raw": curve(1, L_00=0.5, L_01=0.5, L_02=0.5), "linear": curve(2)}
    changes = recipe_changes(rows, SETS, "paper")
    assert changes[["recipe", "module"]].to_numpy().tolist() == [
        [name, module] for name in ("raw", "linear") for module in "VCL"
    ]
    told = changes[changes["p (Holm)"] < 0.05]
    assert told[["recipe", "module"]].to_numpy().tolist() == [["raw", "L"]]
    assert told["change"].item() == pytest.approx(-20, abs=2)
    assert (changes["low"] < changes["change"]).all()
    assert (changes["change"] < changes["high"]).all()
    table = counted(changes).set_index(["recipe", "module"])
    assert table["significantly lower"].sum() == 1
    assert table.at[("raw", "L"), "significantly lower"] == 1
    assert extremes(changes, "raw")["module"].tolist() == ["L"]
    assert extremes(changes, "another").empty


def test_the_main_recipe_alone_has_no_changes_and_others_need_its_points():
    changes = recipe_changes({"main": curve(0)}, SETS, "paper")
    assert changes.empty
    assert counted(changes).empty
    other = curve(1)
    with pytest.raises(ValueError, match="'raw' was not fitted at the points"):
        recipe_changes({"main": curve(0), "raw": other[other["point"] != "L.02"]}, SETS, "paper")


def test_fewer_labels_are_the_recipes_that_train_on_a_share():
    recipes = load_protocol("miniature").probes
    assert recipes.keys() == load_protocol("paper").probes.keys()
    changes = recipe_changes({name: curve(n) for n, name in enumerate(recipes)}, SETS, "paper")
    found = label_efficiency(changes, recipes)
    assert found["recipe"].unique().tolist() == ["30 % of the images", "10 % of the images"]
    assert (found["curves"] == 1).all()
    own = changes[changes["recipe"] == "10 % of the images"].set_index("module")["change"]
    table = found[found["recipe"] == "10 % of the images"].set_index("module")["change"]
    pd.testing.assert_series_equal(table, own, check_index_type=False)
    words = differing(recipes).set_index("recipe")["differs in"]
    assert words["linear"] == "kind linear (main: mlp)"
    assert "training fraction 0.1" in words["10 % of the images"]


def test_what_a_plane_cannot_find_and_few_labels_cannot_teach_is_significant_and_what_lies_open_is_not():
    """Fitted by the protocol's probes: a class along one direction, one in the product of two signs, and none."""
    rng, training, width = np.random.default_rng(3), 600, 6
    labels = rng.integers(0, 2, training + IMAGES)
    noise = {point: rng.normal(size=(len(labels), width)) for point in POINTS}
    sides = 2 * labels - 1
    for point in ("V.00", "V.01"):
        noise[point][:, 0] = 4 * sides + rng.normal(size=len(labels))
    signs = rng.choice([-1, 1], len(labels))
    noise["C.00"][:, :2] = 3 * np.c_[signs, signs * sides] + rng.normal(size=(len(labels), 2))
    features = {point: torch.tensor(own, dtype=torch.float32) for point, own in noise.items()}
    recipes, rows = load_protocol("miniature").probes, {}
    for name, recipe in recipes.items():
        drawn = np.arange(training)[share_of_each_class(labels[:training], recipe.training_fraction)]
        alike = dict.fromkeys(POINTS, labels), dict.fromkeys(POINTS, 0)
        chances = fit_probes(features, alike[0], drawn, 2, recipe, alike[1])
        right = {point: (own.argmax(axis=1) == labels)[training:] for point, own in chances.items()}
        frames = [rows_of(own, point=p, pooling="image_mean", seed=0, probe=name) for p, own in right.items()]
        rows[name] = pd.concat(frames, ignore_index=True)
    changes = recipe_changes(rows, SETS, "paper")
    told = changes[changes["p (Holm)"] < 0.05].set_index(["recipe", "module"])["change"]
    assert told["linear", "C"] < -30
    assert told["10 % of the images", "C"] < 0
    assert set(told.index.get_level_values("module")) == {"C"}


def rows_between(shares: np.ndarray, points: list[str] = LAYERS) -> pd.DataFrame:
    """Rows of every pair with these shares right, [fitted at, read at]."""
    rng, frames = np.random.default_rng(1), []
    for i, fitted_at in enumerate(points):
        for j, point in enumerate(points):
            right = HARD + rng.normal(0, 0.05, IMAGES) < shares[i][j]
            frames.append(rows_of(right, pooling="image_mean", probe=fitted_at, point=point, seed=0))
    return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=0)


def test_pairs_are_in_their_places():
    shares = np.array([[0.5, 0.6, 0.7], [0.55, 0.9, 0.65], [0.75, 0.8, 0.85]])
    right, points = transferred(rows_between(shares))
    assert points == LAYERS
    assert right.shape == (3, 3, IMAGES)
    np.testing.assert_allclose(right.mean(axis=2), shares, atol=0.05)
    scores = transfer_scores(rows_between(shares)).set_index(["fitted at", "read at"])["accuracy"]
    assert scores["L.10", "L.08"] == pytest.approx(75, abs=5)


def test_a_code_that_changes_at_one_layer_is_found_and_a_shared_one_is_not():
    changed = np.full((3, 3), 0.9)
    changed[:2, 2], changed[2, :2] = 0.5, 0.7  # the last layer writes the class in a code of its own
    losses = transfer_losses(rows_between(changed), SETS, "paper").set_index("probe of")
    assert (losses["p (Holm)"] < 0.05).all()
    np.testing.assert_allclose(losses["change"][[FIRST, LAST, BEFORE]], [-40, -20, -20], atol=4)
    assert (losses["high"] < 0).all()
    shared = transfer_losses(rows_between(np.full((3, 3), 0.9)), SETS, "paper")
    assert (shared["p (Holm)"] > 0.05).all()
    assert ((shared["low"] <= 0) & (shared["high"] >= 0)).all()


def test_one_layer_has_nowhere_to_carry_over_to():
    rows = rows_between(np.array([[0.9]]), LAYERS[:1])
    assert transfer_losses(rows, SETS, "paper").empty
    assert len(transfer_scores(rows)) == 1
