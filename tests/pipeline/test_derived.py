"""Tables made of rows where they are first read: made once, and anew where rows or scores changed."""

import numpy as np
import pandas as pd
import pytest
from tiny_parts import make_image_set, newly_made

from mlprobe_utils.analysis import health as of_run
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation import metrics
from mlprobe_utils.evaluation.names import CONTROL_TASK, MAJORITY
from mlprobe_utils.evaluation.rows import STAGES, image_rows, write_rows
from mlprobe_utils.pipeline import artefacts, results, scoring
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol

DATASETS = ("busi", "covid19-ct")
POINTS = ("V.00", "V.01", "C.00", "L.00", "L.01")
PREDICTIONS = {results.state_name("predictions", run): run for run in (None, 0, 1)}
SELECTION = results.Selection(("m",), DATASETS, "miniature", "paper")
POSITIVES = {dataset: load_data_card(dataset).positive for dataset in DATASETS}
PROBES = load_protocol("miniature").probes
READERS = (scoring.probe_scores, scoring.output_scores, scoring.control_scores, of_run.health_of_run)
ALL = {results.PROBE_SCORES, results.OUTPUT_SCORES, results.CONTROL_SCORES, results.CORRECTED_HEALTH}


@pytest.fixture
def write(outputs, tmp_path, monkeypatch):
    """Rows of a model on two data sets, as the pipeline leaves them; returns what writes a table of them anew."""
    for dataset in DATASETS:
        (tmp_path / dataset).mkdir()
    image_sets = {d: make_image_set(tmp_path / d, count=40, dataset=d, validation=4, test=20) for d in DATASETS}
    monkeypatch.setattr(of_run, "load_image_set", lambda slug, protocol: image_sets[slug])

    def write(kind: str, dataset: str = "busi", seed: int = 0) -> None:
        generator, image_set = np.random.default_rng(seed), image_sets[dataset]
        images, options = image_set.rows_of("paper", "test").assign(split="test"), image_set.card.options
        shared = {"model": "m", "dataset": dataset, "data_hash": image_set.data_hash, "split_rule": "paper"}
        curve = {"pooling": "image_mean", "run": 0, "seed": 0}
        probed = [(stage, probe, point) for stage in STAGES for probe in PROBES for point in POINTS]
        own = {
            "probes": [curve | {"stage": stage, "probe": probe, "point": point} for stage, probe, point in probed],
            "controls": [curve | {"stage": "finetuned", "point": "L.01", "probe": "main", "control": CONTROL_TASK}],
            "controls-paper": [{"control": MAJORITY, "model": None, "stage": None, "order": None}],
        }
        answered = {"text": "?", "parsed": options[0], "thought_cut": False}
        own |= {name: [answered | {"stage": STAGES[run is not None], "run": run}] for name, run in PREDICTIONS.items()}
        tables = []
        for columns in own[kind]:
            probabilities = generator.dirichlet(np.ones(len(options)), len(images))
            tables.append(image_rows(images, options, probabilities, **shared | {"order": "image_first"} | columns))
        folder = SELECTION.controls(dataset) if kind == "controls-paper" else SELECTION.folder("m", dataset) / kind
        with artefacts.artefact(folder, {"seed": seed, "upstream": {}}) as temporary:
            write_rows(pd.concat(tables), temporary / f"{kind.partition('-')[0]}.parquet")

    for dataset in DATASETS:
        for kind in ("probes", "controls", "controls-paper", *PREDICTIONS):
            write(kind, dataset)
    return write


def made() -> tuple[set[str], int]:
    """Reads all tables; returns the names of those that this made, of model m on BUSI apart from the others."""
    outputs, busi = artefacts.OUTPUTS, SELECTION.folder("m", "busi")
    changed = newly_made(outputs, lambda: [reader(SELECTION) for reader in READERS])
    own = {path.name for path in map(outputs.joinpath, changed) if path.parent == busi}
    return own, len(changed) - len(own)


def test_tables_are_those_of_their_rows(write):
    def equal(*tables: pd.DataFrame) -> None:
        keys = ["model", "dataset", "stage", "run", "point"]
        whole = (own.convert_dtypes().sort_values([k for k in keys if k in own], ignore_index=True) for own in tables)
        pd.testing.assert_frame_equal(*whole, check_dtype=False)

    for probe in PROBES:
        expected = metrics.probe_scores(results.probe_rows(SELECTION, probe), POSITIVES)
        equal(scoring.probe_scores(SELECTION, probe), expected)
    equal(scoring.output_scores(SELECTION), metrics.output_scores(results.prediction_rows(SELECTION), POSITIVES))
    controls = scoring.control_scores(SELECTION)
    assert controls["control"].tolist() == [CONTROL_TASK] * 2 + [MAJORITY] * 2
    equal(controls[:2], metrics.control_scores(results.control_rows(SELECTION), POSITIVES))
    assert len(of_run.health_of_run(SELECTION)) == 2 * 2 * 3  # data sets, stages, modules
    with pytest.raises(InputError, match="unknown probe recipe 'rwa': did you mean 'raw'"):
        scoring.probe_scores(SELECTION, "rwa")


def test_a_table_is_made_once_and_anew_where_its_rows_or_its_score_changed(write, monkeypatch):
    assert made() == (ALL, len(ALL))
    assert made() == (set(), 0)
    before = scoring.probe_scores(SELECTION)
    write("probes", seed=1)
    assert made() == ({results.PROBE_SCORES, results.CORRECTED_HEALTH}, 0)
    assert not scoring.probe_scores(SELECTION).equals(before)
    write("predictions-finetuned-1", seed=1)
    assert made() == ({results.OUTPUT_SCORES}, 0)
    write("controls", seed=1)
    assert made() == ({results.CONTROL_SCORES}, 0)
    protocol = load_protocol("miniature")
    health = protocol.health.model_copy(update={"penalty": 0.5})
    before = of_run.health_of_run(SELECTION)["raw"]
    monkeypatch.setattr(of_run, "load_protocol", lambda slug: protocol.model_copy(update={"health": health}))
    assert made() == ({results.CORRECTED_HEALTH}, 1)
    assert (of_run.health_of_run(SELECTION)["raw"] < before).any()
    monkeypatch.setattr(scoring, "code_hash", lambda module: f"another {module}")
    assert made() == (ALL, len(ALL))
