"""Comprehension and utilization: what was planted between the two curves is told, and nothing where nothing was."""

import numpy as np
import pandas as pd
import pytest
from station_rows import image_set, rows_of

from mlprobe_utils import comprehension, results
from mlprobe_utils.comprehension import ABOVE, BELOW, NEITHER, NEVER, best_on_validation
from mlprobe_utils.errors import InputError
from mlprobe_utils.intervals import RECIPE, intervals
from mlprobe_utils.resampling import accuracy
from mlprobe_utils.results import Selection
from mlprobe_utils.rows import STAGES

IMAGES, SEEDS = 300, 5
SETS = {"d": image_set(IMAGES)}
SELECTION = Selection(("m",), ("d",), "miniature", "paper")
HARD = np.random.default_rng(0).random(IMAGES)
POINTS = ["L.08", "L.09", "L.10"]  # by number, not by name


def probed(image_tokens: list[float], last_token: list[float], seeds: int, part: str = "test") -> pd.DataFrame:
    """Rows of both curves in both stages, with these shares right."""
    rng, frames = np.random.default_rng(len(part)), []
    for stage in STAGES:
        for pooling, shares in (("image_mean", image_tokens), ("last_token", last_token)):
            for point, share in zip(POINTS, shares, strict=True):
                for seed in range(seeds):
                    right = HARD + rng.normal(0, 0.05, IMAGES) < share
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


def test_differences_are_those_of_pairs_of_probes_and_told_where_they_were_planted(readings):
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


def test_curves_that_are_alike_are_told_apart_nowhere(readings):
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
