"""The diagnosis: losses planted between two stations are found there, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlprobe_utils.diagnosis import (
    COMPREHENSION,
    FIDELITY,
    MISALIGNMENT,
    NAMED,
    QUALITY,
    RULED_OUT,
    STATEMENTS,
    UNTOLD,
    losses,
    main_mode,
    verdicts,
)
from mlprobe_utils.errors import InputError
from mlprobe_utils.intervals import PROBE, RECIPE
from mlprobe_utils.resampling import resample
from mlprobe_utils.stations import STATIONS

THRESHOLDS = {statement.name: 5.0 for statement in STATEMENTS}


def stations(shares, images=400, seeds=5, seed=0):
    """Outcomes with these shares right, on much the same images at every station."""
    rng = np.random.default_rng(seed)
    hard = rng.random(images)
    noise = rng.normal(0, 0.05, (len(STATIONS), seeds, images))
    return {s: hard + noise[i] < share for i, (s, share) in enumerate(zip(STATIONS, shares, strict=True))}


PLANTED = {
    QUALITY: (0.9, 0.65, 0.65, 0.65, 0.65, 0.65),
    FIDELITY: (0.9, 0.9, 0.65, 0.65, 0.65, 0.65),
    COMPREHENSION: (0.9, 0.9, 0.9, 0.65, 0.9, 0.9),
    MISALIGNMENT: (0.9, 0.9, 0.9, 0.9, 0.9, 0.65),
}


@pytest.mark.parametrize("question", [PROBE, RECIPE])
@pytest.mark.parametrize("mode", PLANTED)
def test_a_planted_loss_is_named_and_no_other(mode, question):
    told = verdicts(losses(stations(PLANTED[mode]), resample(np.arange(400)), question), THRESHOLDS)
    assert main_mode(told) == mode
    assert set(told.loc[told["verdict"] == NAMED, "mode"]) == {mode}
    assert (told.loc[told["mode"] != mode, "verdict"] == RULED_OUT).all()


@pytest.mark.parametrize("shares", [(0.9, 0.65, 0.65, 0.9, 0.65, 0.65), (0.9, 0.65, 0.65, 0.65, 0.65, 0.9)])
def test_what_a_later_station_has_was_not_lost_before(shares):
    told = verdicts(losses(stations(shares), resample(np.arange(400))), THRESHOLDS).set_index("statement")
    assert told.at[QUALITY, "verdict"] == RULED_OUT
    assert told.at[QUALITY, "after"] == STATIONS[shares.index(0.9, 1)]


def test_of_several_modes_the_first_on_the_way_is_the_main_one():
    told = verdicts(losses(stations((0.95, 0.8, 0.8, 0.8, 0.8, 0.4)), resample(np.arange(400))), THRESHOLDS)
    assert set(told.loc[told["verdict"] == NAMED, "mode"]) == {QUALITY, MISALIGNMENT}
    assert main_mode(told) == QUALITY


def test_nothing_is_named_where_nothing_is_lost():
    told = verdicts(losses(stations([0.8] * 6), resample(np.arange(400))), THRESHOLDS)
    assert main_mode(told) is None
    assert (told["verdict"] == RULED_OUT).all()


def test_a_handful_of_images_tells_nothing():
    told = verdicts(losses(stations([0.8] * 6, images=12), resample(np.arange(12))), THRESHOLDS)
    assert (told["verdict"] == UNTOLD).all()


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(0, 30), st.integers(4, 60))
def test_a_higher_threshold_names_no_more_and_rules_out_no_less(seed, threshold, images):
    lost = losses(stations([0.9, 0.7, 0.8, 0.5, 0.6, 0.3], images, seed=seed), resample(np.arange(images), 200))
    low, high = (verdicts(lost, dict.fromkeys(THRESHOLDS, t)) for t in (threshold, threshold + 5))
    assert not ((high["verdict"] == NAMED) & (low["verdict"] != NAMED)).any()
    assert not ((low["verdict"] == RULED_OUT) & (high["verdict"] != RULED_OUT)).any()


def test_what_has_no_seeds_counts_for_all_of_them():
    seeds = stations(PLANTED[QUALITY])
    alone = seeds | {"final output": seeds["final output"][0]}
    repeated = seeds | {"final output": np.repeat(seeds["final output"][:1], 5, axis=0)}
    drawn = resample(np.arange(400))
    pd.testing.assert_frame_equal(losses(alone, drawn), losses(repeated, drawn))


def test_what_is_missing_is_named():
    right, drawn = stations([0.8] * 6), resample(np.arange(400))
    with pytest.raises(InputError, match="found no connector's end"):
        losses({s: own for s, own in right.items() if s != "connector's end"}, drawn)
    with pytest.raises(InputError, match=r"'reference' has outcomes \(7,\)"):
        losses(right | {"reference": np.ones(7, bool)}, drawn)
    with pytest.raises(InputError, match="no threshold for 'misalignment'"):
        verdicts(losses(right, drawn), {k: v for k, v in THRESHOLDS.items() if k != MISALIGNMENT})
