"""The corrected health scores of a run, as pages read them."""

import pandas as pd

from mlprobe_utils.analysis.corrected_scores import corrected_scores
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.derived import derived
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.results import CORRECTED_HEALTH, Selection


def corrected_health(selection: Selection) -> pd.DataFrame:
    """`corrected_scores.corrected_scores` of all selected models and data sets.

    Raises:
        InputError: a model and data set that was not run, a module whose health score has no value, or as there.
    """
    penalty = load_protocol(selection.protocol).health.penalty

    def make(one: Selection) -> pd.DataFrame:
        image_set = load_image_set(one.datasets[0], one.protocol)
        return corrected_scores(results.probe_rows(one), image_set, one.split, penalty)

    module = "mlprobe_utils.analysis.corrected_scores"
    scores = derived(selection, CORRECTED_HEALTH, ["probes"], module, make, penalty=penalty)
    if (missing := scores["raw"].isna()).any():
        row = scores[missing].iloc[0]
        raise InputError(
            f"{row['model']} on {row['dataset']}, {MODULES[row['module']]} ({row['stage']}, run {row['run']}): at a "
            f"point, none of {row['images']} test images is right, and a health score has no value there: add test "
            "images, or train the probes longer"
        )
    return scores
