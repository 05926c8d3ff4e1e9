"""Ways to train a vision tower: a planted advantage is significant, chance is not; all runs and seeds are paired."""

import numpy as np
import pandas as pd
import pytest
from made_rows import answers_of, right_of
from site_rows import SEEDS, image_set, rows_of
from tiny_parts import RECIPE

from mlprobe_utils.analysis import training_paradigms
from mlprobe_utils.analysis.training_paradigms import ALONE, COMPARED, FINE_TUNED, PARADIGMS, PROBES, differences
from mlprobe_utils.pipeline import results, variants
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, evaluated
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER, sign_flip_p

IMAGES = 300
HARD = np.random.default_rng(1).random(IMAGES)
EQUAL = dict.fromkeys(PARADIGMS, 0.75)
SELECTION, SETS = Selection(("m",), ("d",), "miniature", "paper"), {"d": image_set(IMAGES)}


@pytest.fixture
def of(monkeypatch):
    """Reads rows in which every paradigm has a share correct of its own, and all others nothing."""

    def read(shares: dict[str, float]) -> Evaluated:
        right = {name: right_of(HARD, share, n, (SEEDS, 1)) for n, (name, share) in enumerate(shares.items())}
        answers = [answers_of(right[FINE_TUNED][run, 0], stage="finetuned", run=run) for run in (0, 1)]
        answers.append(answers_of(~right[FINE_TUNED][0, 0], stage="pretrained", run=None))
        probed = [
            rows_of(own[seed, 0] ^ (point != "V.05"), stage=stage, seed=seed, point=point, pooling="image_mean")
            for stage, own in ((stage, right[name]) for stage, name in PROBES.items())
            for seed in range(SEEDS)
            for point in ("V.05", "C.01", "L.03")
        ]
        alone = [
            rows_of(right[name][run, 0], run=run, seed=run, probe=way, point="V.05")
            for way, name in ALONE.items()
            for run in (0, 1)
        ]
        for module, function, rows in (
            (results, "prediction_rows", answers),
            (results, "end_rows", probed),
            (variants, "classifier_rows", alone),
        ):
            table = pd.concat([*rows, rows[0].head(5).assign(split="validation")], ignore_index=True)
            monkeypatch.setattr(module, function, lambda selection, table=table: table)
        (found,) = evaluated(SELECTION, SETS, training_paradigms.outcomes_of)
        for name, own in found.outcomes.items():
            assert (own.correct == right[name[0]][: len(own.seeds)]).all(), name
        return found

    return read


@pytest.mark.parametrize(
    ("changed", "share", "verdict"), [("all", 0.95, HIGHER), ("lora", 0.5, LOWER), ("all", 0.75, NEITHER)]
)
def test_a_planted_difference_is_significant_and_no_other_is(of, changed, share, verdict):
    found = of(EQUAL | {ALONE[changed]: share})
    table = differences([found])
    assert list(zip(table["paradigm"], table["less"], strict=True)) == COMPARED
    planted = table["paradigm"] == ALONE[changed]
    assert (table.loc[planted, "verdict"] == verdict).all()
    assert table.loc[planted, "difference"].to_numpy() == pytest.approx(100 * (share - 0.75), abs=5)
    assert (table.loc[~planted, "verdict"] == NEITHER).all()
    levels = training_paradigms.levels([found]).set_index("paradigm")
    assert levels["trained"].tolist() == [2, SEEDS, SEEDS, 2, 2]
    for (paradigm,), own in found.outcomes.items():
        assert levels.at[paradigm, "accuracy"] == pytest.approx(100 * own.correct.mean())
    assert (levels["low"] < levels["accuracy"]).all()


def test_each_run_is_paired_with_each_seed(of):
    found = of(EQUAL)
    sides = [found.outcomes[name,].correct for name in (FINE_TUNED, PROBES["pretrained"])]
    one, other = training_paradigms.crossed(*sides)
    assert one.shape == other.shape == (2 * SEEDS, 1, IMAGES)
    pairs = {(a.tobytes(), b.tobytes()) for a, b in zip(one, other, strict=True)}
    assert pairs == {(a.tobytes(), b.tobytes()) for a in sides[0] for b in sides[1]}
    row = differences([found]).set_index(["paradigm", "less"]).loc[(FINE_TUNED, PROBES["pretrained"])]
    assert row["difference"] == pytest.approx(100 * (sides[0].mean() - sides[1].mean()))
    assert row["p"] == pytest.approx(sign_flip_p(other, one, found.resamples.clusters)[0])


def test_the_budget_is_that_of_the_fine_tuning():
    own = image_set(10)
    own.rows_of = lambda split_rule, split: own.manifest.head(9) if split == "train" else None
    table = training_paradigms.budgets({"d": own}, "paper", RECIPE)
    assert table.to_numpy().tolist() == [["d", 9, RECIPE.epochs, 4, 3 * RECIPE.epochs]]
