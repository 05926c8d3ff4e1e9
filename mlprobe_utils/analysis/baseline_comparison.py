"""Traditional classifiers beside MLLMs on the same test images, by category (paper, figure 1).

Figure 1 draws bars and prints no numbers; its caption and section 1 say that the MLLMs struggle to match the average of
the traditional methods. Here that is a difference of two means with an interval, which can come out either way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.baseline_results import Trained
from mlprobe_utils.analysis.epoch_choice import mean_accuracy, right_when
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.categories import CATEGORIES, MLLM, TRADITIONAL
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import PROBE, intervals
from mlprobe_utils.stats.resampling import Difference, Resamples, Statistic

BELOW, ABOVE, NEITHER = "below", "above", "not distinguishable"


@dataclass(frozen=True)
class Contest:
    """Everyone who was asked about the test images of one data set.

    Attributes:
        right: slug -> bool [runs, 1, images].
        groups: CATEGORIES and MLLM, as far as someone belongs to them -> slugs.
        drawn: resamples of the test images.
    """

    right: dict[str, np.ndarray]
    groups: dict[str, list[str]]
    drawn: Resamples

    def mean(self, *groups: str) -> Statistic:
        """Mean accuracy over the members of some groups, all of which weigh alike; one point."""
        return mean_accuracy([self.right[slug] for group in groups for slug in self.groups[group]], self.drawn)

    @property
    def traditional(self) -> list[str]:
        """The categories of which someone is there."""
        return [group for group in self.groups if group != MLLM]


def contests(
    trained: Mapping[str, Sequence[Trained]],
    predicted: pd.DataFrame,
    baselines: Sequence[BaselineCard],
    image_sets: Mapping[str, ImageSet],
    split: str,
    way: str,
) -> dict[str, Contest]:
    """data set -> who competes on it.

    Args:
        trained: from `baseline_results.trained`.
        predicted: from `results.prediction_rows`, of one stage: the final outputs.
        baselines: the cards of those that were trained.
        image_sets: by slug.
        way: of `epoch_choice`, how a baseline's epoch is chosen.

    Raises:
        InputError: someone was asked about other images than the test images; as `epochs_chosen`.
    """
    found, tested = {}, predicted[predicted["part"] == "test"]
    for dataset, own in trained.items():
        drawn, images = resamples_of_tested(image_sets[dataset], split)
        of_dataset = tested[tested["dataset"] == dataset].groupby("model", sort=False)
        answers = {slug: output_outcomes(rows) for slug, rows in of_dataset}
        asked = {one.slug: one.test.images for one in own} | {slug: said.images for slug, said in answers.items()}
        for slug, names in asked.items():
            if names != images:
                raise InputError(f"{slug} on {dataset}: its answers are not to the test images, make them anew")
        right = {one.slug: right_when(one, way) for one in own} | {slug: said.right for slug, said in answers.items()}
        groups = {c: [card.slug for card in baselines if card.category == c] for c in CATEGORIES} | {MLLM: [*answers]}
        found[dataset] = Contest(right, {group: slugs for group, slugs in groups.items() if slugs}, drawn)
    return found


def accuracies(found: Mapping[str, Contest]) -> pd.DataFrame:
    """Accuracy of everyone: dataset, group, model (slug), value, low, high (percent)."""
    frames = []
    for dataset, contest in found.items():
        place = [(dataset, group, slug) for group, slugs in contest.groups.items() for slug in slugs]
        each = _beside([mean_accuracy([contest.right[slug]], contest.drawn) for _, _, slug in place])
        table = pd.DataFrame(place, columns=["dataset", "group", "model"])
        frames.append(table.join(intervals(each, PROBE)[["value", "low", "high"]]))
    return pd.concat(frames, ignore_index=True)


def group_means(found: Mapping[str, Contest]) -> pd.DataFrame:
    """Mean accuracy of every group and of all baselines: dataset, group, members, value, low, high (percent)."""
    frames = []
    for dataset, contest in found.items():
        named = {group: [group] for group in contest.groups} | {TRADITIONAL: contest.traditional}
        means = intervals(_beside([contest.mean(*groups) for groups in named.values()]), PROBE)
        members = [sum(len(contest.groups[group]) for group in groups) for groups in named.values()]
        table = pd.DataFrame({"dataset": dataset, "group": [*named], "members": members})
        frames.append(table.join(means[["value", "low", "high"]]))
    return pd.concat(frames, ignore_index=True)


def claims(found: Mapping[str, Contest]) -> pd.DataFrame:
    """The mean of the MLLMs less that of all baselines, a row a data set: the claim of figure 1.

    Returns:
        dataset, MLLMs, baselines, difference, low, high (points; members are fixed, other images are allowed for),
        verdict (BELOW, ABOVE or NEITHER), and how many MLLMs lie below the mean of the baselines, each by an interval
        that holds for all of them at once.
    """
    records = []
    for dataset, contest in found.items():
        average = contest.mean(*contest.traditional)
        whole = intervals(Difference(contest.mean(MLLM), average), PROBE).iloc[0]
        each = _beside([mean_accuracy([contest.right[slug]], contest.drawn) for slug in contest.groups[MLLM]])
        alone = intervals(Difference(each, _beside([average] * len(each.values))), PROBE)
        networks = sum(len(contest.groups[group]) for group in contest.traditional)
        record = {"dataset": dataset, "MLLMs": len(alone), "baselines": networks}
        record |= {"difference": whole["value"], "low": whole["low"], "high": whole["high"]}
        records.append(record | {"verdict": verdict(whole), "MLLMs below": int((alone["band_high"] < 0).sum())})
    return pd.DataFrame(records)


def gaps(found: Mapping[str, Contest]) -> pd.DataFrame:
    """The mean of the MLLMs less that of each category: dataset, category, difference, low, high (points).

    The intervals of a data set hold at once for all its categories.
    """
    frames = []
    for dataset, contest in found.items():
        means = [contest.mean(group) for group in contest.traditional]
        difference = Difference(_beside([contest.mean(MLLM)] * len(means)), _beside(means))
        table = intervals(difference, PROBE)[["value", "band_low", "band_high"]]
        table.columns = ["difference", "low", "high"]
        frames.append(table.assign(dataset=dataset, category=contest.traditional))
    return pd.concat(frames, ignore_index=True)[["dataset", "category", "difference", "low", "high"]]


def verdict(interval: Mapping[str, float]) -> str:
    """Whether a whole interval (low, high) lies below or above 0."""
    return BELOW if interval["high"] < 0 else ABOVE if interval["low"] > 0 else NEITHER


def _beside(statistics: Sequence[Statistic]) -> Statistic:
    """Statistics of one point each, of the same resamples, as one of several points."""
    values = np.concatenate([own.values for own in statistics])
    resampled = np.concatenate([own.resampled for own in statistics], axis=1)
    return replace(statistics[0], values=values, resampled=resampled)
