"""Whether a model does better where it reads the question before the image, or text that says nothing of it.

Each order is fine-tuned for itself and asked about the same test images, with probes of the same seeds: differences are
paired. In an LLM with causal attention the image tokens see the question only in `question_first`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.orders import ORDER_NAMES, ORDERS
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.evaluation.stations import IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import ORDER, Selection
from mlprobe_utils.pipeline.tested import of_tested, resamples_of_tested
from mlprobe_utils.pipeline.variants import of_value
from mlprobe_utils.stats.intervals import LEVEL, PROBE, RECIPE, intervals
from mlprobe_utils.stats.mean_differences import of_mean
from mlprobe_utils.stats.paired_tests import holm, paired_tests
from mlprobe_utils.stats.resampling import Resamples, accuracy

COMPARED = (  # order, and what is taken from it
    ("question_first", "image_first"),
    ("irrelevant_first", "image_first"),
    ("question_first", "irrelevant_first"),
)
VERDICTS = LOWER, HIGHER, NEITHER = "lower", "higher", "not distinguishable"


@dataclass(frozen=True)
class Reading:
    """What was answered to the test images of a data set by one model in one stage that reads in one order.

    Attributes:
        image_tokens: the probes' answers at every point of the three modules.
        last_token: the same at the LLM's last point.
        answers: of the run that the probes are of.
    """

    model: str
    dataset: str
    stage: str
    order: str
    image_tokens: Outcomes
    last_token: Outcomes
    answers: Outcomes
    resamples: Resamples

    @property
    def place(self) -> dict[str, str]:
        return {"model": self.model, "dataset": self.dataset, "stage": self.stage}

    @property
    def stations(self) -> dict[str, np.ndarray]:
        """Station -> bool [seeds, 1, images]: the LLM's two ends and the final output, which has one seed."""
        end = self.image_tokens.of_module("L")[-1]
        probed = {IMAGE_TOKENS: self.image_tokens.at(end).right, LAST_TOKEN: self.last_token.right}
        return probed | {OUTPUT: self.answers.right}


def read(selection: Selection, image_sets: Mapping[str, ImageSet]) -> list[Reading]:
    """The readings of a selection, in the order data set, model, order, stage.

    Raises:
        InputError: an order that was not run; rows of other images than the test images.
    """
    drawn = {dataset: resamples_of_tested(image_sets[dataset], selection.split) for dataset in selection.datasets}
    found = []
    for model, dataset, _ in selection.folders():
        one = replace(selection, models=(model,), datasets=(dataset,))
        for order in ORDERS:
            own = of_value(one, ORDER, order)
            rows = results.seed_rows(own), results.prediction_rows(own)
            found += readings_of(*rows, order, *drawn[dataset])
    return found


def readings_of(
    seeds: pd.DataFrame, answers: pd.DataFrame, order: str, resamples: Resamples, images: list[str]
) -> list[Reading]:
    """Both stages of one model on one data set in one order, from its rows; raises as `read`."""
    model, dataset = seeds["model"].iloc[0], seeds["dataset"].iloc[0]
    answers = answers[(answers["part"] == "test") & (answers["run"].fillna(CONTROL_RUN) == CONTROL_RUN)]
    modules = seeds[seeds["point"].str[0].isin([*"VCL"])]
    found = []
    for stage in STAGES:
        probed = modules[modules["stage"] == stage]
        image_tokens = outcomes(probed[probed["pooling"] == "image_mean"])
        last = image_tokens.of_module("L")[-1]
        last_token = outcomes(probed[(probed["pooling"] == "last_token") & (probed["point"] == last)])
        told = image_tokens, last_token, output_outcomes(answers[answers["stage"] == stage])
        whose = f"{model} on {dataset}, {stage}, {order}"
        found.append(Reading(model, dataset, stage, order, *(of_tested(own, images, whose) for own in told), resamples))
    return found


def differences(readings: Iterable[Reading]) -> pd.DataFrame:
    """Accuracy in one order less that in another, of all COMPARED, at the LLM's two ends and of the final output.

    Returns:
        dataset, model, stage, station, order, less, question (of intervals: RECIPE of probes, PROBE of the answers,
        which are one adapter's each), difference, low, high (points), p, p (Holm) over all rows, verdict: HIGHER or
        LOWER where p (Holm) is below 5 %, else NEITHER.
    """
    by_place: dict[tuple, dict[str, Reading]] = {}
    for reading in readings:
        by_place.setdefault(tuple(reading.place.items()), {})[reading.order] = reading
    frames = []
    for place, by_order in by_place.items():
        for order, less in COMPARED:
            after, before = by_order[order], by_order[less]
            for station, right in after.stations.items():
                question = PROBE if station == OUTPUT else RECIPE
                found = paired_tests(before.stations[station], right, after.resamples, question)
                named = {"station": station, "order": order, "less": less, "question": question}
                frames.append(found[["value", "low", "high", "p"]].assign(**dict(place), **named))
    table = pd.concat(frames, ignore_index=True).rename(columns={"value": "difference"})
    table["p (Holm)"] = holm(table["p"])
    told = table["p (Holm)"] < 1 - LEVEL
    ways = [told & (table["difference"] > 0), told & (table["difference"] < 0)]
    columns = ["dataset", "model", "stage", "station", "order", "less", "question", "difference", "low", "high"]
    return table[[*columns, "p", "p (Holm)"]].assign(verdict=np.select(ways, [HIGHER, LOWER], NEITHER))


def counted(told: pd.DataFrame) -> pd.DataFrame:
    """Of `differences`, a row a comparison and station: the pairs, and in how many the first order is told apart.

    Returns:
        order, less, station, pairs (of model, data set and stage), higher, lower, difference, low, high (points: the
        mean, from `of_mean`).
    """
    by = ["order", "less", "station"]
    marked = told.assign(**{word: told["verdict"] == word for word in (HIGHER, LOWER)})
    columns = {"pairs": ("verdict", "size"), HIGHER: (HIGHER, "sum"), LOWER: (LOWER, "sum")}
    found = marked.groupby(by, sort=False).agg(**columns).reset_index()
    return found.merge(of_mean(told, "difference", by), on=by)


def curves(readings: Iterable[Reading]) -> pd.DataFrame:
    """What probes read of the image tokens at every point, and the final output: a row an order and point.

    Returns:
        model, dataset, stage, order, point (or OUTPUT), value (percent), band_low, band_high: simultaneous over a
        curve, of RECIPE; nan for the final output.
    """
    frames = []
    for reading in readings:
        found = intervals(accuracy(reading.image_tokens.right, reading.resamples), RECIPE)
        found = found[["value", "band_low", "band_high"]].assign(point=reading.image_tokens.points)
        said = pd.DataFrame({"value": [100 * reading.answers.right.mean()], "point": [OUTPUT]})
        frames.append(pd.concat([found, said]).assign(**reading.place, order=reading.order))
    columns = ["model", "dataset", "stage", "order", "point", "value", "band_low", "band_high"]
    return pd.concat(frames, ignore_index=True)[columns]


def largest_before_the_llm(readings: Iterable[Reading]) -> float:
    """The largest difference between two orders at a point of vision tower or connector, before fine-tuning (points).

    No text has been read there yet: it is 0, but for rounding where batches are of other shapes.
    """
    table = curves(reading for reading in readings if reading.stage == "pretrained")
    table = table[table["point"].str[0].isin([*"VC"])]
    return float(table.groupby(["model", "dataset", "point"])["value"].agg(np.ptp).max())


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A table for the page, with orders in words."""
    return table.replace({column: ORDER_NAMES for column in ("order", "less")})
