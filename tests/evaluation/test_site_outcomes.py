"""Sites: what rows say of every image arrives at the right site and in the right place, or is missed by name."""

import numpy as np
import pandas as pd
import pytest
from site_rows import LAST, labels_of, made, names_of

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.outcomes import single_outcomes, site_outcomes
from mlprobe_utils.evaluation.sites import LAST_TOKEN, OUTPUT, PROBED, REFERENCE, SITES

SHARES = dict.fromkeys(SITES, 0.8)


def test_every_site_is_what_a_loop_over_the_rows_finds():
    shares = dict(zip(SITES, (0.95, 0.9, 0.8, 0.7, 0.6, 0.5), strict=True))
    tables, names = made(shares, 60), names_of(60)
    right = site_outcomes(**tables, images=names)
    other = {name: rows.assign(split="validation", label="No") for name, rows in tables.items()}  # does not count
    more = {name: pd.concat([rows, other[name]]) for name, rows in tables.items()}
    for site, own in site_outcomes(**more, images=names).items():
        assert np.array_equal(own, right[site])
    assert tuple(right) == SITES
    for number, image in enumerate(names):
        label = labels_of(60)[number]
        for site, (module, pooling) in PROBED.items():
            for seed in range(5):
                rows = tables["probed"]
                chosen = (rows["image"] == image) & (rows["point"] == LAST[module]) & (rows["pooling"] == pooling)
                (p_yes,) = rows.loc[chosen & (rows["seed"] == seed), "p_Yes"]
                assert right[site][seed, number] == ((p_yes > 0.5) == (label == "Yes"))
        (answer,) = tables["predicted"].set_index("image").loc[[image], "parsed"]
        assert right[OUTPUT][number] == (answer == label)
        (p_yes,) = tables["reference"].set_index("image").loc[[image], "p_Yes"]
        assert right[REFERENCE][number] == ((p_yes > 0.5) == (label == "Yes"))
    assert not single_outcomes(tables["predicted"].assign(parsed=None), names, "answers", parsed=True).any()


def test_what_is_missing_is_named():
    tables, names = made(SHARES, 20), names_of(20)
    probed = tables["probed"]
    for site, (module, pooling) in PROBED.items():
        rest = probed[(probed["pooling"] != pooling) | (probed["point"].str[0] != module)]
        with pytest.raises(InputError, match=f"m on d, {site}: no probe rows of module {module}, {pooling}"):
            site_outcomes(**tables | {"probed": rest}, images=names)
    for name, site in (("predicted", OUTPUT), ("reference", REFERENCE)):
        with pytest.raises(InputError, match=f"m on d, {site}: test image 0000.png is there 0 times"):
            site_outcomes(**tables | {name: tables[name].iloc[:0]}, images=names)
    last = (probed["pooling"] == PROBED[LAST_TOKEN][1]) & (probed["image"] == "0007.png")
    with pytest.raises(InputError, match=rf"{LAST_TOKEN}: test image 0007\.png is there 0 times"):
        site_outcomes(**tables | {"probed": probed[~last]}, images=names)
    gone = tables["predicted"][tables["predicted"]["image"] != "0003.png"]
    with pytest.raises(InputError, match=r"final output: test image 0003\.png is there 0 times.*make the missing"):
        site_outcomes(**tables | {"predicted": gone}, images=names)


def test_what_is_too_much_is_named():
    tables, names = made(SHARES, 20), names_of(20)
    twice = pd.concat([tables["predicted"], tables["predicted"].assign(run=1)])
    with pytest.raises(InputError, match="there 2 times, expected once: choose one run"):
        site_outcomes(**tables | {"predicted": twice}, images=names)
    with pytest.raises(InputError, match=r"image 0019\.png is no test image of this split"):
        site_outcomes(**tables, images=names[:-1])
