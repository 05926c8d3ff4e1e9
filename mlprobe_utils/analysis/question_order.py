"""Whether a model does better where it reads the question before the image, or text that does not concern it.

Each order is fine-tuned by itself and evaluated on the same test images, with probes of the same seeds: differences are
paired. In an LLM with causal attention the image tokens see the question only in `question_first`.
"""

from collections.abc import Iterable
from itertools import product

import pandas as pd

from mlprobe_utils.evaluation.names import CONTROL_RUN, IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import ORDER, Selection
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.pipeline.variants import of_value
from mlprobe_utils.stats.intervals import PROBE, RECIPE, intervals
from mlprobe_utils.stats.paired import WORDS, Pair, compare
from mlprobe_utils.stats.resampling import accuracy

COMPARED = (  # order, and what is subtracted from it
    ("question_first", "image_first"),
    ("irrelevant_first", "image_first"),
    ("question_first", "irrelevant_first"),
)
POINTS = "all points"  # of the image tokens


def outcomes_of(one: Selection) -> dict[tuple[str, ...], Outcomes]:
    """(stage, order, POINTS or a site after the LLM) -> outcomes of one model and data set, of the run probed."""
    found = {}
    for order in ORDERS:
        own = of_value(one, ORDER, order)
        seeds, answers = results.seed_rows(own), results.prediction_rows(own)
        answers = answers[(answers["split"] == "test") & (answers["run"].fillna(CONTROL_RUN) == CONTROL_RUN)]
        modules = seeds[seeds["point"].str[0].isin([*"VCL"])]
        for stage in STAGES:
            probed = modules[modules["stage"] == stage]
            image_tokens = outcomes(probed[probed["pooling"] == "image_mean"])
            last = image_tokens.of_module("L")[-1]
            last_token = outcomes(probed[(probed["pooling"] == "last_token") & (probed["point"] == last)])
            found[stage, order, POINTS] = image_tokens
            found[stage, order, IMAGE_TOKENS] = image_tokens.at(last)
            found[stage, order, LAST_TOKEN] = last_token
            found[stage, order, OUTPUT] = output_outcomes(answers[answers["stage"] == stage])
    return found


def differences(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy in one order less that in another, of all COMPARED, at the LLM's two ends and of the final output:
    dataset, model, stage, site, order, less, scope (RECIPE for probes, PROBE for the answers, which are one adapter's
    each), difference and further columns of `paired.compare`, with verdict of WORDS."""
    pairs, sites = [], (IMAGE_TOKENS, LAST_TOKEN, OUTPUT)
    for own, stage, (order, less), site in product(found, STAGES, COMPARED, sites):
        scope = PROBE if site == OUTPUT else RECIPE
        place = own.place(stage=stage, site=site, order=order, less=less, scope=scope)
        before, after = (own.outcomes[stage, side, site].correct for side in (less, order))
        pairs.append(Pair(place, before, after, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "stage", "site", "order", "less", "scope"], "difference", WORDS)


def curves(found: Iterable[Evaluated]) -> pd.DataFrame:
    """Accuracy of the probes on the image tokens, and of the final output: model, dataset, stage, order, point (or
    OUTPUT), value (percent), band_low, band_high (of RECIPE, nan for the final output)."""
    frames = []
    for own in found:
        for order, stage in product(ORDERS, STAGES):
            probed, answers = (own.outcomes[stage, order, what] for what in (POINTS, OUTPUT))
            curve = intervals(accuracy(probed.correct, own.resamples), RECIPE)
            curve = curve[["value", "band_low", "band_high"]].assign(point=probed.points)
            output = pd.DataFrame({"value": [100 * answers.correct.mean()], "point": [OUTPUT]})
            frames.append(pd.concat([curve, output]).assign(**own.place(stage=stage, order=order)))
    columns = ["model", "dataset", "stage", "order", "point", "value", "band_low", "band_high"]
    return pd.concat(frames, ignore_index=True)[columns]
