"""What miniatures are trained on: images with questions and answers, or text alone, and how a model reads them."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import torch
from transformers import ProcessorMixin

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.models.encoding import Encoder, append_answers
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.synthetic.miniatures.recipe import TEXT_ALONE, Stage, Text
from mlprobe_utils.synthetic.phantoms.general import captioned_scene, questioned_scene
from mlprobe_utils.synthetic.phantoms.texts import captioned_phantom, medical_sentence, questioned_phantom

GENERAL: dict[Text, Callable] = {"general captions": captioned_scene, "general questions": questioned_scene}
MEDICAL: dict[Text, Callable] = {"medical captions": captioned_phantom, "medical questions": questioned_phantom}
Conversation = tuple[np.ndarray | None, tuple[str, str]]  # image, uint8 [side, side, 3], or none; question and answer


def of_stage(stage: Stage, seed: int, side: int) -> list[Conversation]:
    """What a training stage teaches: of each text its share, and within the medical ones equally many of each modality.
    No image of a phantom set is ever among these, whatever the seeds."""
    taught = []
    for text in dict.fromkeys(stage.texts):  # one that is named twice has twice the share
        count = math.ceil(stage.count * stage.texts.count(text) / len(stage.texts))
        taught += of_text(text, stage.modalities, count, seed, side)
    return taught


def of_text(text: Text, modalities: Sequence[str], count: int, seed: int, side: int) -> list[Conversation]:
    """At least `count` conversations of one kind of text, of a medical one about images equally many a modality."""
    if text == TEXT_ALONE:
        return [(None, medical_sentence(i, seed)) for i in range(count)]
    if text in GENERAL:
        return _kept(GENERAL[text], text, "", count, seed, side)
    each = math.ceil(count / len(modalities))
    return [one for of in modalities for one in _kept(partial(MEDICAL[text], of), text, of, each, seed, side)]


def _kept(draw: Callable, text: Text, modality: str, count: int, seed: int, side: int) -> list[Conversation]:
    """Drawn once for all miniatures, and loaded from then on."""
    drawn_with = {"text": text, "modality": modality, "count": count, "seed": seed, "side": side}
    folder = artefacts.OUTPUTS / "conversations" / "-".join(str(part).replace(" ", "-") for part in drawn_with.values())

    def fill(partial: Path) -> None:
        images, *turns = zip(*(draw(i, seed, side) for i in range(count)), strict=True)
        np.save(partial / "images.npy", np.stack(images))
        atomic_write(partial / "turns.json", json.dumps(list(zip(*turns, strict=True))))

    Artefact(folder, "conversations", drawn_with).make(fill)
    images = np.repeat(np.load(folder / "images.npy")[..., None], 3, axis=-1)
    return list(zip(images, map(tuple, json.loads((folder / "turns.json").read_text())), strict=True))


class ConversationEncoder:
    """Encodes images each with a question of its own, as `Encoder` does many images with one question."""

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor
        # the same questions come again and again
        self.encoder = cache(lambda question, seen: Encoder(processor, f"<image> {question}" if seen else question))
        self.tokens = cache(lambda question, answer, seen: self.encoder(question, seen).answer_tokens([answer])[0])

    def questions(self, images: list[np.ndarray | None], questions: list[str]) -> dict[str, torch.Tensor]:
        """Model inputs, prompts padded on the left; either all have an image or none."""
        encoders = [self.encoder(question, images[0] is not None) for question in questions]
        return encoders[0].questions(images, [encoder.prompt for encoder in encoders])

    def answered(self, images: list[np.ndarray | None], turns: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
        """Model inputs with each answer and the end token appended, and `labels`, as `Encoder.answered`."""
        inputs = self.questions(images, [question for question, _ in turns])
        tokens = [self.tokens(*turn, images[0] is not None) for turn in turns]
        return append_answers(inputs, tokens, self.processor.tokenizer.pad_token_id)
