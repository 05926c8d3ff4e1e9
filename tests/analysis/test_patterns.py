"""Patterns of section 4.1: each on a curve made to have it, exactly one a part, and how often noise makes one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_rows import no_more
from simulations import simulate_correct

from mlprobe_utils.analysis import patterns
from mlprobe_utils.analysis.patterns import BOTH, PARTS, PATTERNS
from mlprobe_utils.common.errors import InputError

IMAGES = 150
T = 8.0  # about the tolerance at 85 % of 150 images
FLAT = {"V": [80, 80, 80], "C": [80, 80], "L": [80, 80, 80], "output": [80]}
CURVE = len(FLAT)  # parts of one curve
BY_HAND = {
    ("V", "rise and fluctuate"): ([60, 75, 80, 79, 81, 80], [60, 80]),
    ("V", "rise and fall"): ([65, 72, 80, 80, 72, 65],),
    ("V", "sustained decline"): ([80, 80, 75, 72, 68, 65],),
    ("V", "unchanged"): ([80, 79, 81, 80, 82, 80], [80, 80, 80, 95, 80, 80], [80]),  # one point that jumps is no third
    ("C", "gain"): ([60, 90],),
    ("C", "preserved"): ([60, 80],),
    ("C", "loss"): ([80, 70], [70]),
    ("L", "drop and recover"): ([60, 70, 80],),
    ("L", "drop without recovery"): ([60, 62, 61], [60, 55, 50]),
    ("L", "rise"): ([80, 85, 90],),
    ("L", "unchanged"): ([80, 70, 80],),
    ("L", "gradual decline"): ([80, 75, 70],),
    ("output", "lower"): ([70],),
    ("output", "equal within noise"): ([85],),
    ("output", "higher"): ([90],),
    ("shape", "same shape"): ([-5, -5, -5, -5, -5, -5], [5, 4, 0, 1, -2, 0], [12]),
    ("shape", "different shape"): ([5, 4, 0, -2, -5, -6], [0, 0, 12, 12, 0, 0]),
}
accuracies = st.lists(st.floats(20, 80), min_size=1, max_size=12)
curves = st.fixed_dictionaries(
    {"V": accuracies, "C": accuracies, "L": accuracies, "output": st.tuples(st.floats(20, 80)), "shape": accuracies}
)


def names_of(curve: dict, t: float = T) -> dict[str, str]:
    """part -> pattern, by the rules alone; fails unless exactly one holds in every part of the curve."""
    read = patterns.numbers({part: np.array(points, dtype=float) for part, points in curve.items()})
    holding = [pattern for pattern in PATTERNS if pattern.part in curve and pattern.holds(read, t)]
    assert sorted(pattern.part for pattern in holding) == sorted(curve)
    return {pattern.part: pattern.name for pattern in holding}


def scores_of(curve: dict, **state) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probe scores and output scores of one curve, two runs that lie one point above and below it."""
    state = {"model": "m", "dataset": "busi", "stage": "pretrained"} | state
    rows = [
        state | {"run": run, "pooling": "image_mean", "point": f"{part}.{i:02d}", "images": IMAGES, "accuracy": value}
        for part, points in curve.items()
        if part != "output"
        for i, mean in enumerate(points)
        for run, value in ((0, mean - 1), (1, mean + 1))
    ]
    outputs = [state | {"run": run, "accuracy": curve["output"][0]} for run in (0, 1)]
    return pd.DataFrame(rows), pd.DataFrame(outputs)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: f"{pattern.part} {pattern.name}")
def test_every_pattern_on_a_curve_that_has_it(pattern):
    for points in BY_HAND[pattern.part, pattern.name]:
        assert names_of(FLAT | {pattern.part: points})[pattern.part] == pattern.name


@given(curves, st.floats(0, 60))
def test_every_curve_has_exactly_one_pattern_a_part(curve, t):
    assert set(names_of(curve, t)) == set(PARTS)


def test_tolerance_by_hand():
    """At 80 % of 100 images a proportion has a standard error of 4 points, a difference of two of 4 sqrt(2)."""
    assert patterns.tolerance(80, 100) == pytest.approx(2 * 4 * np.sqrt(2))


def test_patterns_of_scores_and_how_many_curves_have_each():
    risen = FLAT | {"V": [60, 80, 80], "output": [60]}
    fallen = FLAT | {"V": [80, 80, 60]}
    parts = [scores_of(risen), scores_of(FLAT | {"V": [60, 80, 80]}, stage="finetuned")]
    parts += [scores_of(risen, dataset="other"), scores_of(fallen, dataset="other", stage="finetuned")]
    scores, outputs = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    last_token = scores.assign(pooling="last_token", accuracy=1.0)
    scores = pd.concat([last_token, scores]).sample(frac=1, random_state=0)  # neither order nor other poolings matter
    found = patterns.patterns(scores, outputs)
    table = patterns.counts(found, {"busi": "BUSI"}).set_index(["module", "pattern"])
    assert len(found) == 4 * CURVE + 2  # and a comparison of the stages on each data set
    found = found.set_index(["dataset", "stage", "module"])
    expected = {("busi", "pretrained", "V"): "rise and fluctuate", ("busi", "pretrained", "output"): "lower"}
    expected |= {("other", "finetuned", "V"): "sustained decline", ("other", "finetuned", "C"): "gain"}
    expected |= {("busi", BOTH, "shape"): "same shape", ("other", BOTH, "shape"): "different shape"}
    assert expected.items() <= found["pattern"].to_dict().items()
    assert found.at[("busi", "pretrained", "V"), "change"] == "rise +20.0, fall +0.0"
    assert found.at[("other", BOTH, "shape"), "change"] == "bend +40.0"  # first third 60 -> 80, last third 80 -> 60
    own = patterns.tolerance(np.mean([60, 80, 80, 80, 80, 80, 80, 80]), IMAGES)
    assert found["tolerance"].to_numpy() == pytest.approx(own)
    assert tuple(table.loc[("vision tower", "rise and fluctuate")]) == (2, 1, "BUSI 2, other 1")
    for part in list(PARTS.values())[:CURVE]:
        assert list(table.loc[part][["before", "after"]].sum()) == [2, 2]
    assert dict(table.loc[PARTS["shape"]]["after"]) == {"same shape": 1, "different shape": 1}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s, o: (s[s["point"].str[0] != "C"], o), r"m on busi, .*: no probe point of the connector \(C\)"),
        (lambda s, o: (s, o.iloc[:0]), "m on busi, pretrained: no accuracy of the final output"),
        (lambda s, o: (s.assign(pooling="last_token"), o), "image_mean"),
    ],
)
def test_what_is_missing_is_named(broken, message):
    with pytest.raises(InputError, match=message):
        patterns.changes(*broken(*scores_of(FLAT)))


@pytest.mark.parametrize("correlation", [0, 0.9])
def test_a_flat_vision_tower_is_rarely_called_something_else_and_a_risen_one_rarely_flat(correlation):
    for rise, pattern, most in ((0, "unchanged", 0.06), (0.2, "rise and fluctuate", 0.02)):
        true, generator = 0.85 - rise * np.maximum(0, np.linspace(1, -1, 30)), np.random.default_rng(0)
        curves = [100 * simulate_correct(true, IMAGES, correlation, generator).mean(axis=1) for _ in range(100)]
        called = [names_of(FLAT | {"V": row}, patterns.tolerance(row.mean(), IMAGES))["V"] for row in curves]
        assert no_more(100 - called.count(pattern), 100, most)
