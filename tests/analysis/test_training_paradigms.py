"""Ways to train a vision tower: a planted advantage is significant, chance is not; all runs and seeds are paired."""

import numpy as np
import pandas as pd
import pytest
from made_rows import answers_of, right_of
from station_rows import SEEDS, image_set, rows_of
from tiny_parts import RECIPE

from mlprobe_utils.analysis import training_paradigms
from mlprobe_utils.analysis.training_paradigms import (
    ALONE,
    COMPARED,
    FINE_TUNED,
    HIGHER,
    LOWER,
    NEITHER,
    PARADIGMS,
    PROBES,
    Reading,
    crossed,
    differences,
    levels,
    told_apart,
)
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.paired_tests import sign_flip_p

IMAGES = 300
HARD = np.random.default_rng(1).random(IMAGES)
DRAWN, NAMES = resamples_of_tested(image_set(IMAGES), "paper")
EQUAL = dict.fromkeys(PARADIGMS, 0.75)


def reading(shares: dict[str, float], dataset: str = "d") -> Reading:
    right = {}
    for number, (paradigm, share) in enumerate(shares.items()):
        seeds = SEEDS if paradigm in PROBES.values() else 2
        right[paradigm] = right_of(HARD, share, [number, len(dataset), ord(dataset[-1])], (seeds, 1))
    return Reading("m", dataset, right, DRAWN)


@pytest.mark.parametrize(
    ("changed", "share", "verdict"), [("all", 0.95, HIGHER), ("lora", 0.5, LOWER), ("all", 0.75, NEITHER)]
)
def test_a_planted_difference_is_significant_and_no_other_is(changed, share, verdict):
    readings = [reading(EQUAL | {ALONE[changed]: share}, f"d{n}") for n in range(5 if verdict == NEITHER else 1)]
    table = differences(readings)
    pairs = list(zip(table["paradigm"], table["less"], strict=True))
    assert pairs == COMPARED * len(readings)
    planted = table["paradigm"] == ALONE[changed]
    assert planted.any()
    assert (table.loc[planted, "verdict"] == verdict).all()
    assert table.loc[planted, "difference"].to_numpy() == pytest.approx(100 * (share - 0.75), abs=5)
    assert (table.loc[~planted, "verdict"] == NEITHER).all()
    assert (table["low"] < table["difference"]).all()
    assert (table["difference"] < table["high"]).all()


def test_each_run_is_paired_with_each_seed():
    own = reading(EQUAL).right
    one, other = crossed(own[FINE_TUNED], own[PROBES["pretrained"]])
    assert one.shape == other.shape == (2 * SEEDS, 1, IMAGES)
    pairs = {(a.tobytes(), b.tobytes()) for a, b in zip(one, other, strict=True)}
    assert pairs == {(a.tobytes(), b.tobytes()) for a in own[FINE_TUNED] for b in own[PROBES["pretrained"]]}
    table = differences([reading(EQUAL)]).set_index(["paradigm", "less"])
    found = table.loc[(FINE_TUNED, PROBES["pretrained"])]
    assert found["difference"] == pytest.approx(100 * (own[FINE_TUNED].mean() - own[PROBES["pretrained"]].mean()))
    assert found["p"] == pytest.approx(sign_flip_p(other, one, DRAWN.clusters)[0])


def test_levels_are_means_over_what_was_trained():
    own = reading(EQUAL | {FINE_TUNED: 0.6})
    table = levels([own]).set_index("paradigm")
    assert table.index.tolist() == [*PARADIGMS]
    for paradigm, right in own.right.items():
        assert table.at[paradigm, "accuracy"] == pytest.approx(100 * right.mean())
        assert table.at[paradigm, "trained"] == len(right)
    assert (table["low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["high"]).all()


def rows() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict]:
    """Rows of every paradigm in which each has images of its own right, and which those are."""
    generator = np.random.default_rng(7)
    right = {paradigm: generator.random(IMAGES) < 0.7 for paradigm in PARADIGMS}
    answers = pd.concat(
        [answers_of(right[FINE_TUNED] ^ (stage == "pretrained"), stage=stage, run=run)
         for stage, run in (("pretrained", None), ("finetuned", 0), ("finetuned", 1))]
    )  # fmt: skip
    place = {"pooling": "image_mean", "point": "V.05", "probe": "main"}
    probed = [
        rows_of(right[name] ^ (point != "V.05"), seed, stage=stage, seed=seed, **place | {"point": point})
        for stage, name in PROBES.items() for seed in range(SEEDS) for point in ("V.05", "C.01", "L.03")
    ]  # fmt: skip
    alone = [
        rows_of(right[name], run, run=run, seed=run, **place | {"probe": way})
        for way, name in ALONE.items() for run in range(2)
    ]  # fmt: skip
    return answers, pd.concat(probed), pd.concat(alone), right


def test_outcomes_are_those_of_each_paradigms_own_rows():
    *tables, right = rows()
    validation = [table.head(5).assign(part="validation") for table in tables]  # is not asked
    both = [pd.concat(pair, ignore_index=True) for pair in zip(tables, validation, strict=True)]
    found = told_apart(*both, "m on d", NAMES)
    for paradigm, own in found.items():
        assert (own == right[paradigm]).all(), paradigm
    assert found.keys() == right.keys()
    assert {paradigm: len(own) for paradigm, own in found.items()} == {
        FINE_TUNED: 2, **dict.fromkeys(PROBES.values(), SEEDS), **dict.fromkeys(ALONE.values(), 2)
    }  # fmt: skip


def test_rows_of_other_images_are_refused():
    answers, probed, alone, _ = rows()
    fewer = alone[alone["image"] != NAMES[3]]
    with pytest.raises(InputError, match="m on d, tower alone, all weights: its rows are not of the test images"):
        told_apart(answers, probed, fewer, "m on d", NAMES)


def test_the_budget_is_that_of_the_fine_tuning():
    own = image_set(10)
    own.part = lambda split, part: own.manifest.head(9) if part == "train" else None
    table = training_paradigms.budgets({"d": own}, "paper", RECIPE)
    assert table.to_numpy().tolist() == [["d", 9, RECIPE.epochs, 4, 3 * RECIPE.epochs]]
