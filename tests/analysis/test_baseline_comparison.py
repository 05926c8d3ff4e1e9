"""Traditional classifiers beside MLLMs, and the epoch that is shown of them: planted gaps are found with their sign."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers, answers_of, image_set, no_fewer, no_more, right_of, rows_of
from simulations import best_by_chance

from mlprobe_utils.analysis import baselines
from mlprobe_utils.analysis.baselines import ABOVE, BELOW, LAST, NEITHER, ON_TEST, ON_VALIDATION, Trained
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import CATEGORIES, FROZEN_TOWER, MLLM, TRADITIONAL
from mlprobe_utils.pipeline.baseline_card import all_baselines, load_baseline
from mlprobe_utils.plots.forest import accuracy_chart
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS
from mlprobe_utils.stats.resampling import accuracy, resample, retrained

SLUGS = {"resnet": "CNN", "fasternet": "CNN", "s2-mlp": "MLP", "vit": "ViT"}
CARDS = [load_baseline(slug) for slug in SLUGS]
EPOCHS, IMAGES = 10, 150
DRAWN = resample(np.arange(IMAGES), 400)


def right_shares(shares: Sequence[float], images: int, generator: np.random.Generator, noise: float) -> np.ndarray:
    """Epochs of these accuracies, bool [1, epochs, images]: what is hard is so for all, but for the noise."""
    hard = np.linspace(0, 1, images, endpoint=False) + 0.5 / images
    jitter = generator.normal(0, noise, (len(shares), images))
    return ((generator.permutation(hard) + jitter) % 1 < np.array(shares)[:, None])[None]


def training(slug: str, shares: Sequence[float], images=400, validation=None, seed=0, noise=0.05) -> Trained:
    """A baseline whose epochs are right for these shares of the test images, and of as many validation images."""
    generator = np.random.default_rng([seed, images])
    chosen_by = answers(right_shares(shares if validation is None else validation, images, generator, 0.0))
    return Trained(slug, chosen_by, answers(right_shares(shares, images, generator, noise)), 1_234_567, 64)


def final_outputs(model: str, share: float, images: int = 400) -> pd.DataFrame:
    """Rows of the answers of an MLLM in two runs after fine-tuning."""
    generators = [np.random.default_rng([7, run, images, ord(model)]) for run in (0, 1)]
    right = [right_shares([share], images, generator, 0.0)[0, 0] for generator in generators]
    return pd.concat([answers_of(own, model=model, run=run) for run, own in enumerate(right)], ignore_index=True)


def compared(networks: Sequence[float], mllms: Sequence[float]) -> dict:
    trained = [training(slug, [0.5, share], seed=n) for n, slug, share in zip(range(4), SLUGS, networks, strict=True)]
    predicted = pd.concat([final_outputs(model, share) for model, share in zip("mn", mllms, strict=True)])
    towers = rows_of(right_of(np.random.default_rng(5).random(400), 0.75, 6), model="m", point="V.05", seed=0)
    return baselines.comparisons({"d": trained}, predicted, towers, CARDS, {"d": image_set(400)}, "paper", LAST)


FOUND = compared([0.9, 0.7, 0.8, 0.6], [0.8, 0.5])


@pytest.mark.parametrize(
    ("networks", "mllms", "verdict", "below"),
    [
        (0.85, [0.7, 0.72], BELOW, 2),
        (0.8, [0.8, 0.79], NEITHER, 0),
        (0.6, [0.85, 0.8], ABOVE, 0),
        (0.8, [0.6, 0.98], NEITHER, 1),  # one below is counted, though the mean is not
    ],
)
def test_the_claim_holds_where_it_was_planted_and_not_elsewhere(networks, mllms, verdict, below):
    found = baselines.claims(compared([networks] * 4, mllms)).iloc[0]
    assert found["difference"] == pytest.approx(100 * (np.mean(mllms) - networks), abs=4)
    assert found["low"] < found["difference"] < found["high"]
    assert (found["verdict"], found["MLLMs below"]) == (verdict, below)


def test_a_mean_is_that_of_its_members_and_the_average_weighs_networks_alike():
    each, means = baselines.accuracies(FOUND).set_index("model"), baselines.group_means(FOUND).set_index("group")
    assert each["group"].to_dict() == SLUGS | {"vision tower of m": FROZEN_TOWER, "m": MLLM, "n": MLLM}
    assert each.loc["vision tower of m", "value"] == pytest.approx(75, abs=5)
    assert means.loc["CNN", "value"] == pytest.approx(each.loc[["resnet", "fasternet"], "value"].mean())
    assert means.loc[TRADITIONAL, "value"] == pytest.approx(each.loc[[*SLUGS], "value"].mean())
    assert means["members"].to_dict() == {"CNN": 2, "MLP": 1, "ViT": 1, FROZEN_TOWER: 1, MLLM: 2, TRADITIONAL: 4}
    apart = baselines.gaps(FOUND).set_index("category")  # of the categories from the MLLMs, whose mean is 65
    assert apart.loc["MLP", "high"] < 0
    assert apart.loc["ViT", "low"] < 5 < apart.loc["ViT", "high"]


def test_where_all_have_several_runs_but_the_frozen_tower_the_scope_is_the_training():
    groups = pd.Series(dict.fromkeys("abcd", "CNN") | dict.fromkeys("mnop", MLLM))
    right = {slug: np.random.default_rng(n).random((2, 1, IMAGES)) < 0.8 for n, slug in enumerate([*groups.index, "t"])}
    each = retrained({slug: accuracy(own[: 1 + (slug != "t")], DRAWN) for slug, own in right.items()}, groups.get)
    found = {"d": baselines.Comparison(pd.concat([groups, pd.Series({"t": FROZEN_TOWER})]), each, DRAWN)}
    tables = [of(found) for of in (baselines.claims, baselines.gaps, baselines.accuracies, baselines.group_means)]
    assert [{*own["scope"]} for own in tables] == [{TRAINING}, {TRAINING}, {TRAINING, WEIGHTS}, {TRAINING, WEIGHTS}]
    assert [*found["d"].mean(MLLM).runs.values()] == [1 / 8]  # of four models with two runs each


def test_answers_to_other_images_are_refused():
    own = {"d": [training("resnet", [0.8], 400)]}, final_outputs("m", 0.8, 398)
    with pytest.raises(InputError, match="m on d: its rows are not from the test images"):
        baselines.comparisons(*own, own[1][:0], CARDS[:1], {"d": image_set(400)}, "paper", LAST)


def test_the_chart_has_everyone_with_the_interval():
    each, names = baselines.accuracies(FOUND), {"m": "Em", "resnet": "ResNet", "d": "Phantoms"}
    drawn = accuracy_chart(each, baselines.group_means(FOUND), {"d": 55.5}, names, "Accuracies")
    for row in each.replace(names).itertuples():
        words = f"{row.model} ({row.group}): {row.value:.1f} % ({row.low:.1f} to {row.high:.1f})"
        assert words in drawn.description
        assert words in drawn.html
    assert "majority class: 55.5 %" in drawn.description
    assert all(word in drawn.html for word in ("Phantoms", 'data-highlight="CNN"', "mean of CNN: "))


def test_the_list_is_sorted_by_category_and_says_what_was_trained():
    listed = baselines.baseline_table(all_baselines())["category"].tolist()
    assert listed == sorted(listed, key=CATEGORIES.index)
    own = baselines.baseline_table(CARDS, "small", {"d": [training(slug, [0.8]) for slug in SLUGS]})
    rows = own[["baseline", "parameters", "trained at"]].to_numpy().tolist()
    assert rows == [[card.name, "1.23M", "64 px"] for card in CARDS]


def test_each_rule_chooses_its_epoch_and_the_earliest_of_equals():
    rises = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
    falls = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    own = Trained("b", answers(np.stack([rises, falls])), answers(np.stack([falls, rises])), 1, 64)
    chosen = {LAST: [3, 3], ON_VALIDATION: [1, 2], ON_TEST: [2, 1]}
    assert {rule: baselines.epochs_chosen(own, rule).tolist() for rule in chosen} == chosen
    assert baselines.correct_at(own, np.array([1, 2])).tolist() == [[falls[1].tolist()], [rises[2].tolist()]]


def test_an_image_is_never_judged_by_an_epoch_that_its_own_half_chose():
    left = np.arange(IMAGES) < IMAGES / 2
    own = Trained("b", *[answers(np.stack([left, ~left])[None])] * 2, 1, 64)
    assert baselines.correct_on_other_half(own, np.arange(IMAGES)).mean() < 0.5
    assert not baselines.correct_on_other_half(own, left).any()  # each epoch is right for one cluster: none is split


def test_where_epochs_are_equally_good_something_is_added_and_nothing_is_left():
    seeds = np.arange(36).reshape(12, 3)
    same = {f"d{own[0]}": [training("b", [0.8] * EPOCHS, IMAGES, seed=n, noise=0.1) for n in own] for own in seeds}
    found = baselines.additions(same, dict.fromkeys(same, DRAWN))
    truth = found[baselines.APPARENT].mean()
    assert found[baselines.APPARENT].min() > 0
    assert truth > 1
    low, high = (found[f"{baselines.APPARENT}, {end}"] for end in ("low", "high"))
    assert no_fewer(((low <= truth) & (truth <= high)).sum(), 12, 0.95)
    assert abs(found[baselines.HELD_OUT].mean()) < 3 * found[baselines.HELD_OUT].sem() + 0.1
    assert no_more((found[f"{baselines.HELD_OUT}, low"] > 0).sum(), 12, 0.05)


def test_a_better_epoch_that_validation_misses_is_added_and_left():
    shares, misled = [0.6] * 5 + [0.85] + [0.6] * 4, [0.7] + [0.6] * 9
    planted = [training(f"b{n}", shares, IMAGES, misled, seed=n, noise=0.02) for n in range(3)]
    (own,) = baselines.additions({"d": planted}, {"d": DRAWN}).to_dict("records")
    assert own["baselines"] == 3
    for name in (baselines.APPARENT, baselines.HELD_OUT):
        assert own[f"{name}, low"] > 10
        assert own[name] == pytest.approx(25, abs=4)
    assert own[ON_TEST] == pytest.approx(own[ON_VALIDATION] + own[baselines.APPARENT])


def test_chance_adds_less_on_more_images_and_where_epochs_agree():
    found = best_by_chance([EPOCHS], [150, 624], [0.5, 0.95], 0.85, 100)
    added = found.set_index(["images", "correlation"])["added"]
    assert added[150, 0.5] > added[624, 0.5] > added[624, 0.95] > 0
