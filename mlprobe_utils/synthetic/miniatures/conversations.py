"""What miniatures are trained on: images with questions and answers, or text alone, and how a model reads them."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlprobe_utils.models.compat

import numpy as np
import torch
from filelock import FileLock
from transformers import ProcessorMixin

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.models.encoding import Encoder, append_answers
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.synthetic.miniatures.recipe import TEXT_ALONE, Stage, Text
from mlprobe_utils.synthetic.phantoms.general import captioned_shapes, questioned_shapes
from mlprobe_utils.synthetic.phantoms.texts import captioned_phantoms, medical_sentences, questioned_phantoms

CAPTION_REQUEST = "Describe the image."


@dataclass(frozen=True)
class Conversations:
    """Questions and answers, each about one image, uint8 [n, side, side, 3]; None: text alone."""

    images: np.ndarray | None
    questions: list[str]
    answers: list[str]

    def __len__(self) -> int:
        return len(self.questions)

    def image(self, position: int) -> np.ndarray | None:
        return None if self.images is None else self.images[position]

    def turns(self) -> list[tuple[str, str]]:
        """(question, answer) of each."""
        return list(zip(self.questions, self.answers, strict=True))


def conversations(stage: Stage, seed: int, side: int) -> Conversations:
    """What a training stage teaches: of each text its share, and within the medical ones equally many of each modality.

    No image of a phantom set is ever among these, whatever the seeds.
    """
    drawn = []
    for text in dict.fromkeys(stage.texts):  # one that is named twice has twice the share
        count = math.ceil(stage.count * stage.texts.count(text) / len(stage.texts))
        drawn += drawn_of(text, stage.modalities, count, seed, side)
    images = None if stage.texts == [TEXT_ALONE] else np.concatenate([part.images for part in drawn])
    questions = [question for part in drawn for question in part.questions]
    return Conversations(images, questions, [answer for part in drawn for answer in part.answers])


DRAWN_BY: dict[Text, Callable] = {
    "general captions": captioned_shapes,
    "general questions": questioned_shapes,
    "medical captions": captioned_phantoms,
    "medical questions": questioned_phantoms,
}


def drawn_of(text: Text, modalities: Sequence[str], count: int, seed: int, side: int) -> list[Conversations]:
    """At least `count` conversations of one kind of text; of a medical one about images a part for each modality."""
    if text == TEXT_ALONE:
        return [Conversations(None, *medical_sentences(count, seed))]
    if text.startswith("general"):
        return [_kept(text, "", count, seed, side)]
    return [_kept(text, modality, math.ceil(count / len(modalities)), seed, side) for modality in modalities]


def _kept(text: Text, modality: str, count: int, seed: int, side: int) -> Conversations:
    """Drawn once for all miniatures, and read from then on."""
    drawn_with = {"text": text, "modality": modality, "count": count, "seed": seed, "side": side}
    folder = artefacts.OUTPUTS / "conversations" / "-".join(str(part).replace(" ", "-") for part in drawn_with.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (own := Artefact(folder, "conversations", drawn_with)).is_current():
            arguments = (modality, count, seed, side) if modality else (count, seed, side)
            images, *questions, answers = DRAWN_BY[text](*arguments)
            turns = list(zip(*questions or [[CAPTION_REQUEST] * len(answers)], answers, strict=True))
            with own.making() as temporary:
                np.save(temporary / "images.npy", images[..., 0])  # all are grey
                atomic_write(temporary / "turns.json", json.dumps(turns))
    grey = np.load(folder / "images.npy")
    questions, answers = zip(*json.loads((folder / "turns.json").read_text()), strict=True)
    return Conversations(np.repeat(grey[..., None], 3, axis=-1), list(questions), list(answers))


@dataclass
class ConversationEncoder:
    """Encodes images each with a question of its own, as `Encoder` does many images with one question."""

    processor: ProcessorMixin
    _encoders: dict[tuple[str, bool], Encoder] = field(default_factory=dict)  # the same questions come again and again
    _tokens: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def questions(self, images: list[np.ndarray | None], questions: list[str]) -> dict[str, torch.Tensor]:
        """Model inputs, prompts padded on the left; either all have an image or none."""
        encoders = [self._encoder(question, image) for question, image in zip(questions, images, strict=True)]
        return encoders[0].questions(images, [encoder.prompt for encoder in encoders])

    def answered(self, images: list[np.ndarray | None], turns: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
        """Model inputs with each answer and the end token appended, and `labels`, as `Encoder.answered`."""
        inputs = self.questions(images, [question for question, _ in turns])
        for (question, answer), image in zip(turns, images, strict=True):
            if (question, answer) not in self._tokens:
                self._tokens[question, answer] = self._encoder(question, image).answer_tokens([answer])[0]
        return append_answers(inputs, [self._tokens[turn] for turn in turns], self.processor.tokenizer.pad_token_id)

    def _encoder(self, question: str, image: np.ndarray | None) -> Encoder:
        key = (question, image is not None)
        if key not in self._encoders:
            self._encoders[key] = Encoder(self.processor, f"<image> {question}" if key[1] else question)
        return self._encoders[key]
