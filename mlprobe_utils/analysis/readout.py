"""The readout: the best linear reading of the final output's scores, which says whether they hold the class after all.

A model whose scores tell the classes apart, but name the wrong ones, is mapped wrongly and not ignorant: a regression
on the same scores is then right where its answer is not.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import OPTION, options_of

READOUT = "readout"
LEAST = np.finfo(float).tiny  # a probability below counts as this one: that of 0 has no logarithm
_OF_ONE = ["model", "fault", "dataset", "stage", "run"]


def readout_rows(prediction_rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the test images read anew from the options' probabilities: as those given, with `probe` "readout".

    A multinomial logistic regression on the logarithms of the probabilities, standardised, fitted on the validation
    images of the same model, fault, data set, stage and run. Few images fit it: its own chance belongs to the reading,
    and what it finds no better than the answers do is not proved absent.

    Args:
        prediction_rows: from `results.prediction_rows`, of any number of models and data sets.

    Returns:
        Rows of schema `rows.SCHEMA`, without text and parsed: the likeliest option is what is read.

    Raises:
        InputError: the validation images of a data set are not of several classes, a probability is nan, or there
            are no test images.
    """
    frames = []
    for _, own in prediction_rows.groupby(_OF_ONE, dropna=False, sort=False):
        options = options_of(own)
        columns = [OPTION + option for option in options]
        fitted, tested = (own[own["part"] == part] for part in ("validation", "test"))
        place = f"{own['model'].iloc[0]} on {own['dataset'].iloc[0]}"
        if fitted["label"].nunique() < 2:
            raise InputError(
                f"{place}: a readout is fitted on validation images of several classes, found "
                f"{fitted['label'].nunique()}: raise validation_fraction in the protocol's splits"
            )
        if own[columns].isna().any(axis=None):
            raise InputError(f"{place}: an option without a probability (nan): make the predictions anew")
        if tested.empty:
            raise InputError(f"{place}: no test images to read: give rows of both parts")
        scores, shown = (np.log(part[columns].clip(lower=LEAST)) for part in (fitted, tested))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(scores, fitted["label"])
        read = pd.DataFrame(model.predict_proba(shown), tested.index, model.classes_)
        chances = read.reindex(columns=options, fill_value=0.0).set_axis(columns, axis=1)
        frames.append(tested.drop(columns=["text", "parsed"], errors="ignore").assign(probe=READOUT, **chances))
    return pd.concat(frames, ignore_index=True)
