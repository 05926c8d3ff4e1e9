"""Discussions: which models and data sets take part, and what is made of a model: variants in folders of their own,
towers trained alone, all once, and read back."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from tiny_parts import RECIPE, changed, make_image_set, newly_made

from mlprobe_utils.analysis import health
from mlprobe_utils.book import provenance_box
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import CONTROL_RUN
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import SCHEMA
from mlprobe_utils.pipeline import artefacts, places, results, scoring, variants, work
from mlprobe_utils.pipeline import model_steps as pipeline
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.variants import TRAINABLE, Variant, classifier_name, load_discussion, of_value, taking_part

ONE = results.Selection(("tiny",), ("busi-phantom",), "miniature", "paper")
PAPER = {  # discussion -> what it varies, models of the paper's tables; two are this book's own
    "frozen-vision-tower": ("vision_tower", {"huatuogpt-vision-7b", "medgemma-4b"}),
    "interventions": ("states", {"lingshu-7b"}),
    "question-first": ("order", {"lingshu-7b"}),
    "training-paradigms": ("training", {"shizhengpt-7b-vl", "medgemma-1.5-4b"}),
}
RUNS = 2


def test_the_papers_models_take_part_as_miniatures_and_the_cards_data_sets_and_their_phantoms():
    book, found = load_book(), variants.discussions()
    assert [card.slug for card in found] == [*PAPER]
    for card in found:
        varies, models = PAPER[card.slug]
        assert (card.varies, set(card.models) >= models) == (varies, True)
        assert set(taking_part(card, book.all)) == {f"{model}-miniature" for model in card.models}
        assert len(taking_part(card, book.models)) == 1
    both = ["lingshu-7b-miniature", "lingshu-7b"]
    assert taking_part(load_discussion("question-first"), ["lingshu-32b", *both, "qwen2.5-vl-7b-miniature"]) == both
    card, every = load_discussion("question-first"), ["busi-phantom", "covid19-ct-phantom", "covid19-ct"]
    assert variants.discussed_on(card, every) == every[1:]
    assert variants.discussed_on(card, ["busi", "chest-xray"]) == ["busi"]  # none of its own: the first
    assert variants.discussed_on(load_discussion("training-paradigms"), every) == every


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lingshu-7b", "lingshu-7", "unknown model 'lingshu-7'.* 'lingshu-7b'.*discussions/question-first.yml"),
        ("[covid19-ct]", "[covid]", "unknown data set 'covid'.*discussions/question-first.yml"),
        ("models: [", "models: []  # [", "question-first.yml: models"),
    ],
)
def test_a_card_that_is_not_valid_names_file_and_field(own_cards, old, new, words):
    path = own_cards / "discussions" / "question-first.yml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=words):
        load_discussion("question-first")


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return make_image_set(tmp_path_factory.mktemp("images"), 30, "busi-phantom", 3, 12)  # few resamples lack a class


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, tiny_card, image_set):
    """Of two runs and little training, wherever a protocol is read, and with the tiny model for all models."""
    blocks = {"probe": {"epochs": 2}, "vision_training": {"runs": RUNS}, "answering": {"max_new_tokens": 2}}
    recipe = RECIPE.model_copy(update={"runs": RUNS, "epochs": 1})
    small = load_protocol("miniature").model_copy(update={"probe_variants": {}, "fine_tuning": recipe})
    small = changed(small, **blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        patch.setattr(places, "load_model_card", lambda slug: tiny_card)
        patch.setattr(places, "load_image_set", lambda slug, protocol: image_set)
        for module in (places, results, variants):
            patch.setattr(module, "load_protocol", lambda slug: small)
        yield small


def run(*names: str) -> list[str]:
    """Runs discussions; returns the folders of the artefacts that it made, below the model's."""
    given = work.works("tiny", ["busi-phantom"], "miniature", "paper"), [*map(load_discussion, names)]
    return newly_made(ONE.folder("tiny", "busi-phantom"), lambda: pipeline.make_discussions(*given))


@pytest.fixture(scope="module")
def whole(protocol) -> dict[str, list[str]]:
    """Everything there is to read: of the pipeline and of all discussions, and which artefacts each of these made."""
    for make in (pipeline.make_adapters, pipeline.make_predictions, pipeline.make_features, pipeline.make_probes):
        make(*work.works("tiny", ["busi-phantom"], "miniature", "paper"))
    return {name: run(name) for name in PAPER}


def test_each_artefact_is_made_once_in_a_folder_of_its_own_and_provenance_names_it(whole):
    towers = [f"vision_tower/frozen/{kind}-{run}" for kind in ("adapter", "predictions-finetuned") for run in (0, 1)]
    assert whole["frozen-vision-tower"] == towers
    assert whole["training-paradigms"] == sorted(
        classifier_name(weights, run) for weights in TRAINABLE for run in range(RUNS)
    )
    states = [results.state_name(kind, run) for kind in ("features", "predictions") for run in (None, 0)]
    names, orders = ["adapter-0", *states, "probes"], ("irrelevant_first", "question_first")
    assert whole["question-first"] == sorted(f"order/{order}/{name}" for order in orders for name in names)
    assert run(*PAPER) == []
    folder = ONE.folder("tiny", "busi-phantom")
    place, frozen = folder / "order" / "question_first", folder / "vision_tower" / "frozen" / "predictions-finetuned-1"
    names = ["probes", "features-pretrained", "features-finetuned-0", "adapter-0"]
    assert {*artefacts.upstream(place / "probes")} == {place / name for name in names}
    assert artefacts.upstream(frozen) == [frozen, frozen.with_name("adapter-1")]
    kinds = [provenance_box._kind(one) for one in (place / "features-finetuned-0", frozen, folder / "classifier-all-0")]
    assert kinds == ["features, order question first", "predictions, vision tower frozen", "classifier"]


def test_with_fewer_runs_the_first_of_both_are_read(whole, protocol, monkeypatch):
    assert set(variants.tower_rows(ONE, "lora")["run"]) == set(range(RUNS))
    monkeypatch.setattr(variants, "load_protocol", lambda slug: changed(protocol, vision_training={"runs": 1}))
    for rows in (variants.tower_rows(ONE, "lora"), variants.tower_rows(ONE, "frozen"), variants.classifier_rows(ONE)):
        assert set(rows["run"]) == {0}


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
        rows = results.seed_rows(of_value(ONE, results.ORDER, order))
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


def test_what_was_not_run_says_how_to_make_it(outputs, protocol):
    command = "python -m mlprobe_utils model tiny --datasets busi-phantom --protocol miniature --split paper"
    for words, read, *given in (
        (f"{command} --discussions", variants.tower_rows, ONE, "frozen"),
        (f"{command} --discussions", variants.classifier_rows, ONE),
        (f"{command} --discussions", results.seed_rows, of_value(ONE, results.ORDER, "question_first")),
        (f"{command}`", variants.tower_rows, ONE, "lora"),
        *((f"{command}`", read, ONE) for read in (results.reference_rows, results.learning_curves, results.prompts)),
        *((f"{command}`", read, ONE) for read in (scoring.control_scores, health.health_of_run, results.end_rows)),
    ):
        with pytest.raises(InputError, match=words):
            read(*given)


def test_variants_are_what_the_protocol_is_not(protocol, monkeypatch):
    other = changed(protocol, fine_tuning={"vision_tower": "frozen"}).model_copy(update={"order": "question_first"})
    for own, orders, tower in ((protocol, ["question_first"], "frozen"), (other, ["image_first"], "lora")):
        assert [one.value for one in variants.variants(results.ORDER, own)] == [*orders, "irrelevant_first"]
        assert variants.variants(results.VISION_TOWER, own) == [Variant(results.VISION_TOWER, tower)]
    monkeypatch.setattr(variants, "load_protocol", lambda slug: other)
    assert of_value(ONE, results.ORDER, "question_first") is ONE
    assert of_value(ONE, results.ORDER, "image_first").states == [None, 0]
    assert of_value(ONE, results.VISION_TOWER, "lora").states == [0, 1]
