"""Controls: what needs no model, labels without meaning, random weights, text alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from slow_reference import option_log_probabilities
from tiny_parts import card_of, each_family, each_family_in_time

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets import controls
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.metrics import best_without_model, control_scores
from mlprobe_utils.evaluation.names import CONTROL_TASK, FILE, FILE_FORMAT, MAJORITY, PIXELS, RANDOM_WEIGHTS, TEXT_ONLY
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import load_random
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.model_steps import probed_rows, text_only_rows
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import features_of

CARD = load_data_card("covid19-ct")
YES, NO = CARD.options
MINIATURE = load_protocol("miniature")
TRAIN, VALIDATION, TEST = 240, 40, 120  # images
PARTS = np.repeat(["train", "validation", "test"], [TRAIN, VALIDATION, TEST])
FEWER = PARTS[::2]
rng = np.random.default_rng(1)
LEVELS = rng.integers(0, 200, len(PARTS))  # grey levels, and answers that have nothing to do with them
OPTIONS = np.where(rng.uniform(size=len(PARTS)) < 0.3, YES, NO)


def image_set_of(folder, pixels: np.ndarray, options: np.ndarray, parts: np.ndarray = PARTS, **columns) -> ImageSet:
    """Grey images, uint8 [images, height, width], with their answers and further columns of the manifest."""
    (folder / "pixels.bin").write_bytes(pixels[..., None].repeat(3, axis=3).tobytes())
    count, height, width = pixels.shape
    facts = {"image": [f"{i}.png" for i in range(count)], "option": options, "label": options}
    facts |= {"split_paper": parts, "stored_height": height, "stored_width": width, "mode": "L", "format": "PNG"}
    facts |= {"extension": ".png", "width": width, "height": height, "bytes": 99}
    facts |= {"offset": np.arange(count) * 3 * height * width}
    return ImageSet(CARD, pd.DataFrame(facts | columns), "0" * 64, {}, folder)


def images(folder, levels=LEVELS, options=OPTIONS, **columns) -> ImageSet:
    """An image set of grey squares with a little noise, from their levels and answers."""
    noise = np.random.default_rng(0).integers(0, 9, (len(levels), 8, 8))
    pixels = np.clip(np.asarray(levels)[:, None, None] + noise, 0, 255).astype(np.uint8)
    return image_set_of(folder, pixels, options, **columns)


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


def rows_without_model(image_set: ImageSet) -> pd.DataFrame:
    return controls.rows_without_model(image_set, "paper", controls.pixel_statistics(image_set))


def test_pixel_statistics_of_flat_and_of_striped_images(tmp_path):
    pixels = np.full((2, 4, 4), 7, np.uint8)
    pixels[1] = [90, 0, 90, 0]
    flat, striped = controls.pixel_statistics(image_set_of(tmp_path, pixels, [YES, NO], ["train", "test"]))
    assert flat.tolist() == [7, 0, 7, 7, 7, 7, 7, 0, 0]
    assert striped.tolist() == pytest.approx([45, 45, 0, 0, 45, 90, 90, 0, 90 * np.sqrt(12 / 16)])


@pytest.mark.parametrize(
    ("planted", "sees"),
    [
        ({}, {}),
        ({"mode": np.where(OPTIONS == YES, "RGBA", "RGB")}, {FILE_FORMAT: 100, FILE: 100}),
        ({"bytes": np.where(OPTIONS == YES, 900, 100)}, {FILE: 100}),
        ({"levels": np.where(OPTIONS == YES, LEVELS // 2, 101 + LEVELS // 2)}, {PIXELS: 97.5}),
    ],
)
def test_a_leak_is_found_by_the_control_that_can_see_it_and_by_no_other(planted, sees, tmp_path):
    majority = 100 * (OPTIONS[TRAIN + VALIDATION :] == NO).mean()
    plain = dict.fromkeys(names.WITHOUT_MODEL, majority) | {PIXELS: pytest.approx(majority, abs=10)}
    found = checked(rows_without_model(images(tmp_path, **planted)), names.WITHOUT_MODEL, TEST)
    assert found.to_dict() == plain | {control: pytest.approx(own, abs=2.5) for control, own in sees.items()}


def test_test_images_are_not_fitted_on(tmp_path):
    others = np.where((PARTS == "test") == (OPTIONS == YES), NO, YES)
    image_set = images(tmp_path, options=others, mode=np.where(OPTIONS == YES, "RGBA", "RGB"))
    assert accuracies(rows_without_model(image_set))[FILE_FORMAT] == 0


def task_of(image_set: ImageSet) -> pd.DataFrame:
    return controls.control_task(image_set, "paper", controls.pixel_statistics(image_set))


def test_a_control_label_is_the_clusters_and_as_frequent_as_the_true_one(tmp_path):
    """And the same every time, and learned from no test image."""
    table = task_of(images(tmp_path))
    assert table.groupby("cluster")["control"].nunique().eq(1).all()
    assert table["cluster"].nunique() == controls.CLUSTERS
    assert (table["split"] == PARTS).all()
    training = table[table["split"] == "train"]
    largest = training["cluster"].value_counts().max() / TRAIN
    assert (training["control"] == YES).mean() == pytest.approx((OPTIONS[:TRAIN] == YES).mean(), abs=largest)
    agree = (table["control"] == OPTIONS).mean()  # independent: as often as chance
    shares = [(table["control"] == option).mean() * (option == OPTIONS).mean() for option in (YES, NO)]
    assert agree == pytest.approx(sum(shares), abs=0.08)
    changed = task_of(images(tmp_path, np.where(PARTS == "train", LEVELS, 255 - LEVELS)))
    assert changed[:TRAIN].equals(table[:TRAIN])
    assert not changed[TRAIN:].equals(table[TRAIN:])


def probed(folder, features: dict[str, np.ndarray], table: pd.DataFrame) -> pd.DataFrame:
    """Scores of all controls; the fine-tuned model has `features`, the one with random weights has noise."""
    tensors = {f"{point}/image_mean": torch.tensor(own, dtype=torch.float32) for point, own in features.items()}
    noise = torch.tensor(np.random.default_rng(2).normal(size=(len(table), 8)), dtype=torch.float32)
    random = dict.fromkeys(tensors, noise)
    tensors["L.00/last_token"] = torch.zeros(len(table), 3)  # takes no part
    work = Work(card_of("a/model"), MINIATURE, "paper", images(folder), folder, "commit")
    rows = SCHEMA.validate(probed_rows(work, tensors, random, table))
    return control_scores(rows, {CARD.slug: CARD.positive})


def test_a_planted_cluster_is_found_by_the_control_task_and_a_planted_class_is_not(tmp_path):
    """At V the features say the cluster, at C the class, at L nothing; in a model that has learned nothing, nothing."""
    table = task_of(images(tmp_path)).assign(option=OPTIONS)
    noise = np.random.default_rng(3).normal(size=(len(PARTS), 8)) / 4
    cluster, known = np.eye(controls.CLUSTERS)[table["cluster"]], np.eye(2)[(OPTIONS == YES).astype(int)]
    features = {"V.00": np.hstack([cluster, noise]), "C.00": np.hstack([known, noise]), "L.00": noise}
    scores = probed(tmp_path, features, table)
    tuned = scores[scores["control"] == CONTROL_TASK].set_index("point")["accuracy"]
    chance = {name: 5 + 100 * table[name][-TEST:].value_counts(normalize=True).max() for name in ("control", "option")}
    assert tuned["V.00"] > 97
    assert (tuned[["C.00", "L.00"]] < chance["control"]).all()
    random = scores[scores["control"] == RANDOM_WEIGHTS]
    assert (random["stage"].isna() & (random["accuracy"] < chance["option"])).all()


def test_memorisation_is_that_of_the_train_images_at_the_ends_of_modules(tmp_path):
    """Features as wide as there are images let a probe memorise them; a single one does not."""
    rng = np.random.default_rng(4)
    wide, narrow = rng.normal(size=(len(PARTS), 300)), rng.normal(size=(len(PARTS), 1))
    features = {"V.00": narrow, "V.01": wide, "C.00": narrow, "L.00": narrow}
    scores = probed(tmp_path, features, task_of(images(tmp_path)).assign(option=OPTIONS))
    learned = scores[scores["control"] == names.MEMORISATION].set_index("point")
    assert learned["images"].to_dict() == dict.fromkeys(("V.01", "C.00", "L.00"), TRAIN)
    assert learned.loc["V.01", "accuracy"] > 97 > 80 > learned["accuracy"].drop("V.01").max()
    assert sorted(dealt := controls.shuffled(OPTIONS)) == sorted(OPTIONS)
    assert (dealt == OPTIONS).mean() < 0.75


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


def test_a_class_that_only_a_place_shows_is_found_and_none_in_noise(tmp_path):
    """From train images alone, whatever the others are."""
    pixels, options = discs()
    image_set = image_set_of(tmp_path, pixels, options, FEWER)
    rows = controls.reference_rows(image_set, "paper")
    assert checked(rows, (names.CLASSICAL,), TEST // 2)[names.CLASSICAL] > 95
    assert list(rows["image"]) == list(image_set.rows_of("paper", "test")["image"])
    assert accuracies(rows_without_model(image_set))[PIXELS] < 70
    others = np.where(FEWER == "train", options, np.where(options == YES, NO, YES))
    darker = np.where((FEWER == "validation")[:, None, None], 255 - pixels, pixels)
    columns = [f"p_{YES}", f"p_{NO}"]
    again = controls.reference_rows(image_set_of(tmp_path, darker, others, FEWER), "paper")
    pd.testing.assert_frame_equal(again[columns], rows[columns])
    anywhere = controls.reference_rows(image_set_of(tmp_path, *discs(placed=False), FEWER), "paper")
    assert accuracies(anywhere)[names.CLASSICAL] < 65
    one = np.where(np.arange(len(FEWER)) == 5, NO, YES)
    with pytest.raises(InputError, match=rf"'covid19-ct': the reference needs two.*'{YES}': 119, '{NO}': 1\}}"):
        controls.reference_rows(image_set_of(tmp_path, pixels, one, FEWER), "paper")
    assert np.isfinite(controls.image_features(np.zeros((1, controls.SIDE, controls.SIDE), np.float32))).all()


@each_family
def test_random_weights_are_the_same_every_time_and_not_those_of_the_model(tiny, tiny_card, encoder, image_set):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    random, again = load_random(tiny_card), load_random(tiny_card.model_copy(update={"device_map": "auto"}))
    assert torch.equal(torch.rand(2), expected)  # the caller's random numbers are left alone
    trained, weights, same = (loaded.model.state_dict() for loaded in (tiny, random, again))
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in trained.items()}
    torch.testing.assert_close(same, weights, rtol=0, atol=0)
    assert not any(torch.equal(weights[name], trained[name]) for name, weight in trained.items() if weight.ndim > 1)
    questions = encoder.questions([image_set.pixels(i) for i in (0, 4, 8)])
    features, own = features_of(random, questions), features_of(tiny, questions)
    for key, vectors in features.items():
        assert not torch.allclose(vectors, own[key], atol=1e-3), key
        if key.endswith("image_mean"):
            assert not torch.allclose(vectors[0], vectors[1]), key  # the image gets through to every point


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_random_weights_need_no_weight_files_but_memory_and_have_the_cards_precision(precision, copied, monkeypatch):
    (copied / "model.safetensors").unlink()
    card = card_of(copied, precision=precision)
    assert {str(p.dtype) for p in load_random(card).model.parameters()} == {f"torch.{precision}"}
    monkeypatch.setattr("mlprobe_utils.models.loading.memory", lambda: (1, []))
    with pytest.raises(InputError, match="model card 'mine': its weights alone need"):
        load_random(card)


@each_family_in_time
def test_text_alone_has_one_answer_and_the_probabilities_of_the_bare_question(tiny_card, image_set, tmp_path, family):
    card, work = image_set.card, Work(tiny_card, MINIATURE, "paper", image_set, tmp_path, "commit")
    tested = work.images("test")
    rows = SCHEMA.validate(text_only_rows(work, tested))
    assert list(rows["image"]) == list(tested["image"])
    columns = [f"p_{option}" for option in card.options]
    assert (rows[["text", *columns]].nunique() == 1).all()
    encoder = Encoder(work.loaded.processor, card.template.replace("<image>", ""))
    assert work.loaded.processor.image_token not in encoder.prompt
    expected = option_log_probabilities(work.loaded, encoder, [None], card.options).softmax(1)[0]
    np.testing.assert_allclose(rows[columns].iloc[0], expected, atol=1e-4)


def test_of_text_alone_the_answer_counts_and_of_other_controls_the_likeliest_option():
    images = pd.DataFrame({"image": ["a", "b"], "option": [YES, NO], "split": "test"})
    constants = {"model": "m", "dataset": CARD.slug, "data_hash": "0" * 64, "split_rule": "paper", "stage": "finetuned"}
    given = images, [YES, NO], np.array([[0.9, 0.1], [0.9, 0.1]])
    text, weights = (image_rows(*given, **constants, order=None, control=c) for c in (TEXT_ONLY, RANDOM_WEIGHTS))
    found = accuracies(pd.concat([text.assign(text="hm", parsed=None), weights]))
    assert found.to_dict() == {TEXT_ONLY: 0, RANDOM_WEIGHTS: 50}


def test_the_best_that_needs_no_model_is_the_lowest_where_less_is_better():
    values = pd.DataFrame({"control": [MAJORITY, PIXELS, TEXT_ONLY], "dataset": "d", "accuracy": [50.0, 53.0, 99.0]})
    assert best_without_model(values, "accuracy").to_dict() == {"d": 53}
    values = values.rename(columns={"accuracy": "calibration_error"})
    assert best_without_model(values, "calibration_error").to_dict() == {"d": 50}
