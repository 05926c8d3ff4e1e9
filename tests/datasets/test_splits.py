"""Splits: exact, disjoint, grouped, seeded; and the table of what a split leaks."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.settings import Splits
from mlprobe_utils.datasets.splits import add_splits as splits_and_words
from mlprobe_utils.datasets.splits import leaks
from mlprobe_utils.datasets.summary import FORMAT, format_shortcuts
from mlprobe_utils.pipeline.cards import DataCard, load_data_card

SETTINGS = Splits(seed=0, validation_fraction=0.15)
COVID = load_data_card("covid19-ct")


def add_splits(*given) -> pd.DataFrame:
    return splits_and_words(*given)[0]


def with_test_counts(**counts: int) -> DataCard:
    return load_data_card("busi").model_copy(update={"test_counts": counts})


SMALL = with_test_counts(benign=12, malignant=7, normal=5)


def drawn_table(seed: int, per_class: int = 60, linked: float = 0.4, across: int = 3) -> pd.DataFrame:
    """A set without official split: pairs and longer chains of duplicates, `across` of them with two labels."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["benign", "malignant", "normal"], per_class)
    group = np.full(len(label), None, dtype=object)
    members = rng.permutation(len(label))[: int(linked * len(label))]
    for position, i in enumerate(sorted(members)):  # neighbours are of one class
        group[i] = f"d{position // int(rng.integers(2, 5)):03d}-{label[i]}"
    for k in range(across):
        group[k] = group[per_class + k] = f"mixed{k}"
    images = [f"{name}/{i}.png" for i, name in enumerate(label)]
    table = pd.DataFrame({"image": images, "label": label, "duplicate_group": group, "official_split": None})
    return table.assign(patient=None, sha256=images)


def official_table(seed: int, per_part: int = 40) -> pd.DataFrame:
    """A set with official splits, patients, and duplicates that cross everything."""
    rows = [
        (f"{split}/{label}/{i}.png", label, split, f"{split} {label} {i // 3}")
        for split, count in (("train", 2 * per_part), ("val", per_part // 4), ("test", per_part))
        for label in ("COVID", "NonCOVID")
        for i in range(count)
    ]
    table = pd.DataFrame(rows, columns=["image", "label", "official_split", "patient"]).assign(duplicate_group=None)
    chosen = np.random.default_rng(seed).permutation(len(table))[:16]
    table.loc[chosen, "duplicate_group"] = [f"d{i // 2}" for i in range(16)]
    return table.assign(sha256=table["image"])


def assert_sound(table: pd.DataFrame, split: pd.DataFrame) -> None:
    """What holds for every clean split."""
    used = split[split["split_clean"] != "unused"]
    component = pd.Series(components(split), index=split.index)[used.index]
    assert (used["split_clean"].groupby(component).nunique() == 1).all()
    assert (used["label"].groupby(component).nunique() == 1).all()
    assert leaks(split, "clean").empty
    assert split["image"].equals(table["image"])


@settings(max_examples=6)
@given(st.integers(0, 10_000), st.integers(0, 5))
def test_a_drawn_test_set_is_exact_and_an_official_one_kept(data_seed, split_seed):
    table, seeded = drawn_table(data_seed), Splits(seed=split_seed, validation_fraction=0.2)
    split = add_splits(table, SMALL, seeded)
    for column in ("split_paper", "split_clean"):
        assert split.loc[split[column] == "test", "label"].value_counts().to_dict() == SMALL.test_counts
    assert (split["split_paper"] != "unused").all()
    assert_sound(table, split)
    table = official_table(data_seed)
    split = add_splits(table, COVID, seeded)
    official = table["official_split"]
    assert ((split["split_paper"] == "test") == (official == "test")).all()
    for column in ("split_paper", "split_clean"):
        assert (split.loc[official == "val", column] == "unused").all()
        assert (official[split[column].isin(["train", "validation"])] == "train").all()
    component = pd.Series(components(split), index=split.index)
    mixed = split["label"].groupby(component).transform("nunique") > 1
    assert (split.loc[(official == "test") & ~mixed, "split_clean"] == "test").all()
    assert (split.loc[mixed, "split_clean"] == "unused").all()
    assert_sound(table, split)


@settings(max_examples=3)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter_and_the_seed_does(data_seed, random):
    for table, card in ((drawn_table(data_seed), SMALL), (official_table(data_seed), COVID)):
        split = add_splits(table, card, SETTINGS)
        order = list(table.index)
        random.shuffle(order)
        again = add_splits(table.loc[order].reset_index(drop=True), card, SETTINGS)
        pd.testing.assert_frame_equal(again.set_index("image").loc[table["image"]], split.set_index("image"))
        other = add_splits(table, card, Splits(seed=1, validation_fraction=0.15))
        assert not split["split_paper"].equals(other["split_paper"])


@pytest.mark.parametrize("fraction", [0.02, 0.9])
def test_validation_has_about_its_fraction_of_every_class(fraction):
    table = drawn_table(0, per_class=200, linked=0.1)
    split = add_splits(table, SMALL, Splits(seed=0, validation_fraction=fraction))
    for column in ("split_paper", "split_clean"):
        rest = split[split[column].isin(["train", "validation"])]
        share = (rest[column] == "validation").groupby(rest["label"]).mean()
        assert (abs(share - fraction) < 0.02).all()


def test_whole_components_that_only_just_sum_up():
    """A count that greedy picking of groups of 2 and 3 would miss."""
    sizes = {"benign": [3] * 20 + [2], "malignant": [1] * 40, "normal": [1] * 40}
    groups = [(label, f"{label} {g}", size) for label, own in sizes.items() for g, size in enumerate(own)]
    rows = [(f"{group} {i}", label, group) for label, group, size in groups for i in range(size)]
    table = pd.DataFrame(rows, columns=["image", "label", "duplicate_group"]).assign(patient=None, official_split=None)
    card = with_test_counts(benign=5, malignant=3, normal=3)
    for seed in range(5):
        split = add_splits(table, card, Splits(seed=seed, validation_fraction=0.15))
        assert (split.loc[split["split_clean"] == "test", "label"] == "benign").sum() == 5
    with pytest.raises(InputError, match="no test set of exactly 4 images of class 'benign' can be drawn from the 62"):
        add_splits(table, with_test_counts(benign=4, malignant=3, normal=3), SETTINGS)


NO_TEST = official_table(0).query("official_split != 'test' or label != 'COVID'")


@pytest.mark.parametrize(
    ("table", "card", "fraction", "words"),
    [
        (drawn_table(0), with_test_counts(benign=12, malignant=7, normal=58), 0.15, "class 'normal' to set a valid"),
        (NO_TEST, COVID, 0.15, "no image of class 'COVID' is left for the test split of split_paper"),
        (drawn_table(0), SMALL, 1.0, "the train split of split_paper"),
    ],
)
def test_too_few_images_of_a_class(table, card, fraction, words):
    with pytest.raises(InputError, match=words):
        add_splits(table, card, Splits(seed=0, validation_fraction=fraction))


def test_leaks_names_every_kind():
    columns = ["image", "label", "patient", "duplicate_group", "sha256", "split_paper"]
    rows = [
        ("a", "x", None, "d1", "1", "train"),  # same bytes, across
        ("b", "x", None, "d1", "1", "test"),
        ("c", "x", None, "d2", "2", "train"),  # near, across, mixed labels
        ("d", "y", None, "d2", "3", "validation"),
        ("e", "y", "p", None, "4", "train"),  # patient, across
        ("f", "y", "p", None, "5", "test"),
        ("g", "y", "q", "d3", "6", "train"),  # not across
        ("h", "y", "q", "d3", "6", "train"),
        ("i", "y", "p", "d3", "6", "unused"),
    ]
    found = leaks(table := pd.DataFrame(rows, columns=columns), "paper")
    assert found.to_numpy().tolist() == [
        ["byte-identical", "1", "test + train", "x", 2, ["a", "b"]],
        ["near-duplicate", "d2", "train + validation", "x + y", 2, ["c", "d"]],
        ["patient", "p", "test + train", "y", 2, ["e", "f"]],
        ["label conflict", "d2", "train + validation", "x + y", 2, ["c", "d"]],
    ]
    with pytest.raises(InputError, match="unknown split rule 'papr'"):
        leaks(table, "papr")


def test_the_format_rule():
    known, other, unseen = ("RGBA", "PNG", ".png"), ("L", "JPEG", ".jpg"), ("RGB", "PNG", ".png")
    train = [(*known, "a")] * 2 + [(*other, "b")] * 4 + [(*other, "a")]
    test = [(*known, "a"), (*other, "b"), (*unseen, "b"), (*unseen, "a")]
    manifest = pd.DataFrame(train + test, columns=[*FORMAT, "label"])
    card, rows_of = SimpleNamespace(name="x"), lambda split_rule, split: manifest[len(train) :]
    found = format_shortcuts({"x": SimpleNamespace(card=card, manifest=manifest, rows_of=rows_of)}, "paper")
    assert found.to_numpy().tolist() == [["x", 2, "3/4", 75, 50]]
