"""Comprehension and utilization: what was planted is significant, and nothing else."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_rows import right_of
from site_rows import image_set, rows_of

from mlprobe_utils.analysis import comprehension
from mlprobe_utils.analysis.comprehension import ABOVE, BELOW, BEST, CURVE, NEVER, best_on_validation
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, evaluated
from mlprobe_utils.stats.intervals import RECIPE, intervals
from mlprobe_utils.stats.paired import NEITHER
from mlprobe_utils.stats.resampling import accuracy

IMAGES, SEEDS = 300, 5
SETS = {"d": image_set(IMAGES)}
SELECTION = Selection(("m",), ("d",), "miniature", "paper")
HARD = np.random.default_rng(0).permutation(IMAGES) / IMAGES
POINTS = ["L.08", "L.09", "L.10"]  # by number, not by name


def probed(image_tokens: list[float], last_token: list[float], seeds: int, split: str = "test") -> pd.DataFrame:
    """Rows of both curves in both stages, with these shares right."""
    curves = zip(("image_mean", "last_token"), (image_tokens, last_token), strict=True)
    places = [(pooling, *place) for pooling, shares in curves for place in zip(POINTS, shares, strict=True)]
    frames = []
    for stage, (pooling, point, share), seed in itertools.product(STAGES, places, range(seeds)):
        right = right_of(HARD, share, [len(split), len(frames)])
        place = {"stage": stage, "pooling": pooling, "point": point, "seed": seed, "probe": "main"}
        frames.append(rows_of(right, seed, split=split, model="m", **place))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def found_with(monkeypatch):
    def of(image_tokens: list[float], last_token: list[float]) -> list[Evaluated]:
        vision = rows_of(HARD < 0.5, model="m", pooling="image_mean", point="V.00", seed=0, probe="main")
        seeds = pd.concat([probed(image_tokens, last_token, SEEDS), vision], ignore_index=True)
        fitted = pd.concat([probed(image_tokens, last_token, 1, split) for split in ("validation", "test")])
        monkeypatch.setattr(results, "seed_rows", lambda selection: seeds)
        monkeypatch.setattr(results, "probe_rows", lambda selection: fitted)
        return evaluated(SELECTION, SETS, comprehension.outcomes_of)

    return of


def test_differences_are_those_of_pairs_of_probes_and_significant_where_they_were_planted(found_with):
    found = found_with([0.8, 0.8, 0.8], [0.6, 0.8, 0.95])
    told = comprehension.differences(found)
    for stage in STAGES:
        own = told[told["stage"] == stage]
        assert own["point"].tolist() == POINTS
        assert own["verdict"].tolist() == [BELOW, NEITHER, ABOVE]
        curves = (found[0].outcomes[stage, name, CURVE] for name in ("utilization", "comprehension"))
        first, second = (accuracy(curve.correct, found[0].resamples) for curve in curves)
        expected = intervals(first - second, RECIPE)
        columns = ["value", "band_low", "band_high"]
        np.testing.assert_allclose(own[columns], expected[columns])
        np.testing.assert_allclose(own["value"], own["utilization"] - own["comprehension"])
    counts = comprehension.course(told).set_index(["stage", "where"])
    for stage in STAGES:
        assert counts.loc[(stage, "first layer"), [BELOW, ABOVE, NEITHER]].tolist() == [1, 0, 0]
        assert counts.loc[(stage, "last layer"), [BELOW, ABOVE, NEITHER]].tolist() == [0, 1, 0]
        assert counts.loc[(stage, "any layer"), [BELOW, ABOVE, NEITHER]].tolist() == [1, 1, 0]


def test_the_curves_meet_where_they_were_planted_to(found_with):
    met = comprehension.crossings(found_with([0.8, 0.8, 0.8], [0.6, 0.6, 0.95]))
    assert met[["at", "earliest", "latest"]].to_numpy().tolist() == [["L.10"] * 3] * 2
    never = comprehension.crossings(found_with([0.9, 0.9, 0.9], [0.6, 0.6, 0.6]))
    assert (never["at"] == NEVER).all()
    unsure = comprehension.crossings(found_with([0.8, 0.8, 0.8], [0.795, 0.795, 0.795]))
    assert (unsure["earliest"] != unsure["latest"]).any()


@pytest.mark.parametrize(("best", "verdict"), [(0.95, ABOVE), (0.65, BELOW), (0.8, NEITHER)])
def test_a_ceiling_is_compared_at_the_layers_that_validation_images_choose(found_with, best, verdict):
    found = found_with([0.6, 0.8, 0.6], [0.5, 0.5, best])
    assert {(what[1], *own.points) for what, own in found[0].outcomes.items() if what[2] == BEST} == {
        ("comprehension", "L.09"),
        ("utilization", "L.10"),
    }
    table = comprehension.ceilings(found)
    assert (table["comprehension at"] == "L.09").all()
    assert (table["utilization at"] == "L.10").all()
    assert (table["verdict"] == verdict).all()
    np.testing.assert_allclose(table["difference"], 100 * (best - 0.8), atol=4)
    np.testing.assert_allclose(table["difference"], table["utilization"] - table["comprehension"])


def test_of_equally_good_layers_the_earliest_is_chosen_by_its_number():
    rows = pd.concat([rows_of(HARD < 0.5, split="validation", point=point) for point in ("L.10", "L.09")])
    assert best_on_validation(rows) == "L.09"
    with pytest.raises(InputError, match="no rows of validation images"):
        best_on_validation(rows.assign(split="test"))
