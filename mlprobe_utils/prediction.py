"""The final output: the generated answer, and the probability of each option."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig

from mlprobe_utils.answers import parse_answer
from mlprobe_utils.cards import Answering
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.encoding import Encoder, append_answers
from mlprobe_utils.loading import LoadedModel, to_device
from mlprobe_utils.progress import Notes


@torch.inference_mode()
def predict(
    loaded: LoadedModel, encoder: Encoder, image_set: ImageSet, positions: list[int], settings: Answering
) -> tuple[pd.DataFrame, np.ndarray]:
    """Answers the data card's question about the images at `positions`.

    Returns:
        A table with `text` (as generated, greedily) and `parsed` (option or None), one row an image; and the options'
        probabilities, float64 [images, options]: summed log-probability of the option's tokens and the end token,
        normalised over the options.
    """
    options = image_set.card.options
    texts, scores, notes = [], [], Notes()
    for start in range(0, len(positions), settings.batch_size):
        images = [image_set.pixels(i) for i in positions[start : start + settings.batch_size]]
        inputs = encoder.questions(images)
        with greedy(loaded, settings.max_new_tokens) as configuration:
            generated = loaded.model.generate(**to_device(inputs, loaded), generation_config=configuration)
        new = generated[:, inputs["input_ids"].shape[1] :]
        texts += encoder.tokenizer.batch_decode(new, skip_special_tokens=True)
        scores.append(np.stack([answer_log_probability(loaded, encoder, inputs, o) for o in options], axis=1))
        notes.note(len(texts), len(positions), "answer")
    log = np.concatenate(scores)
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    answers = pd.DataFrame({"text": texts, "parsed": [parse_answer(text, options) for text in texts]})
    return answers, weights / weights.sum(axis=1, keepdims=True)


@torch.inference_mode()
def answer_log_probability(loaded: LoadedModel, encoder: Encoder, questions: dict, answer: str) -> np.ndarray:
    """Summed log-probability of one answer's tokens and the end token, float64 [images]."""
    tokens = encoder.answer_tokens([answer]) * len(questions["input_ids"])
    inputs = to_device(append_answers(questions, tokens, encoder.tokenizer.pad_token_id), loaded)
    labels = inputs.pop("labels")
    logits = loaded.model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
    log_probabilities = logits.float().log_softmax(dim=-1).gather(-1, labels[..., None])
    return log_probabilities.sum(dim=(1, 2)).double().cpu().numpy()


@contextlib.contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int) -> Iterator[GenerationConfig]:
    """Greedy generation, free of the penalties and temperatures that a checkpoint may ship.

    While it lasts the model has no other configuration: `generate` fills in from there what a given one leaves open.
    """
    own = loaded.model.generation_config
    plain = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else loaded.processor.tokenizer.pad_token_id,
    )
    loaded.model.generation_config = plain
    try:
        yield plain
    finally:
        loaded.model.generation_config = own
