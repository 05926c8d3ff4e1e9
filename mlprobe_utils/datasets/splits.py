"""Train, validation and test: as the paper drew them, and clean, where no picture and no patient is on both sides."""

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.settings import Release, Splits
from mlprobe_utils.evaluation.rows import SPLIT_RULES, SPLITS

FOLDS = 10  # the validation fraction is met as k of at most so many folds; a smaller fraction as 1 of 1/fraction


def add_splits(table: pd.DataFrame, card: Release, settings: Splits) -> tuple[pd.DataFrame, str]:
    """Adds `split_paper` and `split_clean` to image, label, official_split, patient and duplicate_group; and words for
    them. `paper`: the official test set, or a seeded draw of exactly the card's `test_counts`. `clean`: a component
    (images linked by duplicate group or patient) of two labels is unused, and none crosses a split: train images linked
    to an official test set are unused, a drawn one takes whole components. The official validation set is unused;
    validation is drawn out of train by components, by label. Of a folder `paper` is `complete_splits`."""
    ordered = table.sort_values("image", kind="stable")
    label, official = (ordered[column].to_numpy(dtype=object) for column in ("label", "official_split"))
    component, everything = components(ordered), np.ones(len(ordered), dtype=bool)
    one_label = pd.Series(label).groupby(component).transform("nunique").to_numpy() == 1
    columns, where, fraction = {}, f"{card.slug}: ", settings.validation_fraction
    if card.layout == "folder":
        given = ordered.assign(split=ordered["official_split"].replace("val", "validation"))
        drawn, words = complete_splits(given, card.test_fraction, fraction, settings.seed, where)
        rank = drawn.map(["train", "validation", "test"].index)
        # of what is linked across splits, the test images are kept, or else those of validation
        kept = one_label & rank.eq(rank.groupby(component).transform("max"))
        columns = {"split_paper": drawn, "split_clean": drawn.where(kept, "unused")}
    else:
        words = "test: drawn, as the card counts" if card.test_counts else "test: official"
        words += f"; validation: drawn, {fraction} of the training images"
        alone = np.arange(len(ordered))
        for name, unit, usable in (("split_paper", alone, everything), ("split_clean", component, one_label)):
            if card.test_counts is None:
                test, train = usable & (official == "test"), usable & (official == "train")
            else:
                test, train = _draw_test(unit, label, usable, card, settings.seed), usable
            train = train & ~np.isin(unit, unit[test])
            validation = held_out(component, label, train, fraction, settings.seed, "validation", where)
            chosen = np.select([test, validation, train], ["test", "validation", "train"], default="unused")
            columns[name] = pd.Series(chosen, index=ordered.index)
    for name, split in itertools.product(columns, SPLITS[:3]):
        if missing := [c.name for c in card.classes if not ((columns[name] == split) & (label == c.name)).any()]:
            raise InputError(f"{where}no image of class '{missing[0]}' is left for the {split} split of {name}")
    return table.assign(**columns), words


def complete_splits(
    table: pd.DataFrame, test_fraction: float, validation_fraction: float, seed: int, where: str = ""
) -> tuple[pd.Series, str]:
    """The split of each image, as given or, without a test or validation split, drawn: whole patients and copies,
    stratified by label; and a sentence that says so. `table`: image, label, split (null: not given), patient,
    duplicate_group. InputError for an unknown or incomplete split, a fraction out of range, too few images."""
    ordered = table.sort_values("image", kind="stable")  # what is drawn does not depend on the order of the images
    if (missing := ordered["split"].isna()).any() and not missing.all():
        raise InputError(f"{where}image {ordered['image'][missing].iloc[0]} has no split: give it one")
    given = {*ordered["split"].dropna()}
    if foreign := sorted(given - {*SPLITS[:3]}):
        raise unknown("split", foreign[0], SPLITS[:3])
    component, label = components(ordered), ordered["label"].to_numpy(dtype=object)
    chosen, words = ordered["split"].fillna("train").to_numpy(dtype=object, copy=True), []
    for split, share in (("test", test_fraction), ("validation", validation_fraction)):
        if not 0 < share < 1:
            raise InputError(f"{where}{split}_fraction is {share}: give a share above 0 and below 1")
        if split in given:
            words.append(f"{split}: as given")
        else:
            words.append(f"{split}: drawn, {share} of {(chosen == 'train').sum()} images")
            chosen[held_out(component, label, chosen == "train", share, seed, split, where)] = split
    if len(given) < 3:
        words.append(f"by label, patients and copies whole, seed {seed}")
    for split in SPLITS[:3]:
        if missing := sorted({*label} - {*label[chosen == split]}):
            raise InputError(f"{where}no image of split '{split}' has the label {missing[0]!r}: add some, or drop it")
    return pd.Series(chosen, ordered.index).reindex(table.index), "; ".join(words)


def _draw_test(unit: np.ndarray, label: np.ndarray, usable: np.ndarray, card: Release, seed: int) -> np.ndarray:
    """Which images form a drawn test set: whole units, exactly the card's counts; bool [images]."""
    rng, test = np.random.default_rng(seed), np.zeros(len(unit), dtype=bool)
    for name, left in sorted(card.test_counts.items()):
        units, sizes = np.unique(unit[usable & (label == name)], return_counts=True)
        order = rng.permutation(len(units))
        drawn = [*zip(units[order], sizes[order].tolist(), strict=True)]
        sums = [1]  # bit s of sums[-1 - i]: units from the i-th drawn on can have s images
        for _, size in reversed(drawn):
            sums.append(sums[-1] | sums[-1] << size)
        if not sums.pop() >> left & 1:
            wanted = f"{card.slug}: no test set of exactly {left} images of class '{name}' can be drawn"
            found = f"from the {sizes.sum()} found ({len(units)} linked groups)"
            raise InputError(f"{wanted} {found}: complete the data or lower its test_counts")
        for (own, size), rest in zip(drawn, reversed(sums), strict=True):
            if size <= left and rest >> (left - size) & 1:
                test |= unit == own
                left -= size
    return test


def held_out(
    component: np.ndarray, label: np.ndarray, train: np.ndarray, fraction: float, seed: int, split: str, where: str = ""
) -> np.ndarray:
    """Which train images go to another split: about a fraction, whole components, stratified by label. All arrays are
    [images], `train` and the result bool. InputError for a class of too few independent images."""
    share = Fraction(fraction).limit_denominator(max(FOLDS, round(1 / fraction)))
    folds = max(2, share.denominator)
    for name in sorted(set(label)):
        if (groups := len(np.unique(component[train & (label == name)]))) < folds:
            wrong = f"{where}too few images of class '{name}' to set a {split} split aside"
            needed = f"{folds} are needed for {split}_fraction {fraction}"
            raise InputError(f"{wrong}: {groups} independent ones are left to train on, {needed}")
    rows = np.flatnonzero(train)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [held for _, held in splitter.split(rows, label[rows], component[rows])]
    chosen = np.zeros(len(label), dtype=bool)
    chosen[rows[np.concatenate(parts[: int(share * folds)])]] = True
    return chosen


def leaks(table: pd.DataFrame, split_rule: str) -> pd.DataFrame:
    """What crosses the splits of a rule (`paper` or `clean`) or mixes labels; unused images are left out. One row a
    leak: `kind` (byte-identical, near-duplicate, patient, label conflict), `key` (what the images share), `splits` and
    `labels` (sorted, joined by " + "), `count` and `images` (a list)."""
    if (column := f"split_{split_rule}") not in table:
        raise unknown("split rule", split_rule, SPLIT_RULES)
    used = table[table[column] != "unused"]
    near = used.groupby("duplicate_group")["sha256"].transform("nunique") > 1
    kinds = [
        ("byte-identical", "sha256", column, used),
        ("near-duplicate", "duplicate_group", column, used[near]),
        ("patient", "patient", column, used),
        ("label conflict", "duplicate_group", "label", used),
    ]
    rows = [
        (kind, value, *(" + ".join(sorted({*own[c]})) for c in (column, "label")), len(own), sorted(own["image"]))
        for kind, key, differs, candidates in kinds
        for value, own in candidates.groupby(key, sort=True)
        if own[differs].nunique() > 1
    ]
    return pd.DataFrame(rows, columns=["kind", "key", "splits", "labels", "count", "images"])
