"""Patterns of section 4.1: each on a curve made to have it, exactly one a part, and how often noise makes one."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_rows import no_more

from mlprobe_utils.analysis.patterns import (
    BOTH,
    PARTS,
    PATTERNS,
    by_curve,
    changes,
    counts,
    numbers,
    patterns,
    rules,
    tolerance,
)
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.plots.tables import table_html

IMAGES = 150
T = 8.0  # about the tolerance at 85 % of 150 images
FLAT = {"V": [80, 80, 80], "C": [80, 80], "L": [80, 80, 80], "output": [80]}
CURVE = len(FLAT)  # parts of one curve


def names_of(curve: dict, t: float = T) -> dict[str, str]:
    """part -> pattern, by the rules alone; fails unless exactly one holds in every part of the curve."""
    read = numbers({part: np.array(points, dtype=float) for part, points in curve.items()})
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


def together(*parts: tuple[pd.DataFrame, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores, outputs = zip(*parts, strict=True)
    return pd.concat(scores, ignore_index=True), pd.concat(outputs, ignore_index=True)


@pytest.mark.parametrize(
    ("part", "changed", "expected"),
    [
        ("V", {"V": [60, 75, 80, 79, 81, 80], "C": [80, 80]}, "rise and fluctuate"),
        ("V", {"V": [65, 72, 80, 80, 72, 65]}, "rise and fall"),
        ("V", {"V": [80, 80, 75, 72, 68, 65]}, "sustained decline"),
        ("V", {"V": [80, 79, 81, 80, 82, 80]}, "unchanged"),
        ("V", {"V": [80, 80, 80, 95, 80, 80]}, "unchanged"),  # one point that jumps is no third
        ("V", {"V": [80]}, "unchanged"),
        ("V", {"V": [60, 80]}, "rise and fluctuate"),
        ("C", {"C": [60, 90]}, "gain"),
        ("C", {"C": [60, 80]}, "preserved"),
        ("C", {"C": [80, 70]}, "loss"),
        ("C", {"C": [70]}, "loss"),
        ("L", {"L": [60, 70, 80]}, "drop and recover"),
        ("L", {"L": [60, 62, 61]}, "drop without recovery"),
        ("L", {"L": [60, 55, 50]}, "drop without recovery"),
        ("L", {"L": [80, 85, 90]}, "rise"),
        ("L", {"L": [80, 70, 80]}, "unchanged"),
        ("L", {"L": [80, 75, 70]}, "gradual decline"),
        ("output", {"output": [70]}, "lower"),
        ("output", {"output": [85]}, "equal within noise"),
        ("output", {"output": [90]}, "higher"),
        ("shape", {"shape": [-5, -5, -5, -5, -5, -5]}, "same shape"),
        ("shape", {"shape": [5, 4, 0, 1, -2, 0]}, "same shape"),
        ("shape", {"shape": [5, 4, 0, -2, -5, -6]}, "different shape"),
        ("shape", {"shape": [0, 0, 12, 12, 0, 0]}, "different shape"),
        ("shape", {"shape": [12]}, "same shape"),
    ],
)
def test_every_pattern_on_a_curve_that_has_it(part, changed, expected):
    assert names_of(FLAT | changed)[part] == expected


def test_every_pattern_is_on_some_hand_made_curve():
    marks = test_every_pattern_on_a_curve_that_has_it.pytestmark
    shown = {(part, name) for part, _, name in marks[0].args[1]}
    assert shown == {(pattern.part, pattern.name) for pattern in PATTERNS}


accuracies = st.lists(st.floats(20, 80), min_size=1, max_size=12)
curves = st.fixed_dictionaries(
    {"V": accuracies, "C": accuracies, "L": accuracies, "output": st.tuples(st.floats(20, 80)), "shape": accuracies}
)


@given(curves, st.floats(0, 60))
def test_every_curve_has_exactly_one_pattern_a_part(curve, t):
    assert set(names_of(curve, t)) == set(PARTS)


def test_tolerance_by_hand():
    """At 80 % of 100 images a proportion has a standard error of 4 points, a difference of two of 4 sqrt(2)."""
    assert tolerance(80, 100) == pytest.approx(2 * 4 * np.sqrt(2))
    assert tolerance(80, 100, errors=1) == pytest.approx(4 * np.sqrt(2))
    assert tolerance(80, 400) == pytest.approx(tolerance(80, 100) / 2)
    for errors, expected in ((1.0, "rise and fluctuate"), (3.0, "unchanged")):
        found = patterns(*scores_of(FLAT | {"V": [70, 80, 80]}), errors).set_index("module")
        assert found["pattern"]["V"] == expected


def test_patterns_of_scores():
    risen = FLAT | {"V": [60, 80, 80], "output": [60]}
    fallen = FLAT | {"V": [80, 80, 60]}
    scores, outputs = together(
        scores_of(risen), scores_of(FLAT | {"V": [60, 80, 80]}, stage="finetuned"),
        scores_of(risen, dataset="other"), scores_of(fallen, dataset="other", stage="finetuned"),
    )  # fmt: skip
    last_token = scores.assign(pooling="last_token", accuracy=1.0)
    scores = pd.concat([last_token, scores]).sample(frac=1, random_state=0)  # neither order nor other poolings matter
    found = patterns(scores, outputs)
    assert len(found) == 4 * CURVE + 2  # and a comparison of the stages on each data set
    named = found.set_index(["dataset", "stage", "module"])["pattern"]
    assert named["busi", "pretrained", "V"] == "rise and fluctuate"
    assert named["other", "finetuned", "V"] == "sustained decline"
    assert named["other", "finetuned", "C"] == "gain"
    assert named["busi", "pretrained", "output"] == "lower"
    first = found[(found["dataset"] == "busi") & (found["stage"] == "pretrained")].set_index("module")
    assert first["change"]["V"] == "rise +20.0, fall +0.0"
    points = [60, 80, 80, 80, 80, 80, 80, 80]
    assert first["tolerance"]["V"] == pytest.approx(tolerance(np.mean(points), IMAGES))
    assert named["busi", BOTH, "shape"] == "same shape"
    assert named["other", BOTH, "shape"] == "different shape"
    compared = found[found["stage"] == BOTH].set_index("dataset")
    assert compared["change"]["other"] == "bend +40.0"  # first third 60 -> 80, last third 80 -> 60
    falling = np.mean([80, 80, 60, *points[3:]])
    assert compared["tolerance"]["other"] == pytest.approx(tolerance(min(np.mean(points), falling), IMAGES))


def test_counts_list_every_pattern_and_add_up():
    risen = FLAT | {"V": [60, 80, 80]}
    scores, outputs = together(
        scores_of(risen), scores_of(risen, stage="finetuned"), scores_of(FLAT, dataset="x", stage="finetuned")
    )
    found = patterns(scores, outputs)
    table = counts(found, {"busi": "BUSI"}).set_index(["module", "pattern"])
    assert len(table) == len(PATTERNS) == len(rules().drop_duplicates(["module", "pattern"]))
    assert tuple(table.loc[("vision tower", "rise and fluctuate")]) == (1, 1, "BUSI 2")
    assert tuple(table.loc[("vision tower", "unchanged")]) == (0, 1, "x 1")
    assert tuple(table.loc[("connector", "loss")]) == (0, 0, "")
    for part in list(PARTS.values())[:CURVE]:
        assert list(table.loc[part][["before", "after"]].sum()) == [1, 2]
    compared = table.loc[PARTS["shape"]]
    assert compared["before"].isna().all()
    assert dict(compared["after"]) == {"same shape": 1, "different shape": 0}  # x has no stage before to compare
    page = table_html(table.reset_index())
    assert "<td>same shape</td>" in page
    assert not re.search("nan|NA|None|1[.]0", page)
    assert by_curve(found).set_index(["stage", "dataset"]).loc[("finetuned", "x")].to_dict() == {
        "model": "m", "vision tower": "unchanged", "connector": "preserved", "LLM": "unchanged",
        "final output": "equal within noise",
    }  # fmt: skip


def test_a_rule_is_written_in_words():
    row = rules().set_index(["module", "pattern"]).loc[("LLM", "drop and recover")]
    assert row["rule"] == (
        "connector's last point − LLM's first point > t and LLM's last point − LLM's first point > t"
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s, o: (s[s["point"].str[0] != "C"], o), r"m on busi: no probe point of the connector \(C\)"),
        (lambda s, o: (s[s["point"] != "L.01"], o), r"m on busi, pretrained, run 0: .* L\.01"),
        (lambda s, o: (s[(s["point"] != "V.02") | (s["run"] == 0)], o), r"run 1: .* V\.02"),
        (lambda s, o: (s.assign(accuracy=s["accuracy"].where(s["point"] != "V.00")), o), r"V\.00"),
        (lambda s, o: (s, o.iloc[:0]), "m on busi, pretrained: no accuracy of the final output"),
        (lambda s, o: (s.assign(pooling="last_token"), o), "image_mean"),
        (lambda s, o: (s.assign(images=np.arange(len(s))), o), "images"),
    ],
)
def test_what_is_missing_is_named(broken, message):
    with pytest.raises(InputError, match=message):
        changes(*broken(*scores_of(FLAT)))


def noisy(points: int, images: int, kind: str, times: int, rise: float = 0) -> np.ndarray:
    """Accuracies [times, points] in percent of probes that are truly at 85 %, after a rise up to the middle point.

    Outcomes on one image: independent between points; correlated at 0.9 between neighbours (a point keeps its
    predecessor's luck with probability 0.9); or at 0.9 between all (each keeps a common one with sqrt(0.9)).
    """
    random = np.random.default_rng(0)
    luck = random.random((times, points, images))
    if kind == "neighbours":
        keeps = random.random(luck.shape) < 0.9
        for point in range(1, points):
            luck[:, point] = np.where(keeps[:, point], luck[:, point - 1], luck[:, point])
    if kind == "all":
        keeps = random.random(luck.shape) < np.sqrt(0.9)
        luck = np.where(keeps, random.random((times, 1, images)), luck)
    true = 0.85 - rise / 100 * np.maximum(0, 1 - 2 * np.linspace(0, 1, points))
    return 100 * (luck < true[:, None]).mean(axis=2)


def named(values: np.ndarray, part: str, curve_of) -> list[str]:
    """The pattern that each of the noisy curves [times, points] has in a part."""
    return [names_of(FLAT | curve_of(row), tolerance(row.mean(), IMAGES))[part] for row in values]


@pytest.mark.parametrize(("kind", "most"), [("independent", 0.02), ("neighbours", 0.06), ("all", 0.01)])
def test_a_flat_vision_tower_is_rarely_called_something_else_and_a_risen_one_rarely_flat(kind, most):
    """The figures of the module's docstring."""
    called = named(noisy(points=30, images=IMAGES, kind=kind, times=300), "V", lambda row: {"V": row})
    assert no_more(300 - called.count("unchanged"), 300, most)
    called = named(noisy(points=30, images=IMAGES, kind=kind, times=100, rise=20), "V", lambda row: {"V": row})
    assert no_more(100 - called.count("rise and fluctuate"), 100, 0.02)


@pytest.mark.parametrize(
    ("kind", "part", "expected", "curve_of"),
    [
        ("independent", "C", "preserved", lambda row: {"V": row[:1], "C": row[1:]}),
        ("all", "output", "equal within noise", lambda row: {"L": row[:1], "output": row[1:]}),
    ],
)
def test_comparison_of_two_equal_points_is_mostly_within_noise(kind, part, expected, curve_of):
    called = named(noisy(points=2, images=IMAGES, kind=kind, times=300), part, curve_of)
    assert no_more(300 - called.count(expected), 300, 0.06)


@pytest.mark.parametrize(
    ("points", "kind", "rise"), [(6, "neighbours", 0), (30, "independent", 9), (30, "neighbours", 9), (6, "all", 15)]
)
def test_one_true_curve_has_one_shape(points, kind, rise):
    """The stages' outcomes taken as independent of each other, which is the worst case."""
    values = noisy(points, IMAGES, kind, times=400, rise=rise)
    called = [shape_of(before, after) for before, after in zip(values[::2], values[1::2], strict=True)]
    assert no_more(called.count("different shape"), 200, 0.15)


def test_different_true_shapes_are_distinguished():
    """A rise of 25 points against none; on 150 images smaller bends often stay within the tolerance."""
    flat, risen = (noisy(30, IMAGES, "neighbours", times=100, rise=rise) for rise in (0, 25))
    called = [shape_of(before, after) for before, after in zip(flat, risen, strict=True)]
    assert no_more(called.count("same shape"), 100, 0.05)


def shape_of(before: np.ndarray, after: np.ndarray) -> str:
    widest = max(tolerance(row.mean(), IMAGES) for row in (before, after))
    return names_of({"shape": after - before}, widest)["shape"]
