"""Outcomes on the test images of a data set, with resamples that are drawn once for all that is compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.outcomes import Outcomes
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.resampling import Resamples, Statistic, resample, retrained


@dataclass(frozen=True)
class Evaluated:
    """What one model predicts for the test images of one data set."""

    model: str
    dataset: str
    outcomes: Mapping[tuple[str, ...], Outcomes]  # by what they are of, such as (stage, order)
    resamples: Resamples  # of the test images, the same for all models
    positive: str | None = None  # the option that counts as positive; None: metrics are means over options

    def place(self, **more: object) -> dict[str, object]:
        return {"model": self.model, "dataset": self.dataset} | more


def evaluated(
    selection: Selection,
    image_sets: Mapping[str, ImageSet],
    outcomes_of: Callable[[Selection], Mapping[tuple[str, ...], Outcomes]],
) -> list[Evaluated]:
    """The outcomes of a selection, data set by data set; `outcomes_of` loads those of one model and data set. Raises
    InputError where something was not run, or not on the test images, and as `resamples_of_tested`."""
    drawn = {slug: resamples_of_tested(image_sets[slug], selection.split_rule) for slug in selection.datasets}
    found = []
    for model, dataset, _ in selection.folders():
        resamples, images = drawn[dataset]
        own = outcomes_of(replace(selection, models=(model,), datasets=(dataset,)))
        for what, one in own.items():
            of_tested(one, images, ", ".join([f"{model} on {dataset}", *what]))
        found.append(Evaluated(model, dataset, own, resamples, image_sets[dataset].card.positive))
    return found


def means_over_runs(found: Sequence[Evaluated], *keys: tuple, metric: str = "accuracy") -> dict[tuple, Statistic]:
    """(dataset, model, *key) -> a metric of the outcomes, as of `retrained`: pooled over all of these of a data set."""
    scores = {}
    for own, key in product(found, keys):
        scores[own.dataset, own.model, *key] = own.outcomes[key].score(metric, own.positive, own.resamples)
    return retrained(scores, itemgetter(0))


def groups(
    rows: pd.DataFrame, by: Sequence[str], image_sets: Mapping[str, ImageSet], split_rule: str
) -> Iterator[tuple[dict[str, str], pd.DataFrame, Resamples, list[str]]]:
    """Every group of rows by these columns, data set by data set: its values, rows, resamples and test images."""
    for dataset, own in rows.groupby("dataset", sort=False):
        drawn, images = resamples_of_tested(image_sets[dataset], split_rule)
        for place, group in own.groupby([*by], sort=False):
            yield dict(zip(by, place, strict=True)), group, drawn, images


def resamples_of_tested(image_set: ImageSet, split_rule: str) -> tuple[Resamples, list[str]]:
    """Resamples of a split's test images, and their names, sorted as of `Outcomes`. What is drawn are components:
    images linked by a patient or duplicate group, be it through other splits. InputError where there is but one."""
    tested = image_set.rows_of(split_rule, "test").sort_values("image")
    own, slug = components(image_set.manifest)[tested.index], image_set.card.slug
    if len(set(own)) < 2:
        found = f"{slug}: its test set ({len(own)} images) is of one patient or duplicate group"
        raise InputError(f"{found}: an interval needs two or more, add test images of others")
    return resample(own), list(tested["image"])


def of_tested(found: Outcomes, images: list[str], whose: str) -> Outcomes:
    """The outcomes, if their images are `images`, from `resamples_of_tested`. Raises InputError, naming `whose`."""
    if found.images != images:
        raise InputError(f"{whose}: its rows are not from the test images, recompute them")
    return found
