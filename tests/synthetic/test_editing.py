"""Sweeps of edits over a tiny model and its images: what they leave out, put back, and count."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_parts import each_family

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation import used
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.probing.edits import Patch, Skip
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.probing.interventions import LAST_TOKEN, intervene, recorded
from mlprobe_utils.synthetic.editing import Sweep, Trained, _nearest, option_scores

LABELS = np.array([0, 1, 1, 0, 0, 1])


@pytest.fixture
def batches(encoder):
    alike = list(np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8))
    return [encoder.questions(alike[:4]), encoder.questions(alike[4:])]


@pytest.fixture
def options(image_set):
    return image_set.card.options


def probabilities(rows, options, edit, point) -> np.ndarray:
    own = rows[(rows["edit"] == edit) & (rows["point"] == point)].sort_values("image")
    return own[[OPTION + option for option in options]].to_numpy()


@each_family
@torch.inference_mode()
def test_blocks_are_left_out_and_a_twins_states_put_back(tiny, encoder, batches, options):
    labels, damage = LABELS % len(options), Skip("V.01")  # what the twin lacks
    sweep = Sweep(tiny, batches, encoder, labels, options)
    twins = sweep.twins()
    with intervene(tiny, damage):
        rows = sweep.blocks(twins)
    assert rows["label"].tolist()[:4] == [options[label] for label in labels[:4]]
    broken, intact = probabilities(rows, options, used.NOTHING, ""), probabilities(rows, options, used.TWIN, "")
    assert np.abs(broken - intact).max() > 1e-6
    for part in used.PARTS[:-1]:  # the damage is in the first
        np.testing.assert_allclose(probabilities(rows, options, used.PUT_BACK, part), intact, atol=1e-5)
    np.testing.assert_allclose(probabilities(rows, options, used.SKIPPED, "V.01"), broken, atol=1e-6)
    ranked = probabilities(rows, options, used.RANKED, "L.02")
    np.testing.assert_allclose(ranked, broken, atol=1e-5)  # nothing happens behind it


@torch.inference_mode()
def test_options_are_scored_where_they_part(tiny, batches):
    options, questions = [[5, 9, 2], [5, 7, 2], [8, 2]], batches[0]
    found = option_scores(tiny, questions, options)
    of_tokens = [key for key, own in questions.items() if own.shape == questions["input_ids"].shape]
    longer = {key: torch.cat([questions[key], questions[key][:, -1:]], dim=1) for key in of_tokens}
    longer["input_ids"][:, -1] = 5
    first, second = (tiny.model(**questions | own).logits[:, -1].float() for own in ({}, longer))
    begins, goes_on = first[:, [5, 8]].log_softmax(dim=1), second[:, [9, 7]].log_softmax(dim=1)
    expected = torch.stack([begins[:, 0] + goes_on[:, 0], begins[:, 0] + goes_on[:, 1], begins[:, 1]], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with recorded(tiny) as kept:
        option_scores(tiny, questions, options)
    edit = Patch("L.01", torch.zeros(32), LAST_TOKEN)  # of the prompt, though a beginning of an answer follows it
    whole, replayed = (option_scores(tiny, questions, options, [edit], own) for own in (None, kept))
    torch.testing.assert_close(whole, replayed)
    assert (whole - found).abs().max() > 1e-3


@torch.inference_mode()
def test_what_pairs_are_used_for(tiny, encoder, batches, options):
    labels = LABELS % len(options)
    features = features_of(tiny, batches[0])
    rows = Sweep(tiny, batches, encoder, labels, options, every=2).uses(Trained(features, labels[:4]))
    points = {edit: {*own["point"]} for edit, own in rows.groupby("edit")}
    assert points[used.CUT] == points[used.PATCHED] == {"L.00", "L.02"}  # each second, from the last one back
    assert points[used.MOVED] >= {"V.01", "V.03", "C.01", "L.00", "L.02"}
    own = probabilities(rows, options, used.NOTHING, "")
    patched = probabilities(rows[rows["tokens"] == LAST_TOKEN], options, used.PATCHED, "L.02")
    np.testing.assert_allclose(patched, own[np.arange(len(labels)) ^ 1], atol=1e-5)  # all that is answered from


def of_real_images(pixels: list[np.ndarray], options: list[str], pairs: int = 2) -> SimpleNamespace:
    """What a work has to be for its test images to be paired."""
    image_set = SimpleNamespace(pixels=pixels.__getitem__, card=SimpleNamespace(slug="own"))
    protocol = SimpleNamespace(interventions=SimpleNamespace(pairs=pairs))
    images = lambda split: pd.DataFrame({"option": options})  # noqa: E731
    return SimpleNamespace(image_set=image_set, protocol=protocol, images=images, options=["No", "Yes"])


def test_real_images_are_paired_with_the_most_alike_of_another_class_and_size():
    grey = lambda level, side=32: np.full((side, side, 3), level, np.uint8)  # noqa: E731
    pixels = [grey(100), grey(101), grey(180), grey(183), grey(104), grey(10, 48)]
    found, labels = _nearest(of_real_images(pixels, ["No", "Yes", "No", "Yes", "Yes", "No"]))
    assert [int(own[0, 0, 0]) for own in found] == [100, 101, 180, 183]  # each image once, the most alike first
    assert labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(InputError, match="own: no two test images of different classes have one size"):
        _nearest(of_real_images(pixels[3:], ["Yes", "Yes", "No"]))
