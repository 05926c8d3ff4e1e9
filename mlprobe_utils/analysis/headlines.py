"""The sentences of the front page as claims, each a function of rows: evaluated on those of the test images, and once
more on those of phantoms that nothing else is made from. A claim held where its verdict is the same on both. Both times
the answers are those of DIAGNOSED_RUN, and the means are over models and phantom sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from mlprobe_utils.analysis import diagnosis_tables as tables
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.names import CONNECTOR, IMAGE_TOKENS, OUTPUT, VISION_TOWER
from mlprobe_utils.evaluation.outcomes import site_outcomes
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.fault_card import DamagedModel
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import REPLICATION, Selection
from mlprobe_utils.pipeline.tested import groups, test_images
from mlprobe_utils.stats.intervals import RECIPE

WAY = {  # site -> the step that leads to it
    CONNECTOR: "from the vision tower to the connector",
    IMAGE_TOKENS: "from the connector to the LLM's last layer",
    OUTPUT: "from the LLM's last layer to the answer",
}
NOT_AGAIN = "not tested once more: fresh images can be drawn of phantom sets alone"


class Found(NamedTuple):
    words: str
    verdict: object  # what has to be the same on other images


@dataclass(frozen=True)
class Evidence:
    """What is predicted for some images: rows as of `results.end_rows`, `prediction_rows` and `reference_rows`."""

    probed: pd.DataFrame
    predicted: pd.DataFrame
    reference: pd.DataFrame
    image_sets: Mapping[str, ImageSet]  # whose test images these are
    split_rule: str
    thresholds: Mapping[str, Mapping[str, float]]
    planted: Sequence[DamagedModel] = ()

    @cached_property
    def means(self) -> pd.DataFrame:
        """Percent correct by stage and site."""
        records, answers = [], tables.by_state(self.predicted)
        for state, rows, _, images in groups(self.probed, STATE, self.image_sets, self.split_rule):
            correct = site_outcomes(rows, answers[(*state.values(),)], None, images)
            records.append(state | {site: 100 * own.mean() for site, own in correct.items()})
        return pd.DataFrame(records).groupby("stage").mean(numeric_only=True)

    @cached_property
    def diagnoses(self) -> pd.DataFrame:
        rows = self.probed[self.probed["stage"] == "finetuned"], self.predicted, self.reference
        return tables.diagnoses(*rows, self.image_sets, self.split_rule, self.thresholds, [RECIPE])


def lead_of_probes(found: Evidence, stage: str) -> Found:
    lead = found.means.at[stage, IMAGE_TOKENS] - found.means.at[stage, OUTPUT]
    return Found(f"probes lead by {lead:+.1f} points", lead > 0)


def least_favourable_step(found: Evidence) -> Found:
    steps = found.means.loc["finetuned", [VISION_TOWER, *WAY]].diff()[[*WAY]]
    return Found(f"{WAY[steps.idxmin()]}, {steps.min():+.1f} points", steps.idxmin())


def losses_named(found: Evidence) -> Found:
    """The verdict is the main failure mode of every pair of model and data set."""
    short = tables.in_short(found.diagnoses).set_index(["dataset", "model"])["main"]
    return Found(f"in {short.notna().sum()} of {len(short)} pairs", short.dropna().to_dict())


def faults_diagnosed(found: Evidence) -> Found:
    """The verdict is which of the faults are diagnosed correctly."""
    right = tables.against_planted(found.diagnoses, found.planted).set_index("model")["detected"] == "yes"
    return Found(f"in {right.sum()} of {len(right)} cases", right.to_dict())


CLAIMS: dict[str, Callable[[Evidence], Found]] = {
    "before": lambda found: lead_of_probes(found, "pretrained"),
    "after": lambda found: lead_of_probes(found, "finetuned"),
    "step": least_favourable_step,
    "losses": losses_named,
}
OF_FAULTS = {"faults": faults_diagnosed}


def once_more(
    claims: Mapping[str, Callable[[Evidence], Found]],
    selection: Selection,
    image_sets: Mapping[str, ImageSet],
    planted: Sequence[DamagedModel] = (),
) -> Iterator[tuple[str, str]]:
    """Each claim's name, and in words what is found on the test images of the phantom sets and on as many fresh ones.
    Raises InputError for what was not run."""
    datasets = tuple(slug for slug in selection.datasets if load_data_card(slug).synthetic)
    if not datasets:
        yield from dict.fromkeys(claims, NOT_AGAIN).items()
        return
    own = replace(selection, datasets=datasets)
    drawn = [results.gather(own, [REPLICATION], f"{name}.parquet") for name in ("probes", "predictions", "reference")]
    drawn[2] = drawn[2].drop_duplicates(["dataset", "image"])  # which every model has
    sets = {slug: test_images(image_sets[slug], rows) for slug, rows in drawn[2].groupby("dataset")}
    whole = replace(own, models=tuple(dict.fromkeys(model.partition("+")[0] for model in own.models)))
    rows = results.end_rows(own), results.prediction_rows(own), results.reference_rows(whole)
    given = selection.split_rule, tables.thresholds_of(own), planted
    tested, fresh = Evidence(*rows, image_sets, *given), Evidence(*drawn, sets, *given)
    for name, claim in claims.items():
        here, there = claim(tested), claim(fresh)
        verb = "held" if here.verdict == there.verdict else "did not hold"
        yield name, f"{verb} on {len(drawn[2])} fresh phantoms: {there.words} there, {here.words} on the test images"
