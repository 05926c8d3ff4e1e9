"""The pipeline of one model: every artefact made once, redone exactly where something changed, rows in their places."""

import dataclasses
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from tiny_parts import RECIPE, changed, make_image_set, newly_made

from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.points import PLACES
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.evaluation.rows import SCHEMA, write_rows
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.pipeline import artefacts, places, results, scoring, work
from mlprobe_utils.pipeline import model_steps as pipeline
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.fault_card import ROWS
from mlprobe_utils.probing.extraction import FEATURES as FEATURE_FILE
from mlprobe_utils.probing.extraction import load_features
from mlprobe_utils.probing.logit_lens import first_tokens, through_the_lens
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.synthetic.faults import planting
from mlprobe_utils.training.prediction import answer_batch

SELECTION = results.Selection(("tiny",), ("busi", "covid19-ct"), "miniature", "paper")
ONE = results.Selection(("tiny",), ("busi",), "miniature", "paper")
OPTIONS = ["p_Normal", "p_Benign", "p_Malignant"]
STATES = ("pretrained", "finetuned-0", "finetuned-1")
FEATURES, ADAPTERS = [f"features-{state}" for state in STATES], ["adapter-0", "adapter-1"]


@pytest.fixture(scope="module")
def image_sets(tmp_path_factory):
    return {d: make_image_set(tmp_path_factory.mktemp(d), dataset=d) for d in SELECTION.datasets}


@pytest.fixture(scope="module")
def run(tiny_card, image_sets):
    """Runs the pipeline with little training; returns the names of the artefacts that it made."""
    small = load_protocol("miniature").model_copy(update={"fine_tuning": RECIPE.model_copy(update={"runs": 2})})
    small = changed(small, probe={"epochs": 2}, answering={"max_new_tokens": 2})

    def go() -> list[str]:
        everything = work.works("tiny", list(SELECTION.datasets), "miniature", "paper")
        made = newly_made(artefacts.OUTPUTS, lambda: pipeline.make_model(everything))
        return sorted(re.sub(r"(random)-\w+", r"\1", place.rpartition("/")[2]) for place in made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "load_model_card", lambda slug: tiny_card)
        patch.setattr(places, "load_image_set", lambda slug, protocol: image_sets[slug])
        patch.setattr(places, "load_protocol", lambda slug: small)
        yield go


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Iterator[list[str]]:
    """Everything there is to read, of both data sets; what was made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        yield run()


@pytest.fixture
def own(whole, tmp_path, monkeypatch) -> work.Work:
    """The work on BUSI, in a copy of the outputs that a test may change."""
    monkeypatch.setattr(artefacts, "OUTPUTS", shutil.copytree(artefacts.OUTPUTS, tmp_path / "outputs"))
    return work.works("tiny", ["busi"], "miniature", "paper")[0]


def test_everything_is_made_once_and_redone_where_something_changed(run, whole, own, monkeypatch):
    predictions = [f"predictions-{state}" for state in STATES]
    everything = [*ADAPTERS, *predictions, *FEATURES, "lens", "probes", "transfer", "controls", "prompts"]
    assert whole == sorted([*everything, "controls-paper", "features-random"] * 2)
    with monkeypatch.context() as patch:
        for loader in ("load", "load_random"):
            patch.setattr(work, loader, lambda *_: pytest.fail("a current run loads no model"))
        assert run() == []
    learned = set(everything) - {"predictions-pretrained", "features-pretrained"}
    other = changed(places.load_protocol("miniature"), fine_tuning={"weight_decay": 0.5})
    monkeypatch.setattr(places, "load_protocol", lambda slug: other)
    assert run() == sorted([*learned] * 2)


def test_rows_of_all_stages_are_valid_and_belong_to_their_images(whole, image_sets):
    predictions, probes = results.prediction_rows(SELECTION), results.probe_rows(SELECTION)
    lens, reference = results.lens_rows(SELECTION), results.reference_rows(SELECTION)
    for rows in (predictions, probes, lens, reference):
        SCHEMA.validate(rows)
        assert set(rows["split"]) == ({"test"} if rows is reference else {"validation", "test"})
        assert set(rows["data_hash"]) == {image_set.data_hash for image_set in image_sets.values()}
    assert set(reference["control"]) == {names.CLASSICAL}
    for dataset, image_set in image_sets.items():
        folder, manifest = SELECTION.folder("tiny", dataset), image_set.manifest.set_index("image")
        assert set(artefacts.upstream(folder / "lens")) == {folder / name for name in ("lens", *FEATURES, *ADAPTERS)}
        options = [f"p_{option}" for option in image_set.card.options]
        # images, of three states; points and poolings, two runs of two stages; points of three states; test images
        for rows, count in ((predictions, 4 * 3), (probes, 4 * 21 * 4), (lens, 4 * 3 * 3), (reference, 2)):
            own = rows[rows["dataset"] == dataset]
            assert len(own) == count
            for column, expected in (("label", "option"), ("split", "split_paper")):
                assert (own[column].to_numpy() == manifest.loc[own["image"], expected].to_numpy()).all()
            np.testing.assert_allclose(own[options].sum(axis=1), 1, rtol=1e-6)
    assert set(probes["run"]) == {0, 1}
    assert predictions[predictions["stage"] == "pretrained"]["run"].isna().all()
    curves, prompts = results.learning_curves(SELECTION), results.prompts(SELECTION)["prompt"]
    assert curves.groupby(["dataset", "run"])["epoch"].apply(list).tolist() == [[1, 2]] * 4
    assert ["Normal" in prompt for prompt in prompts] == [True, False]


def test_controls_are_complete(whole, image_sets):
    """Of every model and data set its own, of every data set those that need no model."""
    scores, alone = scoring.control_scores(SELECTION), (*names.WITHOUT_MODEL, names.CLASSICAL)
    probed = {names.CONTROL_TASK: 9, names.MEMORISATION: 3, names.RANDOM_WEIGHTS: 9, names.TEXT_ONLY: 1}
    for dataset, image_set in image_sets.items():
        own = scores[scores["dataset"] == dataset]
        assert own["control"].value_counts().to_dict() == probed | dict.fromkeys(alone, 1)
        assert own["model"].isna().sum() == len(alone)
        folder = SELECTION.folder("tiny", dataset)
        rows = SCHEMA.validate(pd.read_parquet(folder / "controls" / "controls.parquet"))
        parts = rows.groupby("control")["split"].unique().map(list).to_dict()
        assert parts == {control: ["test"] for control in probed} | {names.MEMORISATION: ["train"]}
        task = pd.read_parquet(SELECTION.controls(dataset) / "control_task.parquet").set_index("image")["control"]
        true = image_set.manifest.set_index("image")["option"]
        for control, labels in ((names.CONTROL_TASK, task), (names.RANDOM_WEIGHTS, true), (names.TEXT_ONLY, true)):
            own = rows[rows["control"] == control]
            assert (own["label"].to_numpy() == labels[own["image"]].to_numpy()).all()
        (place,) = folder.parent.glob("features-random-*")
        random, pretrained = (load_features(one / FEATURE_FILE) for one in (place, folder / "features-pretrained"))
        assert random.keys() == pretrained.keys()
        assert not any(torch.allclose(random[key], pretrained[key], atol=1e-3) for key in random)
        sources = ("controls", "features-finetuned-0", "adapter-0")
        expected = {*(folder / source for source in sources), place, SELECTION.controls(dataset)}
        assert {*artefacts.upstream(folder / "controls")} == expected


def test_every_wording_is_answered_by_the_first_fine_tuned_run(whole, own):
    rows, card = dict(iter(SCHEMA.validate(results.prompt_rows(ONE)).groupby("control"))), own.image_set.card
    predicted, columns = results.prediction_rows(ONE).query("run == 0 and split == 'test'"), [*OPTIONS, "image", "text"]
    assert (rows[OWN_PROMPT][columns].to_numpy() == predicted[columns].to_numpy()).all()
    assert {*rows} == {OWN_PROMPT, *card.other_prompts}
    for name, text in card.other_prompts.items():
        encoder = Encoder(own.loaded.processor, text)
        inputs = encoder.questions([*map(own.image_set.pixels, own.images("test").index)])
        with own.state(names.CONTROL_RUN):
            answers = answer_batch(own.loaded, inputs, encoder, card.options, 2)
        assert rows[name]["text"].tolist() == answers["text"].tolist()
        np.testing.assert_allclose(rows[name][OPTIONS], softmax(answers[card.options], axis=1), rtol=1e-4)
    alone = card.model_copy(update={"paraphrases": [], "template": "<image> Normal/Benign/Malignantly"})
    pipeline.make_prompts(dataclasses.replace(own, image_set=dataclasses.replace(own.image_set, card=alone)))
    assert set(results.prompt_rows(ONE)["control"]) == {OWN_PROMPT}


def features_of(state: str) -> dict[str, torch.Tensor]:
    return load_features(SELECTION.folder("tiny", "busi") / f"features-{state}" / FEATURE_FILE)


@pytest.fixture
def by_hand(image_sets):
    """What probes are fitted with again by hand: the images' names, labels and train images, classes, and recipe."""
    parts = [image_sets["busi"].rows_of("paper", part) for part in ("train", "validation", "test")]
    images, options = pd.concat(parts), image_sets["busi"].card.options
    labels = images["option"].map(options.index).to_numpy()
    recipe = load_protocol("miniature").probe.model_copy(update={"epochs": 2})
    return images["image"], labels, (np.arange(8), len(options), recipe)


def test_the_lens_of_a_state_is_that_of_its_own_features(whole, tiny, encoder, image_sets):
    tokens = first_tokens(encoder, image_sets["busi"].card.options)
    rows = results.lens_rows(ONE).query("split == 'test' and point == 'L.01'")
    for state, own in (("pretrained", rows["run"].isna()), ("finetuned-1", (rows["run"] == 1).fillna(False))):
        states = features_of(state)["L.01/last_token"][-2:]
        expected = through_the_lens(tiny, states, tokens, 8)  # LoRA leaves norm and head
        np.testing.assert_allclose(rows.loc[own, OPTIONS].to_numpy(), expected, rtol=1e-4)


def test_probe_rows_are_those_of_the_features(whole, by_hand):
    """Rows, labels and parts are not shuffled on the way."""
    images, labels, settings = by_hand
    for state, stage, number in (("pretrained", "pretrained", 1), ("finetuned-0", "finetuned", 0)):
        features = features_of(state)
        assert {len(tensor) for tensor in features.values()} == {len(images)}
        seeds = dict.fromkeys(features, number)
        fitted = fit_probes(features, dict.fromkeys(features, labels), *settings, seeds)
        for key in ("V.03/image_mean", "L.02/last_token"):
            point, pooling = key.split("/")
            chosen = dict(stage=stage, run=number, point=point, pooling=pooling)
            found = results.probe_rows(ONE, **chosen).set_index("image").loc[images[8:], OPTIONS]
            np.testing.assert_allclose(found, fitted[key][8:], rtol=1e-5)


def test_seeds_are_of_both_stages_and_a_probe_of_both_files_is_one(whole):
    seeds = load_protocol("miniature").probe_seeds
    rows, curves = results.seed_rows(ONE), results.probe_rows(ONE)
    SCHEMA.validate(rows)
    assert set(rows["split"]) == {"test"}
    ends = rows.query("point in ('V.03', 'C.01', 'L.02') or point == 'V.00' and pooling == @PLACES")
    pd.testing.assert_frame_equal(results.end_rows(ONE), ends.reset_index(drop=True))
    states = rows[["stage", "run", "seed"]].drop_duplicates().fillna({"run": -1}).to_numpy().tolist()
    both = (("finetuned", names.CONTROL_RUN), ("pretrained", -1))
    assert sorted(states) == [[stage, run, seed] for stage, run in both for seed in range(seeds)]
    keys = ["stage", "seed", "point", "pooling", "image"]
    assert curves["seed"].equals(curves["run"])
    shared = curves[(curves["stage"] == "pretrained") | (curves["run"] == names.CONTROL_RUN)].merge(rows, on=keys)
    assert len(shared) == 3 * len(rows) // (2 * seeds)  # of two runs before fine-tuning, and of the first after it
    assert set(rows.loc[rows["pooling"] == PLACES, "point"]) == {"V.00", "V.03", "C.01", "L.02"}  # sites of a diagnosis
    assert (shared["p_Normal_x"] == shared["p_Normal_y"]).all()
    assert rows.groupby(keys[2:], sort=False)["p_Normal"].nunique().min() > seeds  # each a probe of its own


def test_what_is_predicted_for_tested_images_is_predicted_for_the_same_as_fresh(own, tmp_path, monkeypatch):
    monkeypatch.setattr(planting, "_fresh", lambda work, folder: work.image_set)
    write_rows(results.reference_rows(ONE), tmp_path / ROWS)
    planting._replicate(own, tmp_path, tmp_path)
    rows = SCHEMA.validate(pd.read_parquet(tmp_path / ROWS))
    kinds = rows["point"].notna(), rows["point"].isna() & rows["control"].isna()
    answers = results.prediction_rows(ONE).query("split == 'test' and (run == 0 or run.isna())")
    for kind, expected, column in zip(kinds, (results.end_rows(ONE), answers), ("p_Normal", "parsed"), strict=True):
        keys = ["stage", "point", "pooling", "seed", "image"]
        found, own_rows = (one.sort_values(keys).reset_index(drop=True) for one in (rows[kind], expected))
        pd.testing.assert_frame_equal(found[[*keys, column]], own_rows[[*keys, column]], atol=1e-4, check_dtype=False)


def test_probes_are_read_at_every_llm_layer_of_both_stages(whole, by_hand):
    images, labels, settings = by_hand
    rows = results.transfer_rows(ONE)
    SCHEMA.validate(rows)
    assert set(rows["split"]) == {"test"}
    assert len(rows) == 2 * 2 * 3 * 3 * 2  # stages, poolings, pairs of points, images
    features = features_of("finetuned-0")
    own = {point: features[f"{point}/last_token"] for point in ("L.00", "L.01", "L.02")}
    expected = fit_probes(own, dict.fromkeys(own, labels), *settings, dict.fromkeys(own, 0), at=own)
    chosen = {"stage": "finetuned", "pooling": "last_token", "probe": "L.02", "point": "L.00"}
    found = results.transfer_rows(ONE, **chosen).set_index("image").loc[images[-2:], OPTIONS]
    np.testing.assert_allclose(found, expected["L.02", "L.00"][-2:], rtol=1e-5)


def test_features_with_random_weights_serve_all_models_of_a_shape(own, monkeypatch):
    monkeypatch.setattr(work, "load_random", lambda *_: pytest.fail("the features are there"))
    twin = dataclasses.replace(own, identity="other weights", folder=own.folder.with_name("twin"), _models={})
    pipeline.make_random_features(twin)
    monkeypatch.setattr(places, "shape_of", lambda card: "another shape")
    with pytest.raises(pytest.fail.Exception, match="the features are there"):
        pipeline.make_random_features(twin)


def test_probe_recipes_of_the_protocol_are_told_apart(whole):
    keys = ["stage", "run", "point", "pooling", "image"]
    rows = {name: results.probe_rows(ONE, name) for name in load_protocol("miniature").probes}
    assert results.probe_rows(ONE).equals(rows["main"])
    first = rows.pop("main").query("run == 0 and pooling != @PLACES").reset_index(drop=True)
    for name, own in rows.items():
        assert set(own["probe"]) == {name}
        assert own[keys].equals(first[keys])
        assert not np.allclose(own["p_Normal"], first["p_Normal"])
