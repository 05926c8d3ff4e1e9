"""Misalignment taken apart: what the model's own mapping from the last token's state to the answer loses, and where.

Between the probe at the LLM's end and the answer lies one site of the model itself: the options as its output layer
ranks them at the last token (the logit lens at the last layer). Beside the answer lies one that the model does not
have: a readout that is fitted on the options' probabilities. A model whose probabilities separate the classes, but
name the wrong ones, is mapped wrongly and not ignorant: the readout is then correct where its answer is not.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.analysis.diagnosis_tables import by_state
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import MISALIGNMENT, Statement, losses
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.outcomes import last_point, outcomes, single_outcomes
from mlprobe_utils.evaluation.rows import OPTION, options_of
from mlprobe_utils.evaluation.sites import LAST_TOKEN, OUTPUT, PROBED
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.intervals import RECIPE
from mlprobe_utils.stats.paired import NEITHER, verdicts

RANKED, READ_OUT = "options ranked by the output layer", "readout of the options' probabilities"
STEPS = (
    Statement("not ranked first", MISALIGNMENT, LAST_TOKEN, (RANKED,)),
    Statement("ranked first, and not said", MISALIGNMENT, RANKED, (OUTPUT,)),
    Statement("said, beside a fitted readout", MISALIGNMENT, READ_OUT, (OUTPUT,)),
)
LOST, GAINED = "lost", "gained"
READOUT = "readout"
LEAST = np.finfo(float).tiny  # a probability below counts as this one: that of 0 has no logarithm


def mapping_losses(
    probed: pd.DataFrame,
    lens: pd.DataFrame,
    predicted: pd.DataFrame,
    readout: pd.DataFrame,
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    question: str = RECIPE,
) -> pd.DataFrame:
    """What is lost in each step from the last token's state to the answer, and beside a fitted readout.

    Args:
        probed, lens, predicted: from `results.end_rows`, `results.lens_rows` and `results.prediction_rows`.
        readout: from `readout_rows`.
        image_sets, split_rule: as of `diagnosis_tables.diagnoses`.
        question: of `intervals.QUESTIONS`; only the probe has seeds.

    Returns:
        Three rows (STEPS) a model, data set and stage: these, the columns of `diagnosis.losses`, and verdict by the
        simultaneous interval: LOST, GAINED or NEITHER.

    Raises InputError if rows of a state or of an image are missing.
    """
    module, pooling = PROBED[LAST_TOKEN]
    of_last_token = probed[(probed["pooling"] == pooling) & probed["point"].str.startswith(module)]
    frames, tables = [], [by_state(own) for own in (lens, predicted, readout)]
    for state, rows, drawn, images in groups(of_last_token, STATE, image_sets, split_rule):
        correct = {LAST_TOKEN: outcomes(rows[rows["point"] == last_point(rows)]).correct[:, 0]}
        ranked, answered, read = (own[(*state.values(),)] for own in tables)
        if ranked.empty:
            raise InputError(f"{state['model']} on {state['dataset']}, {state['stage']}: no rows of '{RANKED}'")
        ranked = ranked[ranked["point"] == last_point(ranked)]
        for site, own in ((RANKED, ranked), (OUTPUT, answered), (READ_OUT, read)):
            what = f"{state['model']} on {state['dataset']}, {site}"
            correct[site] = single_outcomes(own, images, what, parsed=site == OUTPUT)
        frames.append(losses(correct, drawn, question, STEPS).assign(**state))
    found = pd.concat(frames, ignore_index=True)
    return found.assign(verdict=verdicts(found["band_low"], found["band_high"], (LOST, GAINED, NEITHER)))


def readout_rows(prediction_rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the test images predicted anew from the options' probabilities: as those given, with `probe` "readout".

    A multinomial logistic regression on the logarithms of the probabilities, standardised, fitted on the validation
    images of the same model, fault, data set, stage and run. Few images fit it: what it does no better than the answers
    is not proved absent.

    Args:
        prediction_rows: from `results.prediction_rows`, of any number of models and data sets.

    Returns:
        Rows of schema `rows.SCHEMA`, without text and parsed: the most probable option is what counts.

    Raises:
        InputError: the validation images of a data set are not of several classes, a probability is nan, or there
            are no test images.
    """
    frames = []
    for _, own in prediction_rows.groupby(["model", "fault", "dataset", "stage", "run"], dropna=False, sort=False):
        columns = [OPTION + option for option in options_of(own)]
        fitted, tested = (own[own["split"] == split] for split in ("validation", "test"))
        place, classes = f"{own['model'].iloc[0]} on {own['dataset'].iloc[0]}", fitted["label"].nunique()
        if classes < 2:
            raise InputError(
                f"{place}: a readout is fitted on validation images of several classes, found {classes}: raise "
                "validation_fraction in the protocol's splits"
            )
        if own[columns].isna().any(axis=None):
            raise InputError(f"{place}: an option without a probability (nan): make the predictions anew")
        if tested.empty:
            raise InputError(f"{place}: no test images to read: give rows of both splits")
        scores, shown = (np.log(one[columns].clip(lower=LEAST)) for one in (fitted, tested))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(scores, fitted["label"])
        predicted = pd.DataFrame(model.predict_proba(shown), tested.index, OPTION + model.classes_)
        probabilities = predicted.reindex(columns=columns, fill_value=0.0)
        frames.append(tested.drop(columns=["text", "parsed"], errors="ignore").assign(probe=READOUT, **probabilities))
    return pd.concat(frames, ignore_index=True)
