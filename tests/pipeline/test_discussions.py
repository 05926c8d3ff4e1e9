"""What discussions make of a model: variants in folders of their own, towers trained alone, all once, and read back."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from tiny_parts import RECIPE, changed, make_image_set, times_made

from mlprobe_utils.analysis import comprehension, vision_tower
from mlprobe_utils.book import provenance_box
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import CONTROL_RUN
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import SCHEMA
from mlprobe_utils.pipeline import artefacts, places, results, variants, work
from mlprobe_utils.pipeline import model_steps as pipeline
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.results import ORDER, VISION_TOWER, Selection
from mlprobe_utils.pipeline.tested import evaluated
from mlprobe_utils.pipeline.variants import TRAINABLE, Variant, classifier_name, of_value

ONE = Selection(("tiny",), ("busi-phantom",), "miniature", "paper")
NAMES = ["frozen-vision-tower", "question-first", "training-paradigms"]
RUNS = 2


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return make_image_set(tmp_path_factory.mktemp("images"), 30, "busi-phantom", 3, 12)  # few resamples lack a class


@pytest.fixture(scope="module")
def use(tmp_path_factory, tiny_card, image_set):
    """A protocol of two runs and little training, wherever it is read; returns how to set one with fields changed."""
    blocks = {"probe": {"epochs": 2}, "vision_training": {"runs": RUNS}, "answering": {"max_new_tokens": 2}}
    small = changed(load_protocol("miniature"), **blocks).model_copy(update={"probe_variants": {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        patch.setattr(places, "load_model_card", lambda slug: tiny_card)
        patch.setattr(places, "load_image_set", lambda slug, protocol: image_set)

        def change(**fields):
            own = {"runs": RUNS, "epochs": 1} | fields.pop("fine_tuning", {})
            made = small.model_copy(update={"fine_tuning": RECIPE.model_copy(update=own)} | fields)
            for module in (places, results, variants):
                patch.setattr(module, "load_protocol", lambda slug: made)
            return made

        change()
        yield change


def run(names=NAMES) -> list[str]:
    """Runs discussions; returns the folders of the artefacts that it made, below the model's."""
    folder = ONE.folder("tiny", "busi-phantom")
    before = times_made(folder)
    pipeline.run_discussions("tiny", ["busi-phantom"], "miniature", "paper", list(names))
    return sorted(place for place, time in times_made(folder).items() if time != before.get(place))


@pytest.fixture(scope="module")
def whole(use) -> dict[str, list[str]]:
    """Everything there is to read: of the pipeline and of all discussions, and which artefacts each of these made."""
    for make in (pipeline.make_adapters, pipeline.make_predictions, pipeline.make_features, pipeline.make_probes):
        make(*work.works("tiny", ["busi-phantom"], "miniature", "paper"))
    return {name: run([name]) for name in NAMES}


def test_each_artefact_is_made_once_in_a_folder_of_its_own_and_provenance_names_it(whole):
    towers = [f"vision_tower/frozen/{kind}-{run}" for kind in ("adapter", "predictions-finetuned") for run in (0, 1)]
    assert whole["frozen-vision-tower"] == towers
    assert whole["training-paradigms"] == sorted(
        classifier_name(weights, run) for weights in TRAINABLE for run in range(RUNS)
    )
    states = [results.state_name(kind, run) for kind in ("features", "predictions") for run in (None, 0)]
    names, orders = ["adapter-0", *states, "probes"], ("irrelevant_first", "question_first")
    assert whole["question-first"] == sorted(f"order/{order}/{name}" for order in orders for name in names)
    assert run() == []
    folder = ONE.folder("tiny", "busi-phantom")
    place, frozen = folder / "order" / "question_first", folder / "vision_tower" / "frozen" / "predictions-finetuned-1"
    names = ["probes", "features-pretrained", "features-finetuned-0", "adapter-0"]
    assert {*artefacts.upstream(place / "probes")} == {place / name for name in names}
    assert artefacts.upstream(frozen) == [frozen, frozen.with_name("adapter-1")]
    kinds = [provenance_box._kind(one) for one in (place / "features-finetuned-0", frozen, folder / "classifier-all-0")]
    assert kinds == ["features, order question first", "predictions, vision tower frozen", "classifier"]


def test_with_fewer_runs_the_first_of_both_are_read(whole, use):
    assert set(variants.tower_rows(ONE, "lora")["run"]) == set(range(RUNS))
    use(vision_training=load_protocol("miniature").vision_training.model_copy(update={"runs": 1}))
    for rows in (variants.tower_rows(ONE, "lora"), variants.tower_rows(ONE, "frozen"), variants.classifier_rows(ONE)):
        assert set(rows["run"]) == {0}
    use()


def test_a_variant_differs_in_its_setting_alone(whole):
    folder = ONE.folder("tiny", "busi-phantom")
    adapters = [folder / place / "adapter-0" / "adapter_model.safetensors" for place in ("", "vision_tower/frozen")]
    tuned, frozen = map(load_file, adapters)
    assert frozen.keys() == {name for name in tuned if ".visual.blocks." not in name} < tuned.keys()
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
    assert not variants.tower_rows(ONE, "frozen")["text"].isna().any()


def test_rows_of_a_tower_alone_are_those_of_its_images(whole, image_set):
    rows = variants.classifier_rows(ONE)
    SCHEMA.validate(rows)
    images = pd.concat([image_set.rows_of("paper", split) for split in ("validation", "test")])
    groups = dict(list(rows.groupby(["probe", "run"])))
    assert {*groups} == set(itertools.product(TRAINABLE, range(RUNS)))
    for (_, seed), own in groups.items():
        assert set(own["seed"]) == {seed}
        assert own[["image", "label"]].to_numpy().tolist() == images[["image", "option"]].to_numpy().tolist()
        np.testing.assert_allclose(own[["p_Normal", "p_Benign", "p_Malignant"]].sum(axis=1), 1, rtol=1e-6)
    assert set(rows["point"]) == {"V.03"}


def test_chapters_read_what_was_made(whole, image_set):
    """Every row of the analysis modules comes out of real artefacts of a model."""
    loaders = (vision_tower.outcomes_of_towers, vision_tower.outcomes_of_paradigms, comprehension.outcomes_of_orders)
    towers, paradigms, orders = (evaluated(ONE, {"busi-phantom": image_set}, loader) for loader in loaders)
    assert len(vision_tower.changes(towers)) == 2
    assert vision_tower.levels(paradigms)["trained"].tolist() == [RUNS, 5, 5, RUNS, RUNS]
    of_all = [orders[0].outcomes["pretrained", order, "all points"] for order in ORDERS]
    before = [point for point in of_all[0].points if point[0] in "VC"]  # the LLM, where text is first read
    assert len({one.at(*before).correct.tobytes() for one in of_all}) == 1
    assert len(comprehension.order_differences(orders)) == 2 * 3 * 3
    assert variants.order_prompts(ONE)["prompt"].nunique() == len(ORDERS)


def test_what_was_not_run_says_how_to_make_it(outputs, use):
    command = "python -m mlprobe_utils discuss tiny --datasets busi-phantom --protocol miniature --split paper"
    for words, read, *given in (
        (command, variants.tower_rows, ONE, "frozen"),
        (command, variants.classifier_rows, ONE),
        (command, results.seed_rows, of_value(ONE, ORDER, "question_first")),
        ("python -m mlprobe_utils probe tiny", variants.tower_rows, ONE, "lora"),
    ):
        with pytest.raises(InputError, match=words):
            read(*given)


def test_variants_are_what_the_protocol_is_not(use):
    own, other = use(), use(order="question_first", fine_tuning={"vision_tower": "frozen"})
    for protocol, orders, tower in ((own, ["question_first"], "frozen"), (other, ["image_first"], "lora")):
        assert [one.value for one in variants.variants(ORDER, protocol)] == [*orders, "irrelevant_first"]
        assert variants.variants(VISION_TOWER, protocol) == [Variant(VISION_TOWER, tower)]
    assert of_value(ONE, ORDER, "question_first") is ONE
    assert of_value(ONE, ORDER, "image_first").states == [None, 0]
    assert of_value(ONE, VISION_TOWER, "lora").states == [0, 1]
    use()
