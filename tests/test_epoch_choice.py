"""Choosing an epoch: what each way takes, what choosing on test adds where nothing is to gain, and where there is."""

import numpy as np
import pytest
from baseline_parts import answers, training

from mlprobe_utils.baseline_results import Trained
from mlprobe_utils.epoch_choice import (
    LAST,
    ON_TEST,
    ON_VALIDATION,
    addition_of_each,
    additions,
    by_chance,
    epochs_chosen,
    right_of_other_half,
    right_when,
)
from mlprobe_utils.errors import InputError
from mlprobe_utils.resampling import resample

EPOCHS, IMAGES = 10, 150
DRAWN = resample(np.arange(IMAGES), 400)


def test_each_way_takes_its_epoch_and_the_earliest_of_equals():
    rises = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
    falls = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    own = Trained("b", answers(np.stack([rises, falls])), answers(np.stack([falls, rises])), 1, 64)
    assert epochs_chosen(own, LAST).tolist() == [3, 3]
    assert epochs_chosen(own, ON_VALIDATION).tolist() == [1, 2]
    assert epochs_chosen(own, ON_TEST).tolist() == [2, 1]
    assert right_when(own, ON_VALIDATION).tolist() == [[falls[1].tolist()], [rises[2].tolist()]]
    with pytest.raises(InputError, match="unknown way of choosing an epoch 'chosen on tests': did you mean"):
        epochs_chosen(own, "chosen on tests")


def test_an_image_is_never_judged_by_an_epoch_that_its_own_half_chose():
    """Two epochs, each right where the other is wrong: the half that counts always prefers the other epoch."""
    left = np.arange(IMAGES) < IMAGES / 2
    own = Trained("b", answers(np.stack([left, ~left])[None]), answers(np.stack([left, ~left])[None]), 1, 64)
    alone, together = np.arange(IMAGES), np.where(left, 0, 1)
    assert right_of_other_half(own, alone).mean() < 0.5
    halves = right_of_other_half(own, together)  # each epoch is right for one cluster, which is never split
    assert not halves.any()


def test_where_epochs_are_equally_good_something_is_added_and_nothing_is_left():
    expected = by_chance(EPOCHS, [IMAGES], [0.8], 0.8, 400).iloc[0]
    assert expected["added"] > 2 > 4 * expected["error"]
    found = []
    for seed in range(40):
        same = [training(f"b{n}", [0.8] * EPOCHS, IMAGES, seed=100 * seed + n, noise=0.1) for n in range(4)]
        found.append(additions({"d": same}, {"d": DRAWN}).iloc[0])
    added = np.array([own["added"] for own in found])
    assert added.min() > 0
    assert added.mean() > 1
    held = np.mean([own["added, low"] <= added.mean() <= own["added, high"] for own in found])
    assert held >= 0.85
    left = np.array([own["left"] for own in found])
    assert abs(left.mean()) < 3 * left.std(ddof=1) / np.sqrt(len(left)) + 0.1
    assert np.mean([own["left, low"] > 0 for own in found]) <= 0.1


def test_a_better_epoch_that_validation_misses_is_added_and_left():
    shares, misled = [0.6] * 5 + [0.85] + [0.6] * 4, [0.7] + [0.6] * 9
    planted = [training(f"b{n}", shares, IMAGES, validation=misled, seed=n, noise=0.02) for n in range(3)]
    (own,) = additions({"d": planted}, {"d": DRAWN}).to_dict("records")
    assert own["baselines"] == 3
    for name in ("added", "left"):
        assert own[f"{name}, low"] > 10
        assert own[name] == pytest.approx(25, abs=4)
    assert own[ON_TEST] == pytest.approx(own[ON_VALIDATION] + own["added"])
    each = addition_of_each({"d": planted}, {"d": DRAWN})
    assert each["baseline"].tolist() == ["b0", "b1", "b2"]
    assert each[f"epoch ({ON_VALIDATION})"].tolist() == ["1"] * 3
    assert each[f"epoch ({ON_TEST})"].tolist() == ["6"] * 3
    assert each["added"].mean() == pytest.approx(own["added"])


def test_chance_adds_less_on_more_images_and_where_epochs_agree():
    found = by_chance(EPOCHS, [150, 624], [0.5, 0.95], 0.85, 100).set_index(["images", "correlation"])["added"]
    assert found[150, 0.5] > found[624, 0.5] > found[624, 0.95] > 0
    more = by_chance(100, [150], [0.5], 0.85, 100)["added"].iloc[0]
    assert more > found[150, 0.5]
    alone = by_chance(1, [150], [0.5], 0.85, 400).iloc[0]
    assert abs(alone["added"]) < 4 * alone["error"]
