"""Controls: what needs no model, labels without meaning, random weights, text alone; and what a claim has to beat."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_parts import card_of, each_family, each_family_in_time

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.controls import (
    CELLS,
    CLUSTERS,
    DIRECTIONS,
    SIDE,
    STATISTICS,
    control_task,
    edges,
    image_features,
    pixel_statistics,
    reference_rows,
    rows_without_model,
    shuffled,
    texture,
)
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.claims import ENDS, best_without_model, control_scores, no_better, selectivity, to_beat
from mlprobe_utils.evaluation.control_names import (
    CONTROL_TASK,
    FILE,
    FILE_FORMAT,
    MAJORITY,
    MEMORISATION,
    PIXELS,
    RANDOM_WEIGHTS,
    REFERENCE,
    TEXT_ONLY,
    WITHOUT_MODEL,
)
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import load_random
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.probe_controls import probed_rows, text_only_rows
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.probing.probes import fit_probes

CARD = load_data_card("covid19-ct")
YES, NO = CARD.options
CONSTANTS = {"model": "m", "dataset": CARD.slug, "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
PROBE = load_protocol("miniature").probe
TRAIN, VALIDATION, TEST = 240, 40, 120  # images
PARTS = np.repeat(["train", "validation", "test"], [TRAIN, VALIDATION, TEST])
FEWER = PARTS[::2]


@pytest.fixture
def image_set_of(tmp_path):
    def make(pixels: np.ndarray, options: np.ndarray, parts: np.ndarray = PARTS, **columns) -> ImageSet:
        """Grey images, uint8 [images, height, width], with their answers and what else the manifest says of them."""
        (tmp_path / "pixels.bin").write_bytes(pixels[..., None].repeat(3, axis=3).tobytes())
        count, height, width = pixels.shape
        facts = {"image": [f"{i}.png" for i in range(count)], "option": options, "label": options}
        facts |= {"split_paper": parts, "stored_height": height, "stored_width": width, "mode": "L", "format": "PNG"}
        facts |= {"extension": ".png", "width": width, "height": height, "bytes": 99}
        facts |= {"offset": np.arange(count) * 3 * height * width}
        return ImageSet(CARD, pd.DataFrame(facts | columns), "0" * 64, {}, tmp_path)

    return make


@pytest.fixture
def images(image_set_of):
    """An image set of grey squares with a little noise, from their levels and answers."""

    def make(levels, options, **columns) -> ImageSet:
        noise = np.random.default_rng(0).integers(0, 9, (len(levels), 8, 8))
        pixels = np.clip(np.asarray(levels)[:, None, None] + noise, 0, 255).astype(np.uint8)
        return image_set_of(pixels, options, **columns)

    return make


@pytest.fixture
def drawn():
    """Grey levels, and answers that have nothing to do with them; three in ten are Yes."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 200, len(PARTS)), np.where(rng.uniform(size=len(PARTS)) < 0.3, YES, NO)


def accuracies(rows: pd.DataFrame) -> pd.Series:
    return control_scores(rows, {CARD.slug: CARD.positive}).set_index("control")["accuracy"]


def checked(rows: pd.DataFrame, controls: tuple[str, ...], images: int) -> pd.Series:
    """Accuracies of controls of the test images, whose rows are as they should be."""
    SCHEMA.validate(rows)
    assert set(rows["split"]) == {"test"}
    assert rows[["model", "stage", "order", "run", "probe", "point"]].isna().all(axis=None)
    assert rows["control"].value_counts().to_dict() == dict.fromkeys(controls, images)
    np.testing.assert_allclose(rows[[f"p_{YES}", f"p_{NO}"]].sum(axis=1), 1)
    return accuracies(rows)


def without_model(image_set: ImageSet) -> pd.Series:
    return checked(rows_without_model(image_set, "paper", pixel_statistics(image_set)), WITHOUT_MODEL, TEST)


def test_pixel_statistics_of_flat_and_of_striped_images(image_set_of):
    pixels = np.full((2, 4, 4), 7, np.uint8)
    pixels[1] = [90, 0, 90, 0]
    found = pixel_statistics(image_set_of(pixels, [YES, NO], ["train", "test"]))
    table = pd.DataFrame(found, columns=STATISTICS)
    assert table.loc[0].tolist() == [7, 0, 7, 7, 7, 7, 7, 0, 0]
    assert table.loc[1, ["mean", "deviation", "percentile 5", "percentile 95"]].tolist() == [45, 45, 0, 90]
    assert table.loc[1, "vertical change"] == 0
    assert table.loc[1, "horizontal change"] == pytest.approx(90 * np.sqrt(12 / 16))


def test_a_leak_is_found_by_the_control_that_can_see_it_and_by_no_other(images, drawn):
    levels, options = drawn
    majority = 100 * (options[TRAIN + VALIDATION :] == NO).mean()
    plain = without_model(images(levels, options))
    assert plain[[MAJORITY, FILE_FORMAT, FILE]].tolist() == [majority] * 3
    assert abs(plain[PIXELS] - majority) < 10
    by_mode = without_model(images(levels, options, mode=np.where(options == YES, "RGBA", "RGB")))
    assert by_mode[[FILE_FORMAT, FILE]].tolist() == [100, 100]
    assert by_mode[[MAJORITY, PIXELS]].equals(plain[[MAJORITY, PIXELS]])
    by_size = without_model(images(levels, options, bytes=np.where(options == YES, 900, 100)))
    assert by_size[FILE] == 100
    assert by_size.drop(FILE).equals(plain.drop(FILE))
    by_level = without_model(images(np.where(options == YES, levels // 2, 101 + levels // 2), options))
    assert by_level[PIXELS] > 95
    assert by_level.drop(PIXELS).equals(plain.drop(PIXELS))


def test_test_images_are_not_fitted_on(images, drawn):
    levels, options = drawn
    modes = np.where(options == YES, "RGBA", "RGB")
    options = np.where((PARTS == "test") == (options == YES), NO, YES)
    assert without_model(images(levels, options, mode=modes))[FILE_FORMAT] == 0


def test_images_of_one_class_and_empty_parts_are_errors(images, drawn):
    levels, options = drawn
    one = np.where(PARTS == "test", options, YES)
    with pytest.raises(InputError, match="'covid19-ct' outside its test set are not of several classes"):
        without_model(images(levels, one))
    empty = images(levels, options, split_paper="train")
    with pytest.raises(InputError, match="the test images of split 'paper' of 'covid19-ct' has no image"):
        control_task(empty, "paper", pixel_statistics(empty))


def task_of(image_set: ImageSet) -> pd.DataFrame:
    return control_task(image_set, "paper", pixel_statistics(image_set))


def test_a_control_label_is_the_clusters_and_as_frequent_as_the_true_one(images, drawn):
    levels, options = drawn
    table = task_of(images(levels, options))
    assert table.groupby("cluster")["control"].nunique().eq(1).all()
    assert table["cluster"].nunique() == CLUSTERS
    assert table["split"].value_counts().to_dict() == {"train": TRAIN, "validation": VALIDATION, "test": 120}
    training = table[table["split"] == "train"]
    largest = training["cluster"].value_counts().max() / TRAIN
    assert (training["control"] == YES).mean() == pytest.approx((options[:TRAIN] == YES).mean(), abs=largest)
    agree = (table["control"] == options).mean()  # independent: as often as chance
    shares = [(table["control"] == option).mean() * (options == option).mean() for option in (YES, NO)]
    assert agree == pytest.approx(sum(shares), abs=0.08)


def test_control_labels_are_the_same_every_time_and_learn_nothing_from_test_images(images, drawn):
    levels, options = drawn
    first = task_of(images(levels, options))
    assert first.equals(task_of(images(levels, options)))
    other = levels.copy()
    other[TRAIN:] = 255 - other[TRAIN:]
    changed = task_of(images(other, options))
    assert changed[:TRAIN].equals(first[:TRAIN])
    assert not changed[TRAIN:].equals(first[TRAIN:])


def test_shuffled_labels_are_the_same_ones_in_another_order():
    labels = np.repeat(["a", "b"], [30, 70])
    dealt = shuffled(labels)
    assert sorted(dealt) == sorted(labels)
    assert (dealt == labels).mean() < 0.75
    assert (shuffled(labels) == dealt).all()


def probed(features: dict[str, np.ndarray], images: pd.DataFrame) -> pd.DataFrame:
    """Scores of all controls; the fine-tuned model has `features`, the one with random weights has noise."""
    noise = np.random.default_rng(2).normal(size=(len(images), 8))
    tensors = {f"{point}/image_mean": torch.tensor(own, dtype=torch.float32) for point, own in features.items()}
    other = {key: torch.tensor(noise, dtype=torch.float32) for key in tensors}
    tensors["L.00/last_token"] = torch.zeros(len(images), 3)  # takes no part
    constants = CONSTANTS | {"stage": "finetuned", "run": 0}
    rows = probed_rows(tensors, other, images, CARD.options, PROBE, constants)
    SCHEMA.validate(rows)
    return control_scores(rows, {CARD.slug: CARD.positive})


def test_planted_cluster_is_not_selective_and_planted_class_is(images, drawn):
    """At V the features say the cluster, at C the class, at L nothing; in a model that has learned nothing, nothing."""
    levels, options = drawn
    table = task_of(images(levels, options)).assign(option=options)
    noise = np.random.default_rng(3).normal(size=(len(PARTS), 8)) / 4
    cluster = np.eye(CLUSTERS)[table["cluster"]]
    features = {
        "V.00": np.hstack([cluster, noise]),
        "C.00": np.hstack([np.eye(2)[(options == YES).astype(int)], noise]),
        "L.00": noise,
    }
    scores = probed(features, table)
    tuned = scores[scores["stage"] == "finetuned"].set_index(["control", "point"])["accuracy"]
    chance = {name: 5 + 100 * table[name][-120:].value_counts(normalize=True).max() for name in ("control", "option")}
    assert tuned[CONTROL_TASK, "V.00"] > 97
    assert tuned[CONTROL_TASK, "C.00"] < chance["control"]
    assert tuned[CONTROL_TASK, "L.00"] < chance["control"]
    random = scores[scores["control"] == RANDOM_WEIGHTS]
    assert random["stage"].isna().all()
    assert (random["accuracy"] < chance["option"]).all()
    tensors = {point: torch.tensor(own, dtype=torch.float32) for point, own in features.items()}
    truth, seeds = (options == NO).astype(int), dict.fromkeys(tensors, 0)
    fitted = fit_probes(tensors, dict.fromkeys(tensors, truth), np.arange(TRAIN), 2, PROBE, seeds)
    correct = {point: 100 * (own.argmax(1) == truth)[-TEST:].mean() for point, own in fitted.items()}
    own = selectivity(read(correct, dataset=CARD.slug), scores, "accuracy").set_index("point")["selectivity"]
    assert own["V.00"] < 0
    assert own["C.00"] > 25
    assert abs(own["L.00"]) < 20


def test_memorisation_is_that_of_the_train_images_at_the_ends_of_modules(images, drawn):
    """Features as wide as there are images let a probe memorise them; a single one does not."""
    levels, options = drawn
    table = task_of(images(levels, options)).assign(option=options)
    rng = np.random.default_rng(4)
    wide, narrow = rng.normal(size=(len(PARTS), 300)), rng.normal(size=(len(PARTS), 1))
    features = {"V.00": narrow, "V.01": wide, "C.00": narrow, "L.00": narrow}
    scores = probed(features, table)
    learned = scores[scores["control"] == MEMORISATION].set_index("point")
    assert list(learned.index) == ["V.01", "C.00", "L.00"]
    assert (learned["images"] == TRAIN).all()
    assert learned.loc["V.01", "accuracy"] > 97
    assert (learned["accuracy"].drop("V.01") < 80).all()


def discs(placed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A disc on noise, in the upper half where the answer is Yes; or, if not `placed`, anywhere."""
    rng = np.random.default_rng(0)
    options = rng.choice([YES, NO], len(FEWER))
    above = options == YES if placed else rng.uniform(size=len(FEWER)) < 0.5
    pixels = rng.integers(0, 120, (len(FEWER), 40, 56))
    rows, columns = np.mgrid[:40, :56]
    for i, place in enumerate(rng.uniform(8, 48, len(FEWER))):
        pixels[i][(rows - (12 if above[i] else 28)) ** 2 + (columns - place) ** 2 < 36] += 90
    return pixels.astype(np.uint8), options


def test_a_class_that_only_a_place_shows_is_found_and_none_in_noise(image_set_of):
    image_set = image_set_of(*discs(), FEWER)
    rows = reference_rows(image_set, "paper")
    assert checked(rows, (REFERENCE,), TEST // 2)[REFERENCE] > 95
    assert list(rows["image"]) == list(image_set.rows_of("paper", "test")["image"])
    assert accuracies(rows_without_model(image_set, "paper", pixel_statistics(image_set)))[PIXELS] < 70
    assert accuracies(reference_rows(image_set_of(*discs(placed=False), FEWER), "paper"))[REFERENCE] < 65


def test_the_reference_is_fitted_on_train_images_alone_and_the_same_every_time(image_set_of):
    pixels, options = discs()
    columns = [f"p_{YES}", f"p_{NO}"]
    first = reference_rows(image_set_of(pixels, options, FEWER), "paper")[columns]
    others = np.where(FEWER == "train", options, np.where(options == YES, NO, YES))
    pd.testing.assert_frame_equal(reference_rows(image_set_of(pixels, others, FEWER), "paper")[columns], first)
    darker = np.where((FEWER == "validation")[:, None, None], 255 - pixels, pixels)
    pd.testing.assert_frame_equal(reference_rows(image_set_of(darker, options, FEWER), "paper")[columns], first)


def test_too_few_train_images_and_no_test_images_are_errors(image_set_of):
    pixels, options = discs()
    with pytest.raises(InputError, match="split 'paper' of 'covid19-ct': the reference needs two train images"):
        reference_rows(image_set_of(pixels, np.where(FEWER == "train", YES, options), FEWER), "paper")
    with pytest.raises(InputError, match=rf"found \{{'{YES}': 119, '{NO}': 1\}} and 60"):
        reference_rows(image_set_of(pixels, np.where(np.arange(len(FEWER)) == 5, NO, YES), FEWER), "paper")
    with pytest.raises(InputError, match=r"and 0$"):
        reference_rows(image_set_of(pixels, options, np.where(FEWER == "test", "unused", FEWER)), "paper")


def stripes(period: float, across: bool) -> np.ndarray:
    wave = np.sin(2 * np.pi * np.arange(SIDE) / period)
    image = np.broadcast_to(wave if across else wave[:, None], (SIDE, SIDE))
    return image[None].astype(np.float32)


def test_edges_are_counted_in_their_direction():
    for across, direction in ((True, 0), (False, DIRECTIONS // 2)):
        found = edges(stripes(16, across)).reshape(DIRECTIONS, CELLS**2).mean(axis=1)
        # a gradient of exactly no vertical part may point to either end of the half circle
        assert found[direction] > 0.5
        assert np.delete(found, direction).max() < found[direction] / 10


def test_a_texture_is_largest_at_its_own_scale():
    energies = [[texture(stripes(period, True), deviation)[0, 0] for deviation in (1, 2, 4)] for period in (6, 12, 30)]
    assert [int(np.argmax(own)) for own in energies] == [0, 1, 2]
    assert np.isfinite(image_features(np.zeros((2, SIDE, SIDE), np.float32))).all()  # of one grey level


@each_family
def test_random_weights_are_the_same_every_time_and_not_those_of_the_model(tiny, tiny_card, encoder, image_set, family):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    random, again = load_random(tiny_card), load_random(tiny_card.model_copy(update={"device_map": "auto"}))
    assert torch.equal(torch.rand(2), expected)  # the caller's random numbers are left alone
    trained = tiny.model.state_dict()
    weights = random.model.state_dict()
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in trained.items()}
    assert all(torch.equal(weight, again.model.state_dict()[name]) for name, weight in weights.items())
    matrices = [name for name, weight in trained.items() if weight.ndim > 1]
    assert matrices
    assert not any(torch.equal(weights[name], trained[name]) for name in matrices)
    questions = encoder.questions([image_set.pixels(i) for i in (0, 4, 8)])
    features, own = features_of(random, questions), features_of(tiny, questions)
    assert features.keys() == own.keys()
    for key, vectors in features.items():
        assert vectors.shape == own[key].shape
        assert not torch.allclose(vectors, own[key], atol=1e-3), key
        if key.endswith("image_mean"):
            assert not torch.allclose(vectors[0], vectors[1]), key  # the image gets through to every point


def test_random_weights_need_no_weight_files_but_memory_and_have_the_cards_precision(copied, monkeypatch):
    (copied / "model.safetensors").unlink()
    for wanted, card in (("bfloat16", card_of(copied, precision="bfloat16")), ("float32", card_of(copied))):
        assert {str(p.dtype) for p in load_random(card).model.parameters()} == {f"torch.{wanted}"}
    monkeypatch.setattr("mlprobe_utils.models.loading.machine", lambda: 1)
    with pytest.raises(InputError, match="model card 'mine': its weights alone need"):
        load_random(card_of(copied))


@each_family_in_time
def test_text_alone_has_one_answer_and_the_probabilities_of_the_bare_question(tiny, image_set, family):
    card, protocol = image_set.card, load_protocol("miniature")
    tested = image_set.rows_of("paper", "test").assign(split="test")
    constants = CONSTANTS | {"stage": "pretrained", "run": None, "dataset": card.slug}
    rows = text_only_rows(tiny, card, protocol, tested, constants)
    SCHEMA.validate(rows)
    assert list(rows["image"]) == list(tested["image"])
    assert rows["text"].nunique() == 1
    columns = [f"p_{option}" for option in card.options]
    assert (rows[columns].nunique() == 1).all()
    encoder = Encoder(tiny.processor, card.template.replace("<image>", ""))
    assert tiny.processor.image_token not in encoder.prompt
    logs = []
    for option in card.options:  # token by token, without padding
        ids, tokens = encoder.questions([None])["input_ids"][0].tolist(), encoder.answer_tokens([option])[0]
        whole = torch.tensor([ids + tokens])
        extra = {"token_type_ids": torch.zeros_like(whole)} if family == "gemma3" else {}
        with torch.no_grad():
            steps = (
                tiny.model(input_ids=whole, attention_mask=torch.ones_like(whole), **extra).logits[0].log_softmax(-1)
            )
        logs.append(sum(steps[len(ids) - 1 + n, token].item() for n, token in enumerate(tokens)))
    expected = torch.tensor(logs).softmax(0)
    np.testing.assert_allclose(rows[columns].iloc[0], expected, atol=1e-4)


def test_of_text_alone_the_answer_counts_and_of_other_controls_the_likeliest_option():
    images = pd.DataFrame({"image": ["a", "b"], "option": [YES, NO], "split": "test"})
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    constants = CONSTANTS | {"stage": "finetuned", "run": 0}
    text, weights = (
        image_rows(images, [YES, NO], probabilities, **constants, control=name) for name in (TEXT_ONLY, RANDOM_WEIGHTS)
    )
    found = accuracies(pd.concat([text.assign(text="hm", parsed=None), weights]))
    assert found.to_dict() == {TEXT_ONLY: 0, RANDOM_WEIGHTS: 50}


POINTS = {"V.00": 60.0, "V.01": 70.0, "C.00": 80.0, "L.00": 90.0}


def read(values: dict, **constants) -> pd.DataFrame:
    rows = [{"point": point, "accuracy": value, "calibration_error": value} for point, value in values.items()]
    defaults = {"model": "m", "dataset": "d", "stage": "finetuned", "run": 0, "pooling": "image_mean"}
    return pd.DataFrame(rows).assign(**defaults | constants)


@pytest.fixture
def tables():
    """Scores of two models, their outputs and controls; the second model's are 10 points lower throughout."""
    scores = pd.concat(
        [
            read(POINTS),
            read({p: v - 10 for p, v in POINTS.items()}, model="n"),
            read({"V.01": 0.0}, run=1),
            read({"V.01": 0.0}, stage="pretrained"),
            read({"L.00": 0.0}, pooling="last_token"),
        ]
    )
    outputs = pd.concat([read({None: 85.0}), read({None: 45.0}, model="n"), read({None: 0.0}, stage="pretrained")])
    controls = [read({p: v - 20 for p, v in POINTS.items()}, model=model, control=CONTROL_TASK) for model in ("m", "n")]
    controls += [read({p: 40.0 for p in POINTS}, model=m, stage=None, control=RANDOM_WEIGHTS) for m in ("m", "n")]
    controls += [read({None: 30.0}, model=model, control=TEXT_ONLY) for model in ("m", "n")]
    controls += [read({"V.01": 99.0, "C.00": 98.0, "L.00": 97.0}, control=MEMORISATION)]
    alone = dict(model=None, stage=None, run=None)
    controls += [read({None: 50.0 + n}, **alone, control=name) for n, name in enumerate(WITHOUT_MODEL)]
    controls += [read({None: 88.0}, **alone, control=REFERENCE)]
    return scores, outputs, pd.concat(controls)


def test_what_a_claim_has_to_beat_by_hand(tables):
    found = to_beat(*tables, "accuracy").set_index("what")[[*ENDS]]
    expected = {
        "task": [65, 75, 85, 65],
        CONTROL_TASK: [50, 60, 70, np.nan],
        "selectivity": [15, 15, 15, np.nan],
        RANDOM_WEIGHTS: [40, 40, 40, np.nan],
        TEXT_ONLY: [np.nan, np.nan, np.nan, 30],
        REFERENCE: [88] * 4,
        PIXELS: [53] * 4,
        FILE: [52] * 4,
        FILE_FORMAT: [51] * 4,
        MAJORITY: [50] * 4,
        MEMORISATION: [99, 98, 97, np.nan],
    }
    pd.testing.assert_frame_equal(
        found, pd.DataFrame(expected, index=ENDS, dtype=float).T, check_names=False, check_like=False
    )


def test_the_best_without_a_model_and_who_is_no_better(tables):
    _, outputs, controls = tables
    assert best_without_model(controls, "accuracy").to_dict() == {"d": 53}
    assert best_without_model(controls, "calibration_error").to_dict() == {"d": 50}
    assert no_better(outputs, controls, "accuracy").to_dict() == {("d", "m"): False, ("d", "n"): True}
    assert no_better(outputs, controls, "calibration_error").to_dict() == {("d", "m"): True, ("d", "n"): False}


def test_selectivity_is_of_one_run_and_of_points_that_both_have(tables):
    scores, _, controls = tables
    found = selectivity(scores, controls, "accuracy")
    assert len(found) == 8
    assert found.groupby("model")["selectivity"].unique().map(list).to_dict() == {"m": [20], "n": [10]}
