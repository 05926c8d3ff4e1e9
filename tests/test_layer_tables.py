"""Probes read at other layers: what was planted in one layer's code is told, and a shared code is not."""

import numpy as np
import pandas as pd
import pytest
from station_rows import image_set, rows_of

from mlprobe_utils.layer_tables import BEFORE, FIRST, LAST, read_at, transfer_losses, transfer_scores

IMAGES = 300
SETS = {"d": image_set(IMAGES)}
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
POINTS = ["L.08", "L.09", "L.10"]


def transferred(shares: np.ndarray, points: list[str] = POINTS) -> pd.DataFrame:
    """Rows of every pair with these shares right, [fitted at, read at]."""
    rng, frames = np.random.default_rng(1), []
    for i, fitted_at in enumerate(points):
        for j, point in enumerate(points):
            right = HARD + rng.normal(0, 0.05, IMAGES) < shares[i][j]
            frames.append(rows_of(right, pooling="image_mean", probe=fitted_at, point=point, seed=0))
    return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=0)


def test_pairs_are_in_their_places():
    shares = np.array([[0.5, 0.6, 0.7], [0.55, 0.9, 0.65], [0.75, 0.8, 0.85]])
    right, points, images = read_at(transferred(shares))
    assert points == POINTS
    assert right.shape == (3, 3, IMAGES)
    assert images == sorted(images)
    np.testing.assert_allclose(right.mean(axis=2), shares, atol=0.05)
    scores = transfer_scores(transferred(shares)).set_index(["fitted at", "read at"])["accuracy"]
    assert scores["L.10", "L.08"] == pytest.approx(75, abs=5)


def test_a_code_that_changes_at_one_layer_is_told_and_one_that_is_shared_is_not():
    changed = np.full((3, 3), 0.9)
    changed[:2, 2] = changed[2, :2] = 0.5  # the last layer writes the class in a code of its own
    losses = transfer_losses(transferred(changed), SETS, "paper").set_index("probe of")
    assert (losses["p (Holm)"] < 0.05).all()
    np.testing.assert_allclose(losses["change"][[FIRST, LAST, BEFORE]], [-40, -40, -20], atol=4)
    assert (losses["high"] < 0).all()
    shared = transfer_losses(transferred(np.full((3, 3), 0.9)), SETS, "paper")
    assert (shared["p (Holm)"] > 0.05).all()
    assert ((shared["low"] <= 0) & (shared["high"] >= 0)).all()


def test_one_layer_has_nowhere_to_carry_over_to():
    rows = transferred(np.array([[0.9]]), POINTS[:1])
    assert transfer_losses(rows, SETS, "paper").empty
    assert len(transfer_scores(rows)) == 1
