"""The metrics of a run's probes, answers and controls, as pages read them."""

import pandas as pd

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.evaluation import claims, metrics
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.derived import derived
from mlprobe_utils.pipeline.results import CONTROL_SCORES, CONTROLS, OUTPUT_SCORES, PROBE_SCORES, Selection, state_name

METRICS, CLAIMS = "mlprobe_utils.evaluation.metrics", "mlprobe_utils.evaluation.claims"


def probe_scores(selection: Selection, probe: str = MAIN_PROBE) -> pd.DataFrame:
    """`metrics.probe_scores` of one probe recipe on the test images. Raises InputError as `results.probe_rows` does."""
    if probe not in (recipes := load_protocol(selection.protocol).probes):
        raise unknown("probe recipe", probe, recipes)

    def make(one: Selection) -> pd.DataFrame:
        rows = [results.probe_rows(one, name) for name in recipes]
        return metrics.probe_scores(pd.concat(rows), _positives(one))

    scores = derived(selection, PROBE_SCORES, ["probes"], METRICS, make)
    return scores[scores["probe"] == probe].reset_index(drop=True)


def output_scores(selection: Selection) -> pd.DataFrame:
    """`metrics.output_scores` on the test images. Raises InputError for a model and data set that was not run."""

    def make(one: Selection) -> pd.DataFrame:
        return metrics.output_scores(results.prediction_rows(one), _positives(one))

    sources = [state_name("predictions", state) for state in selection.states]
    return derived(selection, OUTPUT_SCORES, sources, METRICS, make)


def control_scores(selection: Selection) -> pd.DataFrame:
    """`claims.control_scores` of all selected data sets and models. Raises InputError as the others do."""

    def make(one: Selection) -> pd.DataFrame:
        return claims.control_scores(results.control_rows(one), _positives(one))

    of_models = derived(selection, CONTROL_SCORES, [CONTROLS], CLAIMS, make)
    return pd.concat([of_models, claims.control_scores(results.image_control_rows(selection), _positives(selection))])


def _positives(selection: Selection) -> dict[str, str | None]:
    return {dataset: load_data_card(dataset).positive for dataset in selection.datasets}
