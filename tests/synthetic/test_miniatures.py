"""Miniatures: what their recipes teach and to which modules, in the order of the originals, by the real classes."""

import itertools
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_parts import card_of, each_family

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.families import family_of
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, original, slugs
from mlprobe_utils.pipeline.configuration import lineages, load_book
from mlprobe_utils.synthetic.miniatures import conversations, making
from mlprobe_utils.synthetic.miniatures.conversations import ConversationEncoder, of_stage
from mlprobe_utils.synthetic.miniatures.recipe import Stage, architecture_of, recipe_of
from mlprobe_utils.synthetic.phantoms.texts import CAPTION_REQUEST, medical_sentence

pytestmark = pytest.mark.usefixtures("outputs")
IMAGES = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
QUESTION = "Which? Please answer 'Yes' or 'No'."
GIVEN = [(image, (QUESTION, answer)) for image, answer in zip(IMAGES, ["Yes", "No"] * 3, strict=True)]


def stage(**changes) -> Stage:
    own = {"title": "a stage", "texts": ["medical questions"], "count": 12, "train": ["LLM"]}
    own |= {"epochs": 1, "batch_size": 4, "learning_rate": 0.001}
    return Stage.model_validate(own | changes)


def test_the_default_is_a_miniature_of_each_model_of_the_paper():
    originals = [original(load_model_card(slug)).slug for slug in load_book().all]
    of_the_paper = [slug for slug in slugs(ModelCard) if load_model_card(slug).table1]
    assert sorted(originals) == sorted([*of_the_paper, "gemma-3-4b", "qwen2.5-vl-7b"])


def test_depth_and_width_are_in_the_order_of_the_originals():
    sizes = []
    for card in map(load_model_card, load_book().all):
        small, file = architecture_of(card), f"data/architectures/{original(card).architecture}.json"
        shape = json.loads((ROOT / file).read_text())
        vision, text = shape.get("vision_config") or shape["vision_encoder_config"], shape.get("text_config", shape)
        depth, width = vision.get("depth", vision.get("num_hidden_layers")), vision.get("embed_dim")
        large = [depth, width or vision["hidden_size"], text["num_hidden_layers"], text["hidden_size"]]
        own = [small.vision.depth, small.vision.width, small.llm.depth, small.llm.width]
        sizes.append(list(zip(large, own, strict=True)))
    for one, other in itertools.permutations(sizes, 2):
        for (large_a, small_a), (large_b, small_b) in zip(one, other, strict=True):
            assert large_a > large_b or small_a <= small_b


@pytest.mark.parametrize("root", lineages(load_book().all))
def test_size_and_tokens_of_an_image(root):
    card = load_model_card(root)
    model, processor = making.from_scratch(card.family, recipe_of(card).architecture)
    assert 0.3e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 0.6e6
    image = np.zeros((64, 64, 3), np.uint8)
    inputs = Encoder(processor, "<image> Which?").questions([image])
    assert int(family_of(model).image_mask(inputs).sum()) in (4, 16)


def test_a_stage_teaches_equally_many_of_each_text_and_modality_and_loads_again_what_was_drawn(monkeypatch):
    texts = ["medical captions", "general questions", "medical questions"]
    taught = of_stage(stage(texts=texts, count=36), seed=3, side=32)
    assert [image.shape for image, _ in taught] == [(32, 32, 3)] * 36
    assert sum(question == CAPTION_REQUEST for _, (question, _) in taught) == 12
    captions = [caption for _, (_, caption) in taught[:12]]
    assert [sum(word in caption for caption in captions) for word in ("ultrasound", "ct", "x-ray")] == [4, 4, 4]
    for kinds in (conversations.GENERAL, conversations.MEDICAL):
        for text in kinds:
            monkeypatch.setitem(kinds, text, lambda *_: pytest.fail("drawn again"))
    again = of_stage(stage(texts=texts, count=36), seed=3, side=32)
    assert [turn for _, turn in again] == [turn for _, turn in taught]
    assert all((image == other).all() for (image, _), (other, _) in zip(again, taught, strict=True))


def test_a_text_that_is_named_twice_has_twice_the_share_and_no_image_twice():
    taught = of_stage(stage(texts=["medical captions"] * 2 + ["general questions"], modalities=["ct"]), seed=3, side=32)
    assert sum("ct" in answer.split() for _, (_, answer) in taught) == 8
    assert len({image.tobytes() for image, _ in taught}) == len(taught) == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": ["medical sentences", "medical captions"]}, "a stage of their own"),
        ({"texts": ["medical sentences"], "train": ["vision tower"]}, r"train: \[LLM\]"),
        ({"texts": ["medical captions"], "samples": 2}, "correct or not"),
        ({"modalities": []}, "modalities"),
    ],
)
def test_a_stage_that_cannot_be_taught(changes, said):
    with pytest.raises(ValidationError, match=said):
        stage(**changes)


@each_family
def test_questions_of_their_own_read_as_one_question_each(tiny):
    """A batch of images with different questions: of each row what is no padding equals the row alone."""
    encoder, questions = ConversationEncoder(tiny.processor), ["Which?", "Is the margin irregular, or not?"]
    images = [np.full((64, 64, 3), level, np.uint8) for level in (40, 200)]
    batch = encoder.answered(images, [(question, "Benign") for question in questions])
    for row, (question, image) in enumerate(zip(questions, images, strict=True)):
        alone = Encoder(tiny.processor, f"<image> {question}").answered([image], ["Benign"])
        kept = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][kept].tolist() == alone["input_ids"][0].tolist()
        assert batch["labels"][row].tolist() == alone["labels"][0].tolist()


@each_family
def test_text_alone_can_be_learned(tiny):
    taught = of_stage(stage(texts=["medical sentences"]), seed=3, side=32)
    assert taught == [(None, medical_sentence(i, 3)) for i in range(12)]
    turns = [("Which?", "Benign"), ("What does it look like?", "Benign")]
    batch = ConversationEncoder(tiny.processor).answered([None, None], turns)
    assert "pixel_values" not in batch
    assert (batch.pop("labels") != -100).any()
    assert torch.isfinite(tiny.model(**batch).logits).all()


def test_only_correct_answers_are_learned(tiny_folder, monkeypatch):
    """A model whose words are made up: what is kept is what is correct, as often as it was drawn."""
    loaded = load(card_of(tiny_folder))
    said = iter([["Yes", "No", " No ", "Maybe", "Yes", "Yes", "Yes", "No", "No", "No", "No", "no"]])
    monkeypatch.setattr(type(loaded.processor.tokenizer), "batch_decode", lambda *_, **__: next(said))
    kept = making.correct_answers(loaded.model, ConversationEncoder(loaded.processor), GIVEN, samples=2, seed=0)
    # image 0: Yes; image 1: " No "; image 2: both; image 3: No; image 4: none (No is wrong); image 5: "No", not "no"
    assert [one is GIVEN[i] for one, i in zip(kept, (0, 1, 2, 2, 3, 5), strict=True)] == [True] * 6


def test_samples_are_a_function_of_the_seed_and_none_that_is_correct_is_an_error(tiny_folder, monkeypatch):
    loaded, drawn = load(card_of(tiny_folder)), []
    decode, tokenizer = loaded.processor.tokenizer.batch_decode, type(loaded.processor.tokenizer)
    monkeypatch.setattr(tokenizer, "batch_decode", lambda _, ids, **k: drawn.append(ids.tolist()) or decode(ids))
    none = [(image, (QUESTION, "such a text is never drawn")) for image in IMAGES]
    for seed in (1, 1, 2):
        with pytest.raises(InputError, match="none of 18 sampled answers is correct: give the recipe a stage with q"):
            making.correct_answers(loaded.model, ConversationEncoder(loaded.processor), none, samples=3, seed=seed)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("module", ["vision tower", "connector", "LLM"])
def test_a_stage_changes_the_named_module_and_nothing_else(tiny_folder, tmp_path, module):
    loaded = load(card_of(tiny_folder))
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    (checkpoints := tmp_path / "checkpoints" / "0").mkdir(parents=True)
    taught = of_stage(stage(), seed=0, side=64)
    making.run_stage(loaded.model, loaded.processor, stage(train=[module]), taught, 0, checkpoints)
    changed = {name for name, weight in loaded.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(name.startswith(tuple(family_of(loaded.model).parts()[module])) for name in changed)
