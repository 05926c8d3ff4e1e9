"""Comprehension and utilization, and probes read at other layers: what was planted is significant, and nothing else."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_rows import right_of
from station_rows import image_set, rows_of

from mlprobe_utils.analysis import comprehension
from mlprobe_utils.analysis.comprehension import ABOVE, BELOW, NEITHER, NEVER, best_on_validation
from mlprobe_utils.analysis.layer_tables import BEFORE, FIRST, LAST, read_at, transfer_losses, transfer_scores
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.intervals import RECIPE, intervals
from mlprobe_utils.stats.resampling import accuracy

IMAGES, SEEDS = 300, 5
SETS = {"d": image_set(IMAGES)}
SELECTION = Selection(("m",), ("d",), "miniature", "paper")
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
POINTS = ["L.08", "L.09", "L.10"]  # by number, not by name


def probed(image_tokens: list[float], last_token: list[float], seeds: int, part: str = "test") -> pd.DataFrame:
    """Rows of both curves in both stages, with these shares right."""
    curves = zip(("image_mean", "last_token"), (image_tokens, last_token), strict=True)
    places = [(pooling, *place) for pooling, shares in curves for place in zip(POINTS, shares, strict=True)]
    frames = []
    for stage, (pooling, point, share), seed in itertools.product(STAGES, places, range(seeds)):
        right = right_of(HARD, share, [len(part), len(frames)])
        place = {"stage": stage, "pooling": pooling, "point": point, "seed": seed, "probe": "main"}
        frames.append(rows_of(right, seed, part=part, model="m", **place))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def readings(monkeypatch):
    def of(image_tokens: list[float], last_token: list[float]) -> list[comprehension.Reading]:
        vision = rows_of(HARD < 0.5, model="m", pooling="image_mean", point="V.00", seed=0, probe="main")
        seeds = pd.concat([probed(image_tokens, last_token, SEEDS), vision], ignore_index=True)
        fitted = pd.concat([probed(image_tokens, last_token, 1, part) for part in ("validation", "test")])
        monkeypatch.setattr(results, "seed_rows", lambda selection: seeds)
        monkeypatch.setattr(results, "probe_rows", lambda selection: fitted)
        return comprehension.read(SELECTION, SETS)

    return of


def test_differences_are_those_of_pairs_of_probes_and_significant_where_they_were_planted(readings):
    found = readings([0.8, 0.8, 0.8], [0.6, 0.8, 0.95])
    told = comprehension.differences(found)
    assert len(told) == len(STAGES) * len(POINTS)
    for reading in found:
        own = told[told["stage"] == reading.stage]
        assert own["point"].tolist() == POINTS
        assert own["verdict"].tolist() == [BELOW, NEITHER, ABOVE]
        sides = (accuracy(side.right, reading.resamples) for side in (reading.utilization, reading.comprehension))
        first, second = sides
        expected = intervals(first - second, RECIPE)
        columns = ["value", "band_low", "band_high"]
        np.testing.assert_allclose(own[columns], expected[columns])
        np.testing.assert_allclose(own["value"], own["utilization"] - own["comprehension"])
    counts = comprehension.course(told).set_index(["stage", "where"])
    for stage in STAGES:
        assert counts.loc[(stage, "first layer"), [BELOW, ABOVE, NEITHER]].tolist() == [1, 0, 0]
        assert counts.loc[(stage, "last layer"), [BELOW, ABOVE, NEITHER]].tolist() == [0, 1, 0]
        assert counts.loc[(stage, "any layer"), [BELOW, ABOVE, NEITHER]].tolist() == [1, 1, 0]


def test_curves_that_are_alike_differ_nowhere(readings):
    found = readings([0.8, 0.8, 0.8], [0.8, 0.8, 0.8])
    assert set(comprehension.differences(found)["verdict"]) == {NEITHER}
    assert set(comprehension.ceilings(found)["verdict"]) == {NEITHER}
    counted = comprehension.course(comprehension.differences(found))
    assert (counted[NEITHER] == counted["models"]).all()


def test_the_curves_meet_where_they_were_planted_to(readings):
    met = comprehension.crossings(readings([0.8, 0.8, 0.8], [0.6, 0.6, 0.95]))
    assert met[["at", "earliest", "latest"]].to_numpy().tolist() == [["L.10"] * 3] * 2
    never = comprehension.crossings(readings([0.9, 0.9, 0.9], [0.6, 0.6, 0.6]))
    assert (never["at"] == NEVER).all()
    unsure = comprehension.crossings(readings([0.8, 0.8, 0.8], [0.795, 0.795, 0.795]))
    assert (unsure["earliest"] != unsure["latest"]).any()


@pytest.mark.parametrize(("best", "verdict"), [(0.95, ABOVE), (0.65, BELOW)])
def test_a_ceiling_is_compared_at_the_layers_that_validation_images_choose(readings, best, verdict):
    found = readings([0.6, 0.8, 0.6], [0.5, 0.5, best])
    assert {tuple(reading.chosen.values()) for reading in found} == {("L.09", "L.10")}
    table = comprehension.ceilings(found)
    assert (table["comprehension at"] == "L.09").all()
    assert (table["utilization at"] == "L.10").all()
    assert (table["verdict"] == verdict).all()
    np.testing.assert_allclose(table["difference"], 100 * (best - 0.8), atol=4)
    np.testing.assert_allclose(table["difference"], table["utilization"] - table["comprehension"])


def test_of_equally_good_layers_the_earliest_is_chosen_by_its_number():
    rows = pd.concat([rows_of(HARD < 0.5, part="validation", point=point) for point in ("L.10", "L.09")])
    assert best_on_validation(rows) == "L.09"
    with pytest.raises(InputError, match="no rows of validation images"):
        best_on_validation(rows.assign(part="test"))


def test_rows_of_other_images_are_refused(readings, monkeypatch):
    readings([0.8, 0.8, 0.8], [0.8, 0.8, 0.8])
    with pytest.raises(InputError, match="m on d, pretrained: its rows are not of the test images"):
        comprehension.read(SELECTION, {"d": image_set(IMAGES - 2)})


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


def test_a_code_that_changes_at_one_layer_is_found_and_a_shared_one_is_not():
    changed = np.full((3, 3), 0.9)
    changed[:2, 2], changed[2, :2] = 0.5, 0.7  # the last layer writes the class in a code of its own
    losses = transfer_losses(transferred(changed), SETS, "paper").set_index("probe of")
    assert (losses["p (Holm)"] < 0.05).all()
    np.testing.assert_allclose(losses["change"][[FIRST, LAST, BEFORE]], [-40, -20, -20], atol=4)
    assert (losses["high"] < 0).all()
    shared = transfer_losses(transferred(np.full((3, 3), 0.9)), SETS, "paper")
    assert (shared["p (Holm)"] > 0.05).all()
    assert ((shared["low"] <= 0) & (shared["high"] >= 0)).all()


def test_one_layer_has_nowhere_to_carry_over_to():
    rows = transferred(np.array([[0.9]]), POINTS[:1])
    assert transfer_losses(rows, SETS, "paper").empty
    assert len(transfer_scores(rows)) == 1
