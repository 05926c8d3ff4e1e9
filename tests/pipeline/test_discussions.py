"""What discussions make of a model: variants in folders of their own, towers trained alone, all once, and read back."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from tiny_parts import RECIPE, make_image_set

from mlprobe_utils.analysis import frozen_tower, question_order, training_paradigms
from mlprobe_utils.book import provenance_box
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.orders import ORDERS
from mlprobe_utils.evaluation.rows import SCHEMA
from mlprobe_utils.pipeline import artefacts, discussions, places, probe_steps, results, variants, work
from mlprobe_utils.pipeline import model_steps as pipeline
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.results import ORDER, VISION_TOWER, Selection
from mlprobe_utils.pipeline.tested import evaluated
from mlprobe_utils.pipeline.variants import WAYS, Variant, classifier_name, of_value

ONE = Selection(("tiny",), ("busi-phantom",), "miniature", "paper")
NAMES = ["frozen-vision-tower", "question-first", "training-paradigms"]
RUNS = 2
PIPELINE = (pipeline.make_adapters, pipeline.make_predictions, pipeline.make_features, probe_steps.make_probes)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return make_image_set(tmp_path_factory.mktemp("images"), 30, "busi-phantom", 3, 12)  # few resamples lack a class


@pytest.fixture(scope="module")
def use(tmp_path_factory, tiny_card, image_set):
    """A protocol of two runs and little training, wherever it is read; returns how to set one with fields changed."""
    small = load_protocol("miniature")
    small = small.model_copy(
        update={
            "probe": small.probe.model_copy(update={"epochs": 2}),
            "probe_variants": {},
            "vision_training": small.vision_training.model_copy(update={"runs": RUNS}),
            "answering": small.answering.model_copy(update={"max_new_tokens": 2}),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        patch.setattr(places, "load_model_card", lambda slug: tiny_card)
        patch.setattr(places, "load_image_set", lambda slug, protocol: image_set)

        def change(**changed):
            own = {"runs": RUNS, "epochs": 1} | changed.pop("fine_tuning", {})
            made = small.model_copy(update={"fine_tuning": RECIPE.model_copy(update=own)} | changed)
            for module in (places, results, variants):
                patch.setattr(module, "load_protocol", lambda slug: made)
            return made

        change()
        yield change


def made() -> dict[str, int]:
    """When every artefact of the model was made, by its folder."""
    folder = ONE.folder("tiny", "busi-phantom")
    records = folder.rglob("made_from.json")
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in records}


def run(names=NAMES) -> list[str]:
    """Runs discussions; returns the artefacts that it made."""
    before = made()
    discussions.run_discussions("tiny", ["busi-phantom"], "miniature", "paper", list(names))
    return sorted(place for place, time in made().items() if time != before.get(place))


@pytest.fixture(scope="module")
def whole(use) -> dict[str, list[str]]:
    """Everything there is to read: of the pipeline and of all discussions, and which artefacts each of these made."""
    for make in PIPELINE:
        make(*work.works("tiny", ["busi-phantom"], "miniature", "paper"))
    return {name: run([name]) for name in NAMES}


@pytest.fixture
def nothing(outputs, use) -> None:
    """No artefact yet, and the protocol as it was at first."""
    use()
    yield
    use()


def expected_of_orders() -> list[str]:
    states = [results.state_name(kind, run) for kind in ("features", "predictions") for run in (None, 0)]
    names = ["adapter-0", *states, "probes"]
    return sorted(f"order/{order}/{name}" for order in ("irrelevant_first", "question_first") for name in names)


def test_each_artefact_is_made_once_in_a_folder_of_its_own(whole):
    towers = [f"vision_tower/frozen/{kind}-{run}" for kind in ("adapter", "predictions-finetuned") for run in (0, 1)]
    assert whole["frozen-vision-tower"] == towers
    assert whole["training-paradigms"] == sorted(classifier_name(way, run) for way in WAYS for run in range(RUNS))
    assert whole["question-first"] == expected_of_orders()
    assert run() == []


def test_what_changed_is_made_again_and_nothing_else(nothing, use):
    run(["training-paradigms"])
    rates = load_protocol("miniature").vision_training.model_copy(update={"runs": RUNS})
    use(vision_training=rates.model_copy(update={"learning_rate_lora": 0.5}))
    assert run(["training-paradigms"]) == [classifier_name("lora", run) for run in range(RUNS)]
    use(fine_tuning={"vision_tower": "frozen"}, vision_training=rates.model_copy(update={"runs": 1}))
    assert run(["frozen-vision-tower"]) == ["vision_tower/lora/adapter-0", "vision_tower/lora/predictions-finetuned-0"]


def test_with_fewer_runs_the_first_of_both_are_read(whole, use):
    rates = load_protocol("miniature").vision_training
    assert set(variants.tower_rows(ONE, "lora")["run"]) == set(range(RUNS))
    use(vision_training=rates.model_copy(update={"runs": 1}))
    for rows in (variants.tower_rows(ONE, "lora"), variants.tower_rows(ONE, "frozen"), variants.classifier_rows(ONE)):
        assert set(rows["run"]) == {0}
    use()


def layers(folder) -> list[str]:
    with safe_open(folder / "adapter_model.safetensors", "pt") as opened:
        return list(opened.keys())


def test_an_arm_differs_in_its_setting_alone(whole):
    folder = ONE.folder("tiny", "busi-phantom")
    whole, frozen = (layers(folder / place / "adapter-0") for place in ("", "vision_tower/frozen"))
    assert any(".visual.blocks." in name for name in whole)
    assert set(frozen) == {name for name in whole if ".visual.blocks." not in name}
    plain = json.loads((folder / "adapter-0" / "made_from.json").read_text())
    for place, setting in (("vision_tower/frozen", "vision_tower"), ("order/question_first", "order")):
        own = json.loads((folder / place / "adapter-0" / "made_from.json").read_text())
        flat = {**plain, **plain["recipe"]}, {**own, **own["recipe"]}
        assert {key for key in flat[0] if flat[0][key] != flat[1][key] and key != "recipe"} == {setting}
    for order in ORDERS:
        rows = results.seed_rows(of_value(ONE, ORDER, order))
        assert set(rows["order"]) == {order}
        assert set(rows["run"].dropna()) == {CONTROL_RUN}
        SCHEMA.validate(rows)
    assert set(variants.tower_rows(ONE, "frozen")["run"]) == {0, 1}
    assert not variants.tower_rows(ONE, "frozen")["text"].isna().any()


def test_rows_of_a_tower_alone_are_those_of_its_images(whole, image_set):
    rows = variants.classifier_rows(ONE)
    SCHEMA.validate(rows)
    images = pd.concat([image_set.rows_of("paper", split) for split in ("validation", "test")])
    for (way, seed), own in rows.groupby(["probe", "run"]):
        assert way in WAYS
        assert set(own["seed"]) == {seed}
        assert own["image"].tolist() == images["image"].tolist()
        assert own["label"].tolist() == images["option"].tolist()
        np.testing.assert_allclose(own[["p_Normal", "p_Benign", "p_Malignant"]].sum(axis=1), 1, rtol=1e-6)
    assert rows.groupby(["probe", "run"]).ngroups == len(WAYS) * RUNS
    assert set(rows["point"]) == {"V.03"}


def test_chapters_read_what_was_made(whole, image_set):
    """Every row of the analysis modules comes out of real artefacts of a model."""
    towers, paradigms, orders = (
        evaluated(ONE, {"busi-phantom": image_set}, module.outcomes_of)
        for module in (frozen_tower, training_paradigms, question_order)
    )
    assert len(frozen_tower.changes(towers)) == 2
    assert training_paradigms.levels(paradigms)["trained"].tolist() == [RUNS, 5, 5, RUNS, RUNS]
    assert question_order.largest_before_the_llm(orders) < 1e-9  # bit for bit the same features
    assert len(question_order.differences(orders)) == 2 * 3 * 3
    prompts = variants.order_prompts(ONE).set_index("order")["prompt"]
    assert prompts.nunique() == len(ORDERS)


def test_the_provenance_of_an_arm_names_its_own_artefacts(whole):
    folder = ONE.folder("tiny", "busi-phantom")
    place = folder / "order" / "question_first"
    behind = artefacts.upstream(place / "probes")
    names = ["probes", "features-pretrained", "features-finetuned-0", "adapter-0"]
    assert {path.relative_to(place).name for path in behind} == {*names}
    assert all(path.is_dir() for path in behind)
    assert provenance_box._kind(place / "features-finetuned-0") == "features, order question first"
    frozen = folder / "vision_tower" / "frozen" / "predictions-finetuned-1"
    assert artefacts.upstream(frozen) == [frozen, frozen.with_name("adapter-1")]
    assert provenance_box._kind(frozen) == "predictions, vision tower frozen"
    assert provenance_box._kind(folder / "classifier-all-0") == "classifier"
    assert artefacts.upstream(folder / "classifier-all-0") == [folder / "classifier-all-0"]


def test_what_was_not_run_says_how_to_make_it(nothing):
    command = r"python -m mlprobe_utils discuss tiny --datasets busi-phantom --protocol miniature --split paper"
    for read in (
        lambda: variants.tower_rows(ONE, "frozen"),
        lambda: variants.classifier_rows(ONE),
        lambda: results.seed_rows(of_value(ONE, ORDER, "question_first")),
    ):
        with pytest.raises(InputError, match=command):
            read()
    with pytest.raises(InputError, match=r"python -m mlprobe_utils probe tiny"):
        variants.tower_rows(ONE, "lora")


def test_arms_are_what_the_protocol_is_not(nothing, use):
    own = use()
    assert variants.variants(ORDER, own) == [Variant(ORDER, "question_first"), Variant(ORDER, "irrelevant_first")]
    assert variants.variants(VISION_TOWER, own) == [Variant(VISION_TOWER, "frozen")]
    other = use(order="question_first", fine_tuning={"vision_tower": "frozen"})
    assert variants.variants(ORDER, other) == [Variant(ORDER, "image_first"), Variant(ORDER, "irrelevant_first")]
    assert variants.variants(VISION_TOWER, other) == [Variant(VISION_TOWER, "lora")]
    assert of_value(ONE, ORDER, "question_first") is ONE
    assert of_value(ONE, ORDER, "image_first").states == [None, 0]
    assert of_value(ONE, VISION_TOWER, "lora").states == [0, 1]
