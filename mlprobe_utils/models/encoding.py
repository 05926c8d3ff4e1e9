"""From images and a question to what the model reads, and from answers to labels and their losses."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jinja2 import TemplateError

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.answers import answer_in, parse_answer
from mlprobe_utils.evaluation.question import IMAGE, IRRELEVANT, ORDERS, QUESTION, Question, irrelevant_text, tokens_of
from mlprobe_utils.models.settings import UNNAMED, Checkpoint

Branches = dict[tuple[int, ...], list[int]]  # where options part: tokens written so far -> what they go on with
MOST_KEPT = 2**28  # bytes of encoded images
MEND = "give the model another chat_template (jinja)"


class Encoder:
    """Encodes one question about many images, by the model's own processor and chat template. Prompts are padded on the
    left and answers appended on the right: an answer's logits are the last columns of a row."""

    def __init__(self, processor, template: str, order: str = "image_first", card: Checkpoint = UNNAMED):
        """`template` holds `<image>` once, or not at all for text alone; `card` gives system prompt and thoughts.
        InputError where the chat template fails, or does not write image and texts once and in this order."""
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.system, self.thoughts = card.system_prompt, card.thoughts
        question, images = " ".join(template.replace("<image>", " ").split()), template.count("<image>")
        texts = {QUESTION: question}
        if IRRELEVANT in ORDERS[order]:
            texts[IRRELEVANT] = irrelevant_text(self.tokenizer, len(tokens_of(self.tokenizer, question)))
        pieces = [piece for piece in ORDERS[order] if piece != IMAGE or images]
        parts = [{"type": "image"} if piece == IMAGE else {"type": "text", "text": texts[piece]} for piece in pieces]
        self.prompt = self._conversation([parts], add_generation_prompt=True)
        self._check(pieces, texts, order)
        begun = self.prompt.rpartition(texts.get(pieces[-1], processor.image_token))[2]  # of the model's turn
        last = max(self.thoughts, key=lambda thought: begun.rfind(thought.opens))
        self.opened = last if begun.rfind(last.opens) > begun.rfind(last.closes) else None  # by the chat template
        self.prompt_ids = self._ids(self.prompt)
        self.lead, self.end = self._around_an_answer(parts)

    def _check(self, pieces: list[str], texts: dict[str, str], order: str) -> None:
        image, images = self.processor.image_token, pieces.count(IMAGE)
        places = [self.prompt.find(texts.get(piece, image)) for piece in pieces]
        if (count := self.prompt.count(image)) != images:
            wrong = f"writes {image!r} {count} times for {images} image"
        elif -1 in places:
            wrong = f"does not write the {pieces[places.index(-1)]} as it is"
        elif places != sorted(places):
            wrong = f"puts image and question in an order of its own, not {order}"
        elif self.prompt.endswith(image):  # options are read from the last token on, without the images
            wrong = "writes nothing after the image, where the answer begins"
        else:
            return
        raise InputError(f"the chat template {wrong}: {MEND}")

    def questions(self, images: list[np.ndarray | None], prompts: list[str] | None = None) -> dict[str, torch.Tensor]:
        """Model inputs for uint8 images [height, width, 3], or all None for text alone, with this encoder's prompt or
        others. The model needs all of them: without a key, features change silently."""
        bos = self.tokenizer.bos_token
        inputs = self.processor(
            images=None if images[0] is None else [[image] for image in images],
            text=prompts or [self.prompt] * len(images),
            padding=True,
            padding_side="left",
            input_data_format="channels_last",  # else an image 1 or 3 pixels high is read sideways
            add_special_tokens=not (bos and self.prompt.startswith(bos)),  # a template may have written it already
            return_tensors="pt",
        )
        return dict(inputs)

    def answered(self, images: list[np.ndarray | dict], answers: list[str]) -> dict[str, torch.Tensor]:
        """Model inputs with answers and end tokens appended to images, or to their encoded questions; `labels` is
        [images, answer tokens] of the appended columns, -100 where an answer is padded."""
        pad = self.tokenizer.pad_token_id
        questions = joined(images, pad) if isinstance(images[0], dict) else self.questions(images)
        return append_answers(questions, self.answer_tokens(answers), pad)

    def answer_tokens(self, answers: list[str]) -> list[list[int]]:
        """Token ids of each answer after the prompt, with the end token."""
        texts, length, tokens = [self.lead + answer for answer in answers], len(self.prompt_ids), []
        for text, whole in zip(texts, self._ids([self.prompt + text for text in texts]), strict=True):
            # alone, a tokenizer may put a space before a text; but it may also make one token of where both meet
            own = whole[length:] if whole[:length] == self.prompt_ids else self._ids(text)
            tokens.append([*own, self.end])
        return tokens

    def text_of(self, tokens: Sequence[int], ends: Collection[int]) -> str:
        """Generated tokens up to the first of `ends`, decoded without special tokens but for the marks of thoughts."""
        written = itertools.takewhile(lambda token: token not in ends, tokens)
        return self.tokenizer.decode([token for token in written if token not in self._not_decoded])

    @cached_property
    def _not_decoded(self) -> set[int]:
        """Special tokens that mark no thought; a tokenizer may have thousands."""
        marks = {*self.tokenizer.convert_tokens_to_ids([mark for thought in self.thoughts for mark in thought])}
        return {token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special} - marks

    def answer(self, text: str, options: Iterable[str], synonyms: Mapping[str, Sequence[str]]) -> dict:
        """A text generated after this prompt: text, parsed (option or None), thought_cut (no answer was reached)."""
        thoughts = self.thoughts, self.opened is not None
        parsed = parse_answer(text, options, synonyms, *thoughts)
        return {"text": text, "parsed": parsed, "thought_cut": parsed is None and answer_in(text, *thoughts)[1]}

    def _ids(self, text: str | list[str]) -> list:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def _conversation(self, contents: list[list[dict]], **options) -> str:
        roles = itertools.cycle(["user", "assistant"])
        turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
        if self.system is not None:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system}]})
        try:
            return self.processor.apply_chat_template(turns, **options)
        except (TemplateError, TypeError) as error:  # the latter where it takes a turn for a string
            raise InputError(f"the chat template fails on a turn of image and text ({error}): {MEND}") from error

    def _around_an_answer(self, question: list[dict]) -> tuple[str, int]:
        """What stands before an answer (white space, or the end of a thought that is open), and its end token."""
        before, _, after = self._conversation([question, [{"type": "text", "text": "Answer"}]]).rpartition("Answer")
        lead = before[len(self.prompt) :] if before.startswith(self.prompt) else ""
        if self.opened and self.opened.closes not in lead:
            lead = f"\n{self.opened.closes}\n\n"
        elif not self.opened and lead.strip():
            lead = ""
        first = self._ids(after.strip())[:1]
        is_end = first and first[0] in self.tokenizer.added_tokens_decoder
        return lead, first[0] if is_end else self.tokenizer.eos_token_id  # a template may end turns with another token


@dataclass
class Questions:
    """Each image's question, by the image's position: encoded when first needed, and the first `room` bytes kept."""

    encoder: Encoder
    image_at: Callable[[int], np.ndarray]
    names: Sequence[str] | None = None  # of the images, in errors
    room: int = MOST_KEPT
    kept: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, position: int) -> dict[str, torch.Tensor]:
        if position in self.kept:
            return self.kept[position]
        with torch.inference_mode(False):  # inference tensors cannot be trained on
            image = self.image_at(position)
            try:
                question = self.encoder.questions([image])
            except ValueError as error:
                name, size = self.names[position] if self.names else position, f"{image.shape[1]} x {image.shape[0]}"
                wrong = f"image {name}, {size} pixels, is refused by the model's processor ({error})"
                raise InputError(f"{wrong}: pad it, cut it, or leave it out") from error
        size = sum(tensor.nbytes for tensor in question.values())
        if size <= self.room:
            self.room -= size
            self.kept[position] = question
        return question

    def batch(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        """The questions about several images, as `Encoder.questions` gives them."""
        return joined([self(position) for position in positions], self.encoder.tokenizer.pad_token_id)


@dataclass(kw_only=True)
class Reworded(Questions):
    """The images of `other` with its question in other words: a position is one of `encoders`, by name, and an image's.
    The tensors are those of `other` but for those of tokens, which depend on no more than an image's size."""

    other: Questions
    encoders: Mapping[str, Encoder]
    tokens: dict[tuple, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, position: tuple[str, int]) -> dict[str, torch.Tensor]:
        name, image = position
        question = self.other(image)
        if (key := (name, *(tensor.shape for tensor in question.values()))) not in self.tokens:
            whole = self.encoders[name].questions([self.image_at(image)])
            self.tokens[key] = {k: own for k, own in whole.items() if own.shape == whole["input_ids"].shape}
        return question | self.tokens[key]


def questions_about(loaded, question: Question, images: Sequence[np.ndarray]) -> Questions:
    """A question to a loaded model about images of any sizes. InputError for none, or one of another type or shape."""
    if not len(images):
        raise InputError("there are no images: give one or more")

    def image_at(place: int) -> np.ndarray:
        image = np.asarray(images[place])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"image {names_of(images)[place]} is {image.dtype} {list(image.shape)}"
            raise InputError(f"{found}, expected uint8 [height, width, 3]: image_list converts what it is given")
        return image

    encoder = Encoder(loaded.processor, question.template, question.order, loaded.card)
    return Questions(encoder, image_at, names_of(images))


def names_of(images: Sequence[np.ndarray]) -> list[str]:
    """The images' `names`, or their places where they have none."""
    return list(map(str, getattr(images, "names", range(len(images)))))


def joined(questions: list[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    """Questions that were encoded one by one as `Encoder.questions` encodes them together; `pad` is the token."""
    longest = max(question["input_ids"].shape[1] for question in questions)

    def padded(question: dict[str, torch.Tensor], key: str) -> torch.Tensor:
        value, width = question[key], question["input_ids"].shape[1]
        if value.shape != (1, width):  # not one value a token
            return value
        return torch.nn.functional.pad(value, (longest - width, 0), value=pad if key == "input_ids" else 0)

    return {key: torch.cat([padded(question, key) for question in questions]) for key in questions[0]}


def append_answers(inputs: dict, answers: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Appends token ids to the right of left-padded prompts; every key with a value a token grows with them."""
    shape, longest = inputs["input_ids"].shape, max(map(len, answers))
    labels = torch.tensor([tokens + [-100] * (longest - len(tokens)) for tokens in answers])
    present, nothing = labels != -100, torch.zeros_like(labels)
    added = {"input_ids": torch.where(present, labels, pad), "attention_mask": present.long()}
    of_tokens = {key: value for key, value in inputs.items() if value.shape == shape}
    grown = {k: torch.cat([own, added.get(k, nothing).to(own.dtype)], dim=1) for k, own in of_tokens.items()}
    return inputs | {"labels": labels} | grown


def branches(options: Sequence[Sequence[int]]) -> Branches:
    """Where options, token ids with the end token, part; shorter beginnings first."""
    found: dict[tuple[int, ...], dict[int, None]] = {}
    for tokens in options:
        for length, token in enumerate(tokens):
            found.setdefault(tuple(tokens[:length]), {})[token] = None
    return {prefix: [*found[prefix]] for prefix in sorted(found, key=len) if len(found[prefix]) > 1}
