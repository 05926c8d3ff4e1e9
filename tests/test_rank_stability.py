"""Ranks of models by health score under other conventions: by hand, on planted orders, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from mlprobe_utils.health import health_score
from mlprobe_utils.health_simulation import simulate_correct
from mlprobe_utils.rank_stability import POINTS, rank_stability, resampled_curves

IMAGES = 150
COUNTS = np.random.default_rng(0).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=40)


def simulated(levels) -> dict[str, np.ndarray]:
    """Curves by model, rising by 5 points to a level."""
    generator = np.random.default_rng(1)
    return {
        f"model {place}": resampled_curves(
            simulate_correct(np.linspace(level - 0.05, level, 9), IMAGES, 0.9, generator), COUNTS
        )
        for place, level in enumerate(levels)
    }


def exact(curves: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {model: np.tile(curve, (3, 1)).astype(float) for model, curve in curves.items()}


def test_resampled_curves_are_those_of_the_drawn_images():
    generator = np.random.default_rng(2)
    correct = generator.random((4, 10)) < 0.7
    counts = generator.multinomial(10, np.full(10, 0.1), size=5)
    found = resampled_curves(correct, counts)
    assert found[0] == pytest.approx(correct.mean(axis=1))
    for row, drawn in zip(found[1:], counts, strict=True):
        assert row == pytest.approx(np.repeat(correct, drawn, axis=1).mean(axis=1))


def test_classes_weigh_the_same():
    correct = np.array([[True, True, True, False]])
    found = resampled_curves(correct, np.ones((1, 4), dtype=int), np.array(["a", "a", "a", "b"]))
    assert found == pytest.approx(np.full((2, 1), 0.5))


def test_points_that_are_left_out():
    curve = np.arange(5.0)[None]
    chosen = [choose(curve)[0].tolist() for choose in POINTS.values()]
    assert chosen == [[0, 2, 4], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert all(choose(curve[:, :1]).tolist() == [[0.0]] for choose in POINTS.values())


def test_lambda_turns_the_order_by_hand():
    """A jumps on the way and ends higher than B: it is ahead while jumping is cheap."""
    curves = exact({"A": [0.8, 0.6, 0.8], "B": [0.76, 0.76, 0.76]})
    assert health_score([0.8, 0.6, 0.8], 0.05) > 0.76 > health_score([0.8, 0.6, 0.8], 1.0)
    found = rank_stability({"accuracy": curves}, 0.05, [0.05, 1.0]).set_index("to")
    assert found.loc["1", ["tau", "low", "high"]].tolist() == [-1, -1, -1]
    assert found.loc["redrawn", ["tau", "low", "high"]].tolist() == [1, 1, 1]
    assert found["models"].tolist() == [2] * len(found)


def test_the_end_point_turns_the_order_by_hand():
    curves = exact({"A": [0.7, 0.7, 0.9], "B": [0.7, 0.8, 0.8], "C": [0.5, 0.5, 0.5]})
    found = rank_stability({"accuracy": curves}, 0.2).set_index("to")["tau"]
    assert found["without the last point"] == pytest.approx(1 / 3)


def test_taus_are_scipys_on_each_resample():
    curves = simulated([0.70, 0.74, 0.78, 0.82, 0.86])
    found = rank_stability({"accuracy": curves}, 0.2, [1.0]).iloc[0]
    scores = np.array([[[health_score(c, p) for c in own] for own in curves.values()] for p in (0.2, 1.0)])
    taus = [stats.kendalltau(scores[0, :, row], scores[1, :, row]).statistic for row in range(41)]
    assert found["tau"] == pytest.approx(taus[0])
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(taus[1:], [0.025, 0.975]))


def test_another_metric_takes_its_own_curves():
    accuracy = exact({"A": [0.7, 0.8], "B": [0.6, 0.7], "C": [0.5, 0.6]})
    reversed_order = dict(zip(accuracy, reversed(accuracy.values()), strict=True))
    found = rank_stability({"accuracy": accuracy, "recall": reversed_order}, 0.2).set_index("changed")
    assert found.at["metric", "to"] == "recall"
    assert found.at["metric", "tau"] == -1


def test_models_far_apart_keep_their_order_and_equal_ones_do_not():
    apart = rank_stability({"accuracy": simulated([0.4, 0.9])}, 0.2).set_index("to")
    alike = rank_stability({"accuracy": simulated([0.8] * 6)}, 0.2).set_index("to")
    assert apart.loc["redrawn", "low"] == 1
    assert alike.loc["redrawn", "low"] < 0.8


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ({}, "0 models: ranks need two or more"),
        ({"accuracy": exact({"A": [0.7]})}, "1 models: ranks need two or more"),
        ({"accuracy": exact({"A": [0.7], "B": [0.0]})}, r"curves of accuracy, B fall to 0\.0"),
        ({"accuracy": exact({"A": [0.7], "B": [0.8]}), "f1": exact({"A": [0.7]})}, "curves of f1 are of the models"),
        ({"accuracy": {"A": np.ones((3, 2)), "B": np.ones((2, 2))}}, "curves of accuracy, B need to be"),
    ],
)
def test_curves_without_ranks_are_an_error(curves, said):
    with pytest.raises(ValueError, match=said):
        rank_stability(curves, 0.2)


def test_resamples_that_do_not_fit_are_an_error():
    correct = np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match="of the same images"):
        resampled_curves(correct, np.ones((2, 3)))
    with pytest.raises(ValueError, match="classes has 3 images"):
        resampled_curves(correct, np.ones((2, 4)), np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="without an image of class 1"):
        resampled_curves(correct, np.array([[2, 2, 0, 0]]), np.array([0, 0, 1, 1]))
