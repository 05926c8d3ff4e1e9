"""Misalignment taken apart: what the model's own mapping from the last token's state to the answer loses, and where.

Between the probe at the LLM's end and the answer lies one station that the model reads by itself: the options as its
output layer ranks them at the last token (the logit lens at the last layer). Beside the answer lies one that the model
does not have: a readout that is fitted on the options' probabilities.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.diagnosis_tables import by_state, states
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import MISALIGNMENT, Statement, losses
from mlprobe_utils.evaluation.outcomes import last_point, outcomes, single_outcomes
from mlprobe_utils.evaluation.stations import LAST_TOKEN, OUTPUT, PROBED
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.stats.intervals import RECIPE

RANKED, READ_OUT = "options ranked by the output layer", "readout of the options' probabilities"
STEPS = (
    Statement("not ranked first", MISALIGNMENT, LAST_TOKEN, (RANKED,)),
    Statement("ranked first, and not said", MISALIGNMENT, RANKED, (OUTPUT,)),
    Statement("said, beside a fitted readout", MISALIGNMENT, READ_OUT, (OUTPUT,)),
)
LOST, GAINED, NEITHER = "lost", "gained", "not distinguishable"


def mapping_losses(
    probed: pd.DataFrame,
    lens: pd.DataFrame,
    predicted: pd.DataFrame,
    readout: pd.DataFrame,
    image_sets: Mapping[str, ImageSet],
    split: str,
    question: str = RECIPE,
) -> pd.DataFrame:
    """What is lost in each step from the last token's state to the answer, and beside a fitted readout.

    Args:
        probed: from `results.end_rows`.
        lens: from `results.lens_rows`.
        predicted: from `results.prediction_rows`.
        readout: from `readout.readout_rows`.
        image_sets, split: as of `diagnosis_tables.diagnoses`.
        question: of `intervals.QUESTIONS`; only the probe has seeds.

    Returns:
        Three rows (STEPS) a model, data set and stage: these, the columns of `diagnosis.losses`, and verdict: LOST
        or GAINED where the whole simultaneous interval says so, else NEITHER.

    Raises:
        InputError: rows of a state or of an image are missing; as `diagnosis.losses`.
    """
    module, pooling = PROBED[LAST_TOKEN]
    of_last_token = probed[(probed["pooling"] == pooling) & probed["point"].str.startswith(module)]
    frames, tables = [], [by_state(own) for own in (lens, predicted, readout)]
    for state, rows, drawn, images in states(of_last_token, image_sets, split):
        right = {LAST_TOKEN: outcomes(rows[rows["point"] == last_point(rows)]).right[:, 0]}
        ranked, answered, read = (own[(*state.values(),)] for own in tables)
        if ranked.empty:
            raise InputError(f"{state['model']} on {state['dataset']}, {state['stage']}: no rows of '{RANKED}'")
        ranked = ranked[ranked["point"] == last_point(ranked)]
        for station, own in ((RANKED, ranked), (OUTPUT, answered), (READ_OUT, read)):
            what = f"{state['model']} on {state['dataset']}, {station}"
            right[station] = single_outcomes(own, images, what, parsed=station == OUTPUT)
        frames.append(losses(right, drawn, question, STEPS).assign(**state))
    found = pd.concat(frames, ignore_index=True)
    verdict = np.select([found["band_high"] < 0, found["band_low"] > 0], [LOST, GAINED], NEITHER)
    return found.assign(verdict=verdict)
