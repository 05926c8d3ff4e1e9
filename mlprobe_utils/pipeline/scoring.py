"""Tables that follow from a run's per-image rows: kept beside them, and made anew by what reads one that is stale."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.evaluation import metrics
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline import artefacts, results
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.code import code_hash
from mlprobe_utils.pipeline.results import Selection, require, state_name

TABLE = "table.parquet"
Making = Callable[[Selection], pd.DataFrame]  # of the table of one model and data set


def derived(
    selection: Selection, name: str, sources: list[str], module: str, make: Making, **recipe: float
) -> pd.DataFrame:
    """The artefact `name`, a table, of every selected model and data set. `make`, code of `module`, makes that of one
    from `sources`, the artefacts beside it; it depends on the data card's positive option and on `recipe`, too. Raises
    InputError, with the command that makes it, where a source is not there; and what `make` raises."""
    code, frames = code_hash(module), []
    for model, dataset, folder in selection.folders():
        own = folder / name
        folders = [require(selection, model, dataset, folder / source) for source in sources]
        upstream = {artefacts.from_outputs(source): artefacts.content_hash(source) for source in folders}
        made_from = {"stage": name, "upstream": upstream, "code": code}
        made_from["recipe"] = recipe | {"positive": load_data_card(dataset).positive}
        one = replace(selection, models=(model,), datasets=(dataset,))
        artefacts.make(own, made_from, lambda folder, one=one: write_parquet(make(one), folder / TABLE))
        frames.append(artefacts.read_rows(require(selection, model, dataset, own) / TABLE))
    return pd.concat(frames, ignore_index=True)


def probe_scores(selection: Selection, probe: str = MAIN_PROBE) -> pd.DataFrame:
    """`metrics.probe_scores` of some probe settings on the test images. Raises InputError as `results.probe_rows`."""
    if probe not in (recipes := load_protocol(selection.protocol).probes):
        raise unknown("probe settings", probe, recipes)

    def make(one: Selection) -> pd.DataFrame:
        return metrics.probe_scores(pd.concat([results.probe_rows(one, name) for name in recipes]), _positives(one))

    scores = derived(selection, results.PROBE_SCORES, ["probes"], metrics.__name__, make)
    return scores[scores["probe"] == probe].reset_index(drop=True)


def output_scores(selection: Selection) -> pd.DataFrame:
    make = lambda one: metrics.output_scores(results.prediction_rows(one), _positives(one))  # noqa: E731
    sources = [state_name("predictions", state) for state in selection.states]
    return derived(selection, results.OUTPUT_SCORES, sources, metrics.__name__, make)


def control_scores(selection: Selection) -> pd.DataFrame:
    """`metrics.control_scores`, of the controls that need a model and of those that need none."""
    make = lambda one: metrics.control_scores(results.control_rows(one), _positives(one))  # noqa: E731
    of_models = derived(selection, results.CONTROL_SCORES, [results.CONTROLS], metrics.__name__, make)
    return pd.concat([of_models, metrics.control_scores(results.image_control_rows(selection), _positives(selection))])


def _positives(selection: Selection) -> dict[str, str | None]:
    return {dataset: load_data_card(dataset).positive for dataset in selection.datasets}
