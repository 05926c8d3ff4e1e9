"""Phantoms in words: captions, questions and sentences say what the parameters say."""

import re

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.synthetic.phantoms import general, texts
from mlprobe_utils.synthetic.phantoms.canvas import generator
from mlprobe_utils.synthetic.phantoms.general import VALUES, captioned_scene, questioned_scene
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, random_parameters
from mlprobe_utils.synthetic.phantoms.texts import captioned_phantom, medical_sentence, questioned_phantom

CARD_OF = {"ultrasound": "busi-phantom", "ct": "covid19-ct-phantom", "xray": "chest-xray-phantom"}
OPTIONS = {"normal", "benign", "malignant", "yes", "no", "covid", "noncovid", "pneumonia"}
TRUE_OF = {  # word of a caption -> whether it is true of the parameters
    "lesion": lambda p: p["darkness"] is not None,
    "irregular": lambda p: (p["irregularity"] or 0) > 0.12,
    "taller": lambda p: (p["log_aspect"] or 0) > 0,
    "shadow": lambda p: (p["posterior"] or 0) < -5,
    "enhancement": lambda p: (p["posterior"] or 0) > 5,
    "clear lungs": lambda p: not p["opacities"],
    "ground-glass": lambda p: p["density"] is not None and p["density"] <= -290,
    "soft": lambda p: p["softness"] is not None and p["softness"] > 0.55,
    "several": lambda p: len(p["opacities"]) > 2,
    "both lungs": lambda p: {opacity["lung"] for opacity in p["opacities"]} == {"left", "right"},
    "diffuse haze": lambda p: p["haze"] >= 1.2,
    "dense": lambda p: any(opacity["strength"] >= 3.5 for opacity in p["opacities"]),
    "right": lambda p: any(o["strength"] >= 1.6 for o in p["opacities"] if o["lung"] == "right"),
}
WORDS_OF = dict(zip(MODALITIES, np.split(list(TRUE_OF), [5, 10]), strict=True))


def drawn(make, n: int, *args, **fields) -> tuple[np.ndarray, list[str], list[str]]:
    """Images, questions and answers of the first n."""
    images, questions, answers = zip(*[make(*args, i, **fields) for i in range(n)], strict=True)
    return np.stack(images), list(questions), list(answers)


@pytest.mark.parametrize("modality", MODALITIES)
def test_captions_agree_with_the_parameters_and_never_name_an_answer(modality):
    labels = MODALITIES[modality].LABELS
    for i in range(300):
        made = random_parameters(modality, labels[i % len(labels)], generator("captions", 3, i))
        text = texts.CAPTIONS[modality](made)
        assert {word: word in text for word in WORDS_OF[modality]} == {w: TRUE_OF[w](made) for w in WORDS_OF[modality]}
        assert text == text.lower()
        assert not set(re.findall(r"[a-z]+", text)) & OPTIONS
    image, *turn = captioned_phantom(modality, 1, 3, 32)
    assert (image.shape, image.dtype, turn[0]) == ((32, 32), np.uint8, texts.CAPTION_REQUEST)


@pytest.mark.parametrize("modality", MODALITIES)
def test_questions_agree_with_the_captions_and_no_answer_can_be_guessed(modality, monkeypatch):
    made = []
    monkeypatch.setattr(texts, "picture", lambda _, own, __, side: made.append(own) or np.zeros((side, side)))
    _, asked, answers = drawn(questioned_phantom, 480, modality, seed=2, side=32)
    for own, question, answer in zip(made[::2], asked[::2], answers[::2], strict=True):
        text = texts.CAPTIONS[modality](own)
        sign, needed = texts.SIGNS[modality][question.removesuffix(texts.YES_OR_NO)]
        assert answer == ("Yes" if sign in text else "No"), (question, text)
        assert sign.split()[0] in question
        assert needed in text
    card = load_data_card(CARD_OF[modality])
    for question, answer in zip(asked[1::2], answers[1::2], strict=True):
        assert question.split(" Please")[0] not in card.template
        assert set(re.findall(r"'(\w+)'", question)) == {*card.options}
        assert answer in card.options
    for _, counts in pd.crosstab(np.array(asked), np.array(answers)).iterrows():
        present = counts[counts > 0]
        assert len(present) in (2, 3)
        assert present.max() - present.min() <= 2


def test_shapes_and_their_captions():
    images, _, said = drawn(captioned_scene, 300, seed=1)
    of = {name: f"({'|'.join(values)})" for name, values in VALUES.items()}
    pattern = f"(a|two) {of['size']} {of['brightness']} {of['shape']}s? on a {of['background']} background"
    assert all(re.fullmatch(pattern, text) for text in said)
    assert not {word for text in said for word in text.split()} & OPTIONS
    bright, large = (np.array([word in text for text in said]) for word in ("bright", "large"))
    one = np.array([text.startswith("a ") for text in said])
    filled = (images > 0.8 * 255).mean((1, 2)), (images < 0.2 * 255).mean((1, 2))
    assert np.array_equal(filled[0] > filled[1], bright)
    area = np.maximum(*filled)
    for shape in general.SHAPES:
        these = np.array([shape in text for text in said])
        assert area[these & large].min() > area[these & ~large & one].max()


def test_questioned_shapes(monkeypatch):
    scenes, draw = [], general.draw
    monkeypatch.setattr(general, "draw", lambda scene, *rest: scenes.append(scene) or draw(scene, *rest))
    _, asked, answers = drawn(questioned_scene, 300, seed=4)
    for scene, question, answer in zip(scenes, asked, answers, strict=True):
        options = re.findall(r"'(\w+)'", question)
        assert answer in options
        assert len(set(options)) == len(options)
        if options == ["Yes", "No"]:
            named = re.search(rf"two|{'|'.join(general.SHAPES)}", question).group()
            assert (answer == "Yes") == (scene["count"] == 2 if named == "two" else scene["shape"] == named)
        else:
            assert answer.lower() in scene.values()
            assert sum(option.lower() in scene.values() for option in options) == 1
    yes = [answer == "Yes" for question, answer in zip(asked, answers, strict=True) if "'Yes'" in question]
    assert 0.35 < np.mean(yes) < 0.65
    assert sum("', or '" in question for question in asked) == 100


def test_medical_sentences():
    said = dict(medical_sentence(i, 0) for i in range(400))
    assert said["Is a malignant lesion irregular? Please answer 'Yes' or 'No'."] == "Yes"
    assert said["Is a benign lesion irregular? Please answer 'Yes' or 'No'."] == "No"
    assert "irregular taller lesion" in said["What does a malignant lesion look like?"]
    assert all(answer in question for question, answer in said.items() if "Please" in question)


def test_all_training_text_is_of_few_words():
    parts = [drawn(make, 300, seed=0, side=32)[1:] for make in (captioned_scene, questioned_scene)]
    parts.append(zip(*(medical_sentence(i, 0) for i in range(300)), strict=True))
    for modality in MODALITIES:
        parts += [drawn(make, 200, modality, seed=0, side=32)[1:] for make in (captioned_phantom, questioned_phantom)]
    words = {word for part in parts for column in part for text in column for word in re.findall(r"[\w-]+", text)}
    assert len(words) < 150
