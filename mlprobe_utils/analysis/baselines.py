"""Traditional classifiers: which there are, which were trained, and their accuracy beside MLLMs (paper, figure 1).

Figure 1 draws bars and prints no numbers; its caption and section 1 say that the MLLMs struggle to match the average of
the traditional methods. Here that is a difference of two means with an interval, which can come out either way.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.categories import CATEGORIES, MLLM, TRADITIONAL
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.pipeline.baseline_card import EPOCHS, NETWORK, STATUSES, STEP, BaselineCard, baseline_folder
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.published import short
from mlprobe_utils.pipeline.results import Selection, made
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import PROBE, intervals
from mlprobe_utils.stats.paired import verdicts
from mlprobe_utils.stats.resampling import Statistic, accuracy

BELOW, ABOVE, NEITHER = "below", "above", "not distinguishable"
LAST, ON_VALIDATION, ON_TEST = "last epoch", "chosen on validation", "chosen on test"
OF_PROTOCOL = {"last": LAST, "validation": ON_VALIDATION}  # as protocols name them


@dataclass(frozen=True)
class Trained:
    """One baseline on one data set, after every epoch.

    Attributes:
        slug: of the baseline.
        validation, test: its predictions; in each, seeds are the runs, points the epochs from the first on.
        parameters: how many are trainable.
        side: of the images that it reads, in pixels.
    """

    slug: str
    validation: Outcomes
    test: Outcomes
    parameters: int
    side: int


def trained(selection: Selection, slugs: Iterable[str]) -> dict[str, list[Trained]]:
    """data set -> the baselines of these slugs that were trained on it, in their order.

    Raises:
        InputError: one was not trained; rows that are incomplete, as `outcomes`.
    """
    slugs = list(slugs)
    return {dataset: [_read(selection, dataset, slug) for slug in slugs] for dataset in selection.datasets}


def _read(selection: Selection, dataset: str, slug: str) -> Trained:
    folder = baseline_folder(selection.protocol, dataset, selection.split_rule, slug)
    made(selection, slug, dataset, folder, STEP)
    rows = pd.read_parquet(folder / EPOCHS)
    rows = rows.assign(seed=rows["run"], point=rows["epoch"]).sort_values("epoch", kind="stable")
    found = [outcomes(rows[rows["split"] == split]) for split in ("validation", "test")]
    found = [replace(own, points=[*map(int, own.points)]) for own in found]
    return Trained(slug, *found, **json.loads((folder / NETWORK).read_text()))


def trained_table(cards: Sequence[BaselineCard], trained: Mapping[str, Sequence[Trained]], which: str) -> pd.DataFrame:
    """The baselines of a run: baseline, category, status, built as, parameters, trained at.

    Parameters are those of the first data set's network: another number of classes only changes its last layer.

    Args:
        which: the variant that was trained.
    """
    sizes = {one.slug: one for one in next(iter(trained.values()))}
    own = [sizes[card.slug] for card in cards]
    columns = {"parameters": [short(one.parameters) for one in own], "trained at": [f"{one.side} px" for one in own]}
    return _described(cards, which).assign(**columns)


def list_table(cards: Sequence[BaselineCard]) -> pd.DataFrame:
    """All baselines in the size of their originals: baseline, category, status, built as, described by, note."""
    columns = {"described by": [card.source for card in cards], "note": [card.note or "" for card in cards]}
    return _described(cards, "full").assign(**columns)


def _described(cards: Sequence[BaselineCard], which: str) -> pd.DataFrame:
    rows = []
    for card in cards:
        variant = card.variant(which)
        changed = ", made smaller" if which == "small" and variant.arguments and variant.library != "own" else ""
        library = "this project" if variant.library == "own" else variant.library
        rows.append((card.name, card.category, card.status, f"{library}: {variant.name}{changed}"))
    return pd.DataFrame(rows, columns=["baseline", "category", "status", "built as"])


def status_table(cards: Sequence[BaselineCard]) -> pd.DataFrame:
    """How many baselines have each status, and what it means: status, meaning, a column a category, all."""
    counts = pd.crosstab([card.status for card in cards], [card.category for card in cards])
    counts = counts.reindex(index=[*STATUSES], columns=[*CATEGORIES], fill_value=0)
    table = counts.assign(all=counts.sum(axis=1)).rename_axis(index="status", columns=None).reset_index()
    table.insert(1, "meaning", [STATUSES[status] for status in table["status"]])
    return table


def epochs_chosen(own: Trained, rule: str) -> np.ndarray:
    """The index of the epoch that a rule (LAST, ON_VALIDATION, ON_TEST) chooses, int [runs]; the earliest of equals.

    Raises InputError for an unknown rule.
    """
    chosen = {LAST: None, ON_VALIDATION: own.validation, ON_TEST: own.test}
    if rule not in chosen:
        raise unknown("rule to choose an epoch", rule, chosen)
    if chosen[rule] is None:
        return np.full(len(own.test.seeds), len(own.test.points) - 1)
    return chosen[rule].correct.mean(axis=2).argmax(axis=1)


def correct_at(own: Trained, epochs: np.ndarray) -> np.ndarray:
    """Whether each run predicts each test image correctly after an epoch of its own, bool [runs, 1, images].

    Args:
        epochs: their indices, int [runs].
    """
    return own.test.correct[np.arange(len(epochs)), epochs][:, None]


@dataclass(frozen=True)
class Comparison:
    """Traditional classifiers and MLLMs on the test images of one data set.

    Attributes:
        groups: slug -> group, CATEGORIES in their order, then MLLM.
        each: the accuracy of each, a point a slug.
    """

    groups: pd.Series
    each: Statistic

    @property
    def categories(self) -> list[str]:
        """The categories of the traditional classifiers."""
        return [group for group in self.groups.unique() if group != MLLM]

    def members(self, *groups: str) -> np.ndarray:
        """The points of all members of some groups."""
        return np.flatnonzero(self.groups.isin(groups))

    def means(self, *of_points: Sequence[str]) -> Statistic:
        """Mean accuracy over the members of some groups, a point for each set of groups; all members weigh alike."""
        chosen = [self.each.at(self.members(*groups)) for groups in of_points]
        values = np.array([own.values.mean() for own in chosen])
        return replace(self.each, values=values, resampled=np.stack([own.resampled.mean(axis=1) for own in chosen], 1))


def comparisons(
    trained: Mapping[str, Sequence[Trained]],
    predicted: pd.DataFrame,
    baselines: Sequence[BaselineCard],
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    rule: str,
) -> dict[str, Comparison]:
    """data set -> all that are compared on it.

    Args:
        trained: from `trained`.
        predicted: from `results.prediction_rows`, of one stage: the final outputs of MLLMs.
        baselines: the cards of those that were trained, by category.
        image_sets: by slug.
        rule: how a baseline's epoch is chosen, as of `epochs_chosen`.

    Raises:
        InputError: predictions for other images than the test images; as `epochs_chosen`.
    """
    found, tested = {}, predicted[predicted["split"] == "test"]
    for dataset, own in trained.items():
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        of_dataset = tested[tested["dataset"] == dataset].groupby("model", sort=False)
        outputs = {slug: output_outcomes(rows) for slug, rows in of_dataset}
        for slug, predictions in ({one.slug: one.test for one in own} | outputs).items():
            if predictions.images != images:
                raise InputError(f"{slug} on {dataset}: its predictions are not for the test images, make them anew")
        correct = {one.slug: correct_at(one, epochs_chosen(one, rule)) for one in own}
        correct |= {slug: predictions.correct for slug, predictions in outputs.items()}
        groups = {card.slug: card.category for card in baselines} | dict.fromkeys(outputs, MLLM)
        each = [accuracy(correct[slug], drawn) for slug in groups]
        values = np.concatenate([of_runs.values.mean(axis=0) for of_runs in each])
        resampled = np.concatenate([of_runs.resampled.mean(axis=1) for of_runs in each], axis=1)
        found[dataset] = Comparison(pd.Series(groups), replace(each[0], values=values, resampled=resampled))
    return found


def accuracies(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Accuracy of each: dataset, group, model (slug), value, low, high (percent)."""
    frames = []
    for dataset, own in found.items():
        table = pd.DataFrame({"dataset": dataset, "group": [*own.groups], "model": own.groups.index})
        frames.append(table.join(intervals(own.each, PROBE)[["value", "low", "high"]]))
    return pd.concat(frames, ignore_index=True)


def group_means(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Mean accuracy of every group and of all baselines: dataset, group, members, value, low, high (percent)."""
    frames = []
    for dataset, own in found.items():
        named = {group: [group] for group in own.groups.unique()} | {TRADITIONAL: own.categories}
        members = [len(own.members(*groups)) for groups in named.values()]
        table = pd.DataFrame({"dataset": dataset, "group": [*named], "members": members})
        frames.append(table.join(intervals(own.means(*named.values()), PROBE)[["value", "low", "high"]]))
    return pd.concat(frames, ignore_index=True)


def claims(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """The mean of the MLLMs less that of all baselines, a row a data set: the claim of figure 1.

    Returns:
        dataset, MLLMs, baselines, difference, low, high (pp; members are fixed, images are resampled), verdict (BELOW,
        ABOVE or NEITHER), and how many MLLMs lie below the mean of the baselines, each by an interval that holds for
        all of them at once.
    """
    records = []
    for dataset, own in found.items():
        mllms, baselines = own.members(MLLM), own.categories
        of_means = intervals(own.means([MLLM]) - own.means(baselines), PROBE)
        (verdict,), whole = verdicts(of_means["low"], of_means["high"], (BELOW, ABOVE, NEITHER)), of_means.iloc[0]
        alone = intervals(own.each.at(mllms) - own.means(*[baselines] * len(mllms)), PROBE)
        record = {"dataset": dataset, "MLLMs": len(mllms), "baselines": len(own.members(*baselines))}
        record |= {"difference": whole["value"], "low": whole["low"], "high": whole["high"]}
        records.append(record | {"verdict": verdict, "MLLMs below": int((alone["band_high"] < 0).sum())})
    return pd.DataFrame(records)


def gaps(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """The mean of the MLLMs less that of each category: dataset, category, difference, low, high (pp).

    The intervals of a data set hold at once for all its categories.
    """
    frames = []
    for dataset, own in found.items():
        categories = own.categories
        difference = own.means(*[[MLLM]] * len(categories)) - own.means(*([group] for group in categories))
        columns = ["difference", "low", "high"]
        table = intervals(difference, PROBE)[["value", "band_low", "band_high"]].set_axis(columns, axis=1)
        frames.append(pd.DataFrame({"dataset": dataset, "category": categories}).join(table))
    return pd.concat(frames, ignore_index=True)
