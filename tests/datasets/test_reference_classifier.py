"""The reference: finds classes that places and shapes tell, nothing where nothing is, and knows no test image."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.controls import (
    CELLS,
    DIRECTIONS,
    SIDE,
    edges,
    image_features,
    pixel_statistics,
    reference_rows,
    rows_without_model,
    texture,
)
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.claims import control_scores
from mlprobe_utils.evaluation.control_names import PIXELS, REFERENCE
from mlprobe_utils.evaluation.rows import SCHEMA
from mlprobe_utils.pipeline.cards import load_data_card

CARD = load_data_card("covid19-ct")
YES, NO = CARD.options
PARTS = np.repeat(["train", "validation", "test"], [120, 20, 100])
HEIGHT, WIDTH = 40, 56


@pytest.fixture
def make(tmp_path):
    def image_set(pixels: np.ndarray, options: np.ndarray, parts: np.ndarray = PARTS) -> ImageSet:
        """Of grey images, uint8 [images, HEIGHT, WIDTH]."""
        (tmp_path / "pixels.bin").write_bytes(pixels[..., None].repeat(3, axis=3).tobytes())
        manifest = pd.DataFrame({"image": [f"{i}.png" for i in range(len(pixels))], "option": options})
        manifest = manifest.assign(label=options, split_paper=parts, stored_height=HEIGHT, stored_width=WIDTH)
        manifest = manifest.assign(mode="L", format="PNG", extension=".png", width=WIDTH, height=HEIGHT, bytes=99)
        return ImageSet(
            CARD, manifest.assign(offset=np.arange(len(pixels)) * 3 * HEIGHT * WIDTH), "0" * 64, {}, tmp_path
        )

    return image_set


def drawn(told: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A disc on noise, in the upper half where the answer is Yes; or, if not `told`, anywhere."""
    rng = np.random.default_rng(0)
    options = rng.choice([YES, NO], len(PARTS))
    above = options == YES if told else rng.uniform(size=len(PARTS)) < 0.5
    pixels = rng.integers(0, 120, (len(PARTS), HEIGHT, WIDTH))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for i, place in enumerate(rng.uniform(8, 48, len(PARTS))):
        pixels[i][(rows - (12 if above[i] else 28)) ** 2 + (columns - place) ** 2 < 36] += 90
    return pixels.astype(np.uint8), options


def accuracies(rows: pd.DataFrame) -> pd.Series:
    return control_scores(rows, {CARD.slug: CARD.positive}).set_index("control")["accuracy"]


def test_a_class_that_only_a_place_shows_is_found_and_none_in_noise(make):
    image_set = make(*drawn())
    rows = SCHEMA.validate(reference_rows(image_set, "paper"))
    assert accuracies(rows)[REFERENCE] > 95
    assert list(rows["image"]) == list(image_set.part("paper", "test")["image"])
    assert set(rows["part"]) == {"test"}
    assert rows[["model", "stage", "order", "run", "probe", "point"]].isna().all(axis=None)
    np.testing.assert_allclose(rows[[f"p_{YES}", f"p_{NO}"]].sum(axis=1), 1)
    assert accuracies(rows_without_model(image_set, "paper", pixel_statistics(image_set)))[PIXELS] < 70
    assert accuracies(reference_rows(make(*drawn(told=False)), "paper"))[REFERENCE] < 65


def test_it_is_fitted_on_train_images_alone_and_the_same_every_time(make):
    pixels, options = drawn()
    columns = [f"p_{YES}", f"p_{NO}"]
    first = reference_rows(make(pixels, options), "paper")[columns]
    others = np.where(PARTS == "train", options, np.where(options == YES, NO, YES))
    pd.testing.assert_frame_equal(reference_rows(make(pixels, others), "paper")[columns], first)
    darker = np.where((PARTS == "validation")[:, None, None], 255 - pixels, pixels)
    pd.testing.assert_frame_equal(reference_rows(make(darker, options), "paper")[columns], first)


def test_too_few_train_images_and_no_test_images_are_errors(make):
    pixels, options = drawn()
    with pytest.raises(InputError, match="split 'paper' of 'covid19-ct': the reference needs two train images"):
        reference_rows(make(pixels, np.where(PARTS == "train", YES, options)), "paper")
    with pytest.raises(InputError, match=rf"found \{{'{YES}': 119, '{NO}': 1\}} and 100"):
        reference_rows(make(pixels, np.where(np.arange(len(PARTS)) == 5, NO, YES)), "paper")
    with pytest.raises(InputError, match=r"and 0$"):
        reference_rows(make(pixels, options, np.where(PARTS == "test", "unused", PARTS)), "paper")


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
