"""The options through the logit lens: where they settle, and whether a planted loss on the way is found."""

import numpy as np
import pandas as pd
import pytest
from site_rows import image_set, rows_of

from mlprobe_utils.analysis.lens_paths import (
    GAINED,
    LOST,
    lost_on_the_way,
    settled,
    settling_layers,
    true_option,
)
from mlprobe_utils.stats.paired import NEITHER

IMAGES = 300
SETS = {"d": image_set(IMAGES)}
HARD = np.random.default_rng(0).random(IMAGES)
POINTS = ["L.08", "L.09", "L.10"]


def lens(shares: list[float], runs: int = 2) -> pd.DataFrame:
    rng, frames = np.random.default_rng(1), []
    for run in range(runs):
        for split in ("validation", "test"):
            for point, share in zip(POINTS, shares, strict=True):
                right = HARD + rng.normal(0, 0.02, IMAGES) < share
                frames.append(
                    rows_of(right, run, split=split, point=point, pooling="last_token", run=run, probe="lens")
                )
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    ("shares", "at", "verdict"),
    [([0.5, 0.9, 0.6], "L.09", LOST), ([0.5, 0.6, 0.9], "L.10", NEITHER), ([0.7, 0.7, 0.7], None, NEITHER)],
)
def test_a_loss_on_the_way_is_found_if_it_was_planted(shares, at, verdict):
    (row,) = lost_on_the_way(lens(shares), SETS, "paper").to_dict("records")
    assert row["verdict"] == verdict
    assert at is None or row["at"] == at
    assert row["change"] == pytest.approx(row["at the end"] - row["there"])
    assert row["change"] == pytest.approx(row["correct at the end alone"] - row["correct there alone"])
    assert row["low"] <= row["change"] <= row["high"]


def test_what_validation_images_choose_wrongly_can_look_like_a_gain():
    rows = lens([0.5, 0.6, 0.9])
    wrong = (rows["split"] == "validation") & (rows["point"] == "L.10")
    rows.loc[wrong, ["p_Yes", "p_No"]] = rows.loc[wrong, ["p_No", "p_Yes"]].to_numpy()
    (row,) = lost_on_the_way(rows, SETS, "paper").to_dict("records")
    assert (row["at"], row["verdict"]) == ("L.09", GAINED)


def test_the_true_options_probability_is_its_mean_over_test_images():
    rows = lens([0.5, 0.6, 0.9], runs=1)
    rows.loc[rows["split"] == "validation", ["p_Yes", "p_No"]] = 0.5
    found = true_option(rows).set_index("point")["value"]
    for point in POINTS:
        own = rows[(rows["point"] == point) & (rows["split"] == "test")]
        expected = np.where(own["label"] == "Yes", own["p_Yes"], own["p_No"]).mean()
        assert found[point] == pytest.approx(100 * expected)


def test_images_are_settled_from_the_layer_on_that_never_changes_its_mind_again():
    said = {"L.08": [1, 1, 0, 1], "L.09": [1, 0, 0, 1], "L.10": [1, 1, 1, 1]}  # whether each is right
    frames = [rows_of(np.array(own) == 1, split="test", point=point, probe="lens") for point, own in said.items()]
    found = settled(pd.concat(frames))
    assert found.set_index("point")["value"].to_dict() == {"L.08": 50, "L.09": 50, "L.10": 100}
    (row,) = settling_layers(found).to_dict("records")
    assert (row["at"], row["layers before the last"]) == ("L.08", 2)
