"""Traditional classifiers beside MLLMs (paper, figure 1, which prints no numbers), and what the choice of their epoch
adds: the code of Ren et al. (2025), whose comparison it follows, keeps the one that is best on test images."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.names import CATEGORIES, FROZEN_TOWER, MLLM, TRADITIONAL
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline.artefacts import read_made_from, read_rows
from mlprobe_utils.pipeline.baseline_card import EPOCHS, NETWORK, STEP, BaselineCard, baseline_folder
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.published import short
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.stats.intervals import WEIGHTS, intervals, scope_of
from mlprobe_utils.stats.paired import NEITHER, Pair, compare, judged
from mlprobe_utils.stats.resampling import Resamples, Statistic, accuracy, retrained

SIDES = BELOW, ABOVE, NEITHER = "significantly below", "significantly above", NEITHER
LAST, ON_VALIDATION, ON_TEST = "last epoch", "chosen on validation", "chosen on test"
OF_PROTOCOL = {"last": LAST, "validation": ON_VALIDATION}  # as protocols name them
TOWER_OF = "vision tower of "  # before the slug of a model: that, frozen, with a linear head
HALVINGS = 20  # of the test images, to choose on one half and evaluate on the other
ENDS = ["value", "low", "high"]
APPARENT, HELD_OUT = "apparent gain", "held-out gain"  # of choosing the epoch on test images


@dataclass(frozen=True)
class Trained:
    """One baseline on one data set, after every epoch."""

    slug: str
    validation: Outcomes  # seeds are the runs, points the epochs
    test: Outcomes
    parameters: int  # trainable ones
    side: int  # of its input images, in pixels


def trained(selection: Selection, slugs: Iterable[str]) -> dict[str, list[Trained]]:
    """Loads data set -> baselines, in the order of `slugs`. Raises InputError for one that was not trained."""
    loaded = {dataset: [] for dataset in selection.datasets}
    for slug, (dataset, found) in product(slugs, loaded.items()):
        folder = baseline_folder(selection.protocol, dataset, selection.split_rule, slug)
        read_made_from(folder, selection.command(slug, dataset, name=STEP))
        rows = read_rows(folder / EPOCHS)
        rows = rows.assign(seed=rows["run"], point=rows["epoch"]).sort_values("epoch", kind="stable")
        both = [outcomes(rows[rows["split"] == split]) for split in ("validation", "test")]
        both = [replace(own, points=[*map(int, own.points)]) for own in both]
        found.append(Trained(slug, *both, **json.loads((folder / NETWORK).read_text())))
    return loaded


def baseline_table(
    cards: Sequence[BaselineCard], variant: str = "full", trained: Mapping[str, Sequence[Trained]] | None = None
) -> pd.DataFrame:
    """The baselines as `variant`: baseline, category, status, built as, described by, note; of `trained` ones the last
    two are parameters and trained at, on the first data set (others change the last layer)."""
    about, names = {card.slug: (card.source, card.note or "") for card in cards}, ["described by", "note"]
    if trained is not None:
        about = {one.slug: (short(one.parameters), f"{one.side} px") for one in next(iter(trained.values()))}
        names = ["parameters", "trained at"]
    rows = []
    for card in cards:
        own = card.variant(variant)
        changed = ", made smaller" if variant == "small" and own.arguments and own.library != "own" else ""
        library = "this project" if own.library == "own" else own.library
        rows.append((card.name, card.category, card.status, f"{library}: {own.name}{changed}", *about[card.slug]))
    return pd.DataFrame(rows, columns=["baseline", "category", "status", "built as", *names])


def epochs_chosen(own: Trained, rule: str) -> np.ndarray:
    """The epoch's index by LAST, ON_VALIDATION or ON_TEST, int [runs]; the earliest of equals."""
    if rule == LAST:
        return np.full(len(own.test.seeds), len(own.test.points) - 1)
    chosen_by = {ON_VALIDATION: own.validation, ON_TEST: own.test}[rule]
    return chosen_by.correct.mean(axis=2).argmax(axis=1)


def correct_at(own: Trained, epochs: np.ndarray) -> np.ndarray:
    """Whether each run is correct on each test image after an epoch of its own (by index), bool [runs, 1, images]."""
    return own.test.correct[np.arange(len(epochs)), epochs][:, None]


@dataclass(frozen=True)
class Comparison:
    """Traditional classifiers and MLLMs on the test images of one data set."""

    groups: pd.Series  # slug -> group, CATEGORIES in their order, then FROZEN_TOWER and MLLM
    each: Mapping[str, Statistic]  # slug -> accuracy, as of `retrained`: networks and MLLMs for themselves
    drawn: Resamples

    @property
    def scope(self) -> str:
        """TRAINING where all that is trained has several runs, else WEIGHTS."""
        return scope_of(own for slug, own in self.each.items() if self.groups[slug] != FROZEN_TOWER)

    def members(self, group: str) -> list[Statistic]:
        """Those of a group, or of all CATEGORIES together (TRADITIONAL)."""
        groups = CATEGORIES if group == TRADITIONAL else (group,)
        return [own for slug, own in self.each.items() if self.groups[slug] in groups]

    def mean(self, group: str) -> Statistic:
        """Mean accuracy over all members of a group, which weigh alike."""
        each = self.members(group)
        arrays = {name: np.mean([getattr(own, name) for own in each], axis=0) for name in ("values", "resampled")}
        shares = sum((Counter(own.runs) for own in each), Counter())
        return replace(each[0], **arrays, runs={own: share / len(each) ** 2 for own, share in shares.items()})

    def interval(self, one: Statistic) -> tuple:
        scope = self.scope if one.runs else WEIGHTS
        return scope, *intervals(one, scope).loc[0, ENDS]


def _mean(correct: Sequence[np.ndarray], drawn: Resamples, best: bool = False) -> Statistic:
    """Accuracy over all members and runs, values [points]; with `best` that of each one's best point, values [1]."""
    found = accuracy(np.concatenate(correct), drawn)
    arrays = found.values, found.resampled
    values, resampled = (own.max(axis=-1, keepdims=True) for own in arrays) if best else arrays
    return replace(found, values=values.mean(axis=0), resampled=resampled.mean(axis=1))


def comparisons(
    trained: Mapping[str, Sequence[Trained]],
    predicted: pd.DataFrame,
    towers: pd.DataFrame,
    baselines: Sequence[BaselineCard],
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    rule: str,
) -> dict[str, Comparison]:
    """data set -> all that are compared on it: of prediction rows of one stage, `results.frozen_tower_rows`, and the
    cards of `trained` by category; `rule` is of `epochs_chosen`. Raises InputError for rows of other images than the
    test images."""
    found, tested = {}, predicted[predicted["split"] == "test"]
    for dataset, own in trained.items():
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        of_set = (rows[rows["dataset"] == dataset] for rows in (towers, tested))
        of_towers, of_models = (rows.groupby("model", sort=False) for rows in of_set)
        frozen = {TOWER_OF + slug: outcomes(rows) for slug, rows in of_towers}
        outputs = {slug: output_outcomes(rows) for slug, rows in of_models}
        each = {one.slug: one.test for one in own} | frozen | outputs
        correct = {slug: of_tested(one, images, f"{slug} on {dataset}").correct for slug, one in each.items()}
        correct |= {one.slug: correct_at(one, epochs_chosen(one, rule)) for one in own}
        groups = {card.slug: card.category for card in baselines}
        groups |= dict.fromkeys(frozen, FROZEN_TOWER) | dict.fromkeys(outputs, MLLM)
        kinds = {slug: MLLM if group == MLLM else TRADITIONAL for slug, group in groups.items()}
        means = retrained({slug: accuracy(correct[slug], drawn) for slug in groups}, kinds.get)
        found[dataset] = Comparison(pd.Series(groups), means, drawn)
    return found


def accuracies(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Accuracy of each: dataset, group, model (slug), scope, value, low, high (percent)."""
    rows = [(d, own.groups[m], m, *own.interval(one)) for d, own in found.items() for m, one in own.each.items()]
    return pd.DataFrame(rows, columns=["dataset", "group", "model", "scope", *ENDS])


def group_means(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Mean accuracy of every group and of all baselines: dataset, group, members, scope, value, low, high (percent)."""
    rows = []
    for dataset, own in found.items():
        groups = [*own.groups.unique(), TRADITIONAL]
        rows += [(dataset, name, len(own.members(name)), *own.interval(own.mean(name))) for name in groups]
    return pd.DataFrame(rows, columns=["dataset", "group", "members", "scope", *ENDS])


def claims(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """The mean of the MLLMs minus that of all baselines ("struggle to match", section 1): dataset, MLLMs, baselines,
    scope, MLLMs below (of them, by themselves and corrected for all of the table), difference and further columns of
    `paired.compare`, with verdict BELOW, ABOVE or NEITHER."""
    whole, alone = [], []
    for dataset, own in found.items():
        mllms, baselines = own.members(MLLM), own.mean(TRADITIONAL)
        place = {"dataset": dataset, "MLLMs": len(mllms), "baselines": len(own.members(TRADITIONAL))}
        whole.append(Pair(place | {"scope": own.scope}, baselines, own.mean(MLLM), own.drawn, own.scope))
        alone += [Pair(place, baselines, one, own.drawn, own.scope) for one in mllms]
    each, table = (compare(pairs, [*pairs[0].place], "difference", SIDES) for pairs in (alone, whole))
    below = (each["verdict"] == BELOW).groupby(each["dataset"], sort=False).sum()
    return table.assign(**{"MLLMs below": table["dataset"].map(below)})


def gaps(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """The mean of the MLLMs minus that of each category: dataset, category, scope, difference and further columns of
    `paired.compare`, with verdict as of `claims`."""
    pairs = []
    for (dataset, own), category in product(found.items(), CATEGORIES):
        if own.members(category):
            place = {"dataset": dataset, "category": category, "scope": own.scope}
            pairs.append(Pair(place, own.mean(category), own.mean(MLLM), own.drawn, own.scope))
    return compare(pairs, ["dataset", "category", "scope"], "difference", SIDES)


def correct_on_other_half(own: Trained, clusters: np.ndarray) -> np.ndarray:
    """Each test image at the epoch that is best on a half that has none of its cluster: bool [runs * HALVINGS, 1,
    images]."""
    correct, generator = own.test.correct, np.random.default_rng(0)
    members = np.unique(clusters, return_inverse=True)[1]
    found = []
    for _ in range(HALVINGS):
        half = generator.permutation(members.max() + 1)[members] % 2 == 0
        best = (correct[:, :, half == side].mean(axis=2).argmax(axis=1) for side in (True, False))
        first, second = (correct_at(own, epochs) for epochs in best)
        found.append(np.where(half, second, first))
    return np.concatenate(found)


def additions(trained: Mapping[str, Sequence[Trained]], drawn: Mapping[str, Resamples]) -> pd.DataFrame:
    """What choosing on test adds to the mean accuracy of the baselines; a row per data set, of whose test images
    `drawn` are resamples: dataset, baselines, accuracy by LAST, ON_VALIDATION and ON_TEST; then two differences from
    ON_VALIDATION with intervals (pp): APPARENT, of choosing on the same images, never below 0, and HELD_OUT, of
    choosing on other test images, with p and p (Holm). All of these networks as they were trained."""
    records = []
    for dataset, own in trained.items():
        images, rules = drawn[dataset], {}
        for rule in (LAST, ON_VALIDATION):
            rules[rule] = _mean([correct_at(one, epochs_chosen(one, rule)) for one in own], images)
        rules[ON_TEST] = _mean([one.test.correct for one in own], images, best=True)
        others = _mean([correct_on_other_half(one, images.clusters) for one in own], images)
        record = {"dataset": dataset, "baselines": len(own)} | {name: one.values[0] for name, one in rules.items()}
        for name, after in ((APPARENT, rules[ON_TEST]), (HELD_OUT, others)):
            found = intervals(after - rules[ON_VALIDATION]).iloc[0]
            record |= {name: found["value"], f"{name}, low": found["low"], f"{name}, high": found["high"]}
        record[f"{APPARENT}, low"] = max(record[f"{APPARENT}, low"], 0.0)
        record["p"] = Pair({}, rules[ON_VALIDATION], others, images, WEIGHTS).tests()["p"][0]
        records.append(record)
    return judged(pd.DataFrame(records))
