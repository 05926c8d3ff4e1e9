"""Stations: what rows say of every image arrives at the right station and in the right place, or is missed by name."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from station_rows import LAST, labels_of, made, names_of

from mlprobe_utils.errors import InputError
from mlprobe_utils.station_outcomes import single_outcomes, station_outcomes
from mlprobe_utils.stations import LAST_TOKEN, OUTPUT, PROBED, REFERENCE, STATIONS

SHARES = dict.fromkeys(STATIONS, 0.8)


def test_every_station_is_what_a_slow_reading_of_the_rows_says():
    shares = dict(zip(STATIONS, (0.95, 0.9, 0.8, 0.7, 0.6, 0.5), strict=True))
    tables, names = made(shares, 60), names_of(60)
    right = station_outcomes(**tables, images=names)
    assert tuple(right) == STATIONS
    for number, image in enumerate(names):
        label = labels_of(60)[number]
        for station, (module, pooling) in PROBED.items():
            for seed in range(5):
                rows = tables["probed"]
                chosen = (rows["image"] == image) & (rows["point"] == LAST[module]) & (rows["pooling"] == pooling)
                (p_yes,) = rows.loc[chosen & (rows["seed"] == seed), "p_Yes"]
                assert right[station][seed, number] == ((p_yes > 0.5) == (label == "Yes"))
        (answer,) = tables["predicted"].set_index("image").loc[[image], "parsed"]
        assert right[OUTPUT][number] == (answer == label)
        (p_yes,) = tables["reference"].set_index("image").loc[[image], "p_Yes"]
        assert right[REFERENCE][number] == ((p_yes > 0.5) == (label == "Yes"))


@settings(max_examples=5)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_is_nothing(seed):
    tables, names = made(SHARES, 20), names_of(20)
    shuffled = {name: rows.sample(frac=1, random_state=seed % 2**31) for name, rows in tables.items()}
    one, other = (station_outcomes(**own, images=names) for own in (tables, shuffled))
    for station in STATIONS:
        assert np.array_equal(np.sort(one[station], axis=0), np.sort(other[station], axis=0))  # seeds are not named


def test_rows_of_other_parts_do_not_count():
    tables, names = made(SHARES, 20), names_of(20)
    more = {name: pd.concat([rows, rows.assign(part="validation", label="No")]) for name, rows in tables.items()}
    one, other = (station_outcomes(**own, images=names) for own in (tables, more))
    assert all(np.array_equal(one[station], other[station]) for station in STATIONS)


def test_what_is_missing_is_named():
    tables, names = made(SHARES, 20), names_of(20)
    probed = tables["probed"]
    for station, (module, pooling) in PROBED.items():
        rest = probed[(probed["pooling"] != pooling) | (probed["point"].str[0] != module)]
        with pytest.raises(InputError, match=f"m on d, {station}: no probe rows of module {module}, {pooling}"):
            station_outcomes(**tables | {"probed": rest}, images=names)
    for name, station in (("predicted", OUTPUT), ("reference", REFERENCE)):
        with pytest.raises(InputError, match=f"m on d, {station}: test image 0000.png is there 0 times"):
            station_outcomes(**tables | {name: tables[name].iloc[:0]}, images=names)
    gone = tables["predicted"][tables["predicted"]["image"] != "0003.png"]
    with pytest.raises(InputError, match=r"final output: test image 0003\.png is there 0 times.*make the missing"):
        station_outcomes(**tables | {"predicted": gone}, images=names)


def test_what_is_too_much_is_named():
    tables, names = made(SHARES, 20), names_of(20)
    twice = pd.concat([tables["predicted"], tables["predicted"].assign(run=1)])
    with pytest.raises(InputError, match="there 2 times, expected once: choose one run"):
        station_outcomes(**tables | {"predicted": twice}, images=names)
    with pytest.raises(InputError, match=r"image 0019\.png is no test image of this split"):
        station_outcomes(**tables, images=names[:-1])


def test_an_image_that_a_probe_lacks_is_named():
    tables, names = made(SHARES, 20), names_of(20)
    of_last = tables["probed"]["pooling"] == PROBED[LAST_TOKEN][1]
    gone = tables["probed"][~(of_last & (tables["probed"]["image"] == "0007.png"))]
    with pytest.raises(InputError, match=rf"{LAST_TOKEN}: test image 0007\.png is there 0 times"):
        station_outcomes(**tables | {"probed": gone}, images=names)


def test_an_answer_that_names_no_option_is_wrong():
    rows = made(SHARES, 20)["predicted"]
    assert not single_outcomes(rows.assign(parsed=None), names_of(20), "answers", parsed=True).any()
