"""Tables made of rows where they are first read, and outcomes that are of exactly the test images, with resamples."""

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of
from simulated_rows import image_set as plain_set
from tiny_parts import make_image_set, newly_made

from mlprobe_utils.analysis import health as of_run
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation import metrics
from mlprobe_utils.evaluation.names import CONTROL_TASK, MAJORITY
from mlprobe_utils.evaluation.outcomes import output_outcomes
from mlprobe_utils.evaluation.rows import STAGES, image_rows, write_rows
from mlprobe_utils.pipeline import artefacts, results, scoring
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.tested import evaluated, resamples_of_tested

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
    with pytest.raises(InputError, match="unknown probe settings 'rwa': did you mean 'raw'"):
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


LINKED = {  # train image e is of patient one, and a copy of test image c
    "patient": ["one", "one", "two", "two", "three", "one"],
    "duplicate_group": [None, None, None, None, "copy", "copy"],
}


def image_set(**changed) -> ImageSet:
    """Test images of three patients, and a train image."""
    columns = {"image": [*"fbdace"], "option": ["Normal", "Benign"] * 3, "duplicate_group": [None] * 6}
    columns |= {"patient": ["one", "one", "two", "two", "three", None], "split_paper": ["test"] * 5 + ["train"]}
    return ImageSet(load_data_card("busi"), pd.DataFrame(columns | changed), "0" * 64, {}, None)


@pytest.mark.parametrize(("changed", "together"), [({}, ["ad", "bf", "c"]), (LINKED, ["ad", "bfc"])])
def test_a_patient_is_drawn_whole_and_images_are_sorted(changed, together):
    resamples, images = resamples_of_tested(image_set(**changed), "paper")
    assert images == ["a", "b", "c", "d", "f"]
    drawn = dict(zip(images, resamples.counts.T, strict=True))
    for names in together:
        assert all((drawn[name] == drawn[names[0]]).all() for name in names)
    assert (drawn["a"] != drawn["b"]).any()
    assert (sum(drawn[names[0]] for names in together) == len(together)).all()


def test_what_has_no_interval_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"busi: its test set \(0 images\)"):
        resamples_of_tested(image_set(split_paper=["train"] * 6), "paper")
    with pytest.raises(InputError, match=r"\(5 images\) is of one patient.* add test images of others"):
        resamples_of_tested(image_set(patient=["one"] * 6), "paper")


def test_outcomes_are_read_model_by_model_and_have_to_be_of_the_test_images():
    sets = {dataset: plain_set(20) for dataset in "de"}
    selection, read = results.Selection(("m", "n"), ("d", "e"), "miniature", "paper"), []

    def outcomes_of(one: results.Selection) -> dict:
        read.append((*one.datasets, *one.models))
        return {("finetuned", "answers"): output_outcomes(answers_of(np.arange(20) < 15))}

    found = evaluated(selection, sets, outcomes_of)
    assert read == [(own.dataset, own.model) for own in found] == [("d", "m"), ("d", "n"), ("e", "m"), ("e", "n")]
    assert found[0].resamples is found[1].resamples
    assert (found[0].positive, found[0].place(stage="s")) == ("Yes", {"model": "m", "dataset": "d", "stage": "s"})
    with pytest.raises(InputError, match="m on d, finetuned, answers: its rows are not from the test images"):
        evaluated(selection, {"d": plain_set(22), "e": plain_set(20)}, outcomes_of)
