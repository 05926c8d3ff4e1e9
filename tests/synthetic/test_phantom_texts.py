"""Phantoms in words: captions, questions and sentences say what the parameters say."""

import re

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.synthetic.phantoms import general, texts
from mlprobe_utils.synthetic.phantoms.general import VALUES, captioned_shapes, questioned_shapes
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES
from mlprobe_utils.synthetic.phantoms.texts import captioned_phantoms, medical_sentences, questioned_phantoms

CARD_OF = {"ultrasound": "busi-phantom", "ct": "covid19-ct-phantom", "xray": "chest-xray-phantom"}
ANSWERS = {"normal", "benign", "malignant", "yes", "no", "covid", "noncovid", "pneumonia"}


@pytest.mark.parametrize("modality", MODALITIES)
def test_captioned_phantoms(modality):
    images, said = captioned_phantoms(modality, 60, seed=3, side=32)
    assert images.shape == (60, 32, 32, 3)
    assert images.dtype == np.uint8
    for text in said:
        assert text == text.lower()
        assert not set(re.findall(r"[a-z]+", text)) & ANSWERS
    fewer, fewer_said = captioned_phantoms(modality, 10, seed=3, side=32)
    np.testing.assert_array_equal(fewer, images[:10])
    assert fewer_said == said[:10]


@pytest.mark.parametrize("modality", MODALITIES)
def test_questions_and_answers_agree_with_the_parameters(modality, monkeypatch):
    drawn = []
    monkeypatch.setattr(texts, "picture", lambda _, made, __, side: drawn.append(made) or np.zeros((side, side)))
    images, asked, answers = questioned_phantoms(modality, 480, seed=2, side=32)
    assert images.shape == (480, 32, 32, 3)
    for made, question, answer in zip(drawn[::2], asked[::2], answers[::2], strict=True):
        text = texts.caption(modality, made)
        named = re.search(
            r"lesion|irregular|smooth|taller|shadow|enhancement|clear|ground-glass|dense|soft|several|both"
            r"|haze|right|left|opacity(?=\?)",
            question.replace("of the lesion ", "").replace("the lesion ", ""),
        )
        expected = named.group() in text
        assert answer == ("Yes" if expected else "No"), (question, text)
        if modality == "xray":
            assert all(f"{o['lung']} {o['zone']} lung" in text for o in texts.seen_opacities(made))
    card = load_data_card(CARD_OF[modality])
    options = {known.option for known in card.classes}
    for question, answer in zip(asked[1::2], answers[1::2], strict=True):
        assert question.split(" Please")[0] not in card.template
        assert set(re.findall(r"'(\w+)'", question)) == options
        assert answer in options
    by_question = pd.crosstab(np.array(asked), np.array(answers))
    for _, counts in by_question.iterrows():
        present = counts[counts > 0]
        assert len(present) in (2, 3)
        assert present.max() - present.min() <= 2


def test_questioned_phantoms_again():
    images, asked, answers = questioned_phantoms("xray", 40, seed=1, side=32)
    fewer, *said = questioned_phantoms("xray", 11, seed=1, side=32)
    np.testing.assert_array_equal(fewer, images[:11])
    assert said == [asked[:11], answers[:11]]


def test_shapes_and_their_captions():
    images, said = captioned_shapes(300, seed=1)
    assert images.shape == (300, 64, 64, 3)
    pattern = (
        rf"(a|two) ({'|'.join(VALUES['size'])}) ({'|'.join(VALUES['brightness'])}) ({'|'.join(VALUES['shape'])})s?"
        rf" on a ({'|'.join(VALUES['background'])}) background"
    )
    assert all(re.fullmatch(pattern, text) for text in said)
    assert not {word for text in said for word in text.split()} & ANSWERS
    bright = np.array(["bright" in text for text in said])
    filled = (images[..., 0] > 0.8 * 255).mean((1, 2)), (images[..., 0] < 0.2 * 255).mean((1, 2))
    assert np.array_equal(filled[0] > filled[1], bright)
    area = np.maximum(*filled)
    large = np.array(["large" in text for text in said])
    for shape in general.SHAPES:
        these = np.array([shape in text for text in said])
        assert area[these & large].min() > area[these & ~large & np.array([t.startswith("a ") for t in said])].max()
    np.testing.assert_array_equal(captioned_shapes(20, seed=1)[0], images[:20])
    assert not np.array_equal(captioned_shapes(20, seed=2)[0], images[:20])


def test_questioned_shapes(monkeypatch):
    scenes = []
    draw = general.draw
    monkeypatch.setattr(general, "draw", lambda scene, *rest: scenes.append(scene) or draw(scene, *rest))
    images, asked, answers = questioned_shapes(300, seed=4)
    assert images.shape == (300, 64, 64, 3)
    for scene, question, answer in zip(scenes, asked, answers, strict=True):
        options = re.findall(r"'(\w+)'", question)
        assert answer in options
        assert len(set(options)) == len(options)
        if options == ["Yes", "No"]:
            named = re.search(rf"two|{'|'.join(general.SHAPES)}", question).group()
            said = scene["count"] == 2 if named == "two" else scene["shape"] == named
            assert (answer == "Yes") == said
        else:
            assert answer.lower() in scene.values()
            assert sum(option.lower() in scene.values() for option in options) == 1
    yes = [answer == "Yes" for question, answer in zip(asked, answers, strict=True) if "'Yes'" in question]
    assert 0.35 < np.mean(yes) < 0.65
    assert sum("', or '" in question for question in asked) == 100


def test_medical_sentences():
    asked, answers = medical_sentences(400, seed=0)
    said = dict(zip(asked, answers, strict=True))
    assert said["Is a malignant lesion irregular? Please answer 'Yes' or 'No'."] == "Yes"
    assert said["Is a benign lesion irregular? Please answer 'Yes' or 'No'."] == "No"
    assert "irregular taller lesion" in said["What does a malignant lesion look like?"]
    assert all(answer in question for question, answer in said.items() if "Please" in question)
    fewer = medical_sentences(20, seed=0)
    assert fewer == (asked[:20], answers[:20])
    assert medical_sentences(20, seed=1) != fewer


def test_all_training_text_is_of_few_words():
    parts = [captioned_shapes(300, 0, 32)[1:], questioned_shapes(300, 0, 32)[1:], medical_sentences(300, 0)]
    for modality in MODALITIES:
        parts += [captioned_phantoms(modality, 200, 0, 32)[1:], questioned_phantoms(modality, 200, 0, 32)[1:]]
    words = {word for part in parts for column in part for text in column for word in re.findall(r"[\w-]+", text)}
    assert len(words) < 150
