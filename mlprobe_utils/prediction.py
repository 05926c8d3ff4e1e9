"""The final output: the generated answer, and the probability of each option."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from transformers import GenerationConfig

from mlprobe_utils.answers import parse_answer
from mlprobe_utils.artefacts import write_parquet
from mlprobe_utils.cards import Answering
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.encoding import Encoder, answer_losses, append_answers
from mlprobe_utils.loading import LoadedModel, to_device
from mlprobe_utils.processes import processes
from mlprobe_utils.shards import own_missing, remove_shards, shards_of


def predict(
    loaded: LoadedModel, encoder: Encoder, image_set: ImageSet, positions: list[int], settings: Answering, folder: Path
) -> tuple[pd.DataFrame, np.ndarray]:
    """Answers the data card's question about the images at `positions`.

    Args:
        folder: where shards are kept meanwhile; those that an interrupted run left there are not done again.

    Returns:
        A table with `text` (as generated, greedily) and `parsed` (option or None), one row an image; and the options'
        probabilities, float64 [images, options]: summed log-probability of the option's tokens and the end token,
        normalised over the options.
    """
    options = image_set.card.options
    shards = shards_of(folder, positions, settings.shard_images, ".parquet")
    for path, batches in own_missing(shards, settings.batch_size, "answer"):
        answered = [
            answer(loaded, encoder, [image_set.pixels(i) for i in batch], options, settings.max_new_tokens)
            for batch in batches
        ]
        write_parquet(pd.concat(answered), path)
    processes().wait_for_everyone()
    whole = pd.concat([pd.read_parquet(shard.path) for shard in shards], ignore_index=True)
    processes().wait_for_everyone()
    if processes().is_main_process:
        remove_shards(folder)
    answers = pd.DataFrame({"text": whole["text"], "parsed": [parse_answer(text, options) for text in whole["text"]]})
    return answers, softmax(whole[options].to_numpy(), axis=1)


@torch.inference_mode()
def answer(
    loaded: LoadedModel, encoder: Encoder, images: list[np.ndarray], options: list[str], max_new_tokens: int
) -> pd.DataFrame:
    """What the model writes about each image of one batch, `text`, and the log-probability of each option."""
    inputs = encoder.questions(images)
    with greedy(loaded, max_new_tokens, encoder.end) as configuration:
        generated = loaded.model.generate(**to_device(inputs, loaded), generation_config=configuration)
    new = generated[:, inputs["input_ids"].shape[1] :]
    columns = {"text": encoder.tokenizer.batch_decode(new, skip_special_tokens=True)}
    return pd.DataFrame(columns | {o: answer_log_probability(loaded, encoder, inputs, o) for o in options})


@torch.inference_mode()
def answer_log_probability(loaded: LoadedModel, encoder: Encoder, questions: dict, answer: str) -> np.ndarray:
    """Summed log-probability of one answer's tokens and the end token, float64 [images]."""
    tokens = encoder.answer_tokens([answer]) * len(questions["input_ids"])
    inputs = to_device(append_answers(questions, tokens, encoder.tokenizer.pad_token_id), loaded)
    losses, _ = answer_losses(loaded.model, inputs)
    return -losses.double().cpu().numpy()


@contextlib.contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int, end: int) -> Iterator[GenerationConfig]:
    """Greedy generation up to a token that ends an answer, free of what penalties and temperatures a checkpoint ships.

    While it lasts the model has no other configuration: `generate` fills in from there what a given one leaves open.
    """
    own = loaded.model.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    plain = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted({end, *ends} - {None}),
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else loaded.processor.tokenizer.pad_token_id,
    )
    loaded.model.generation_config = plain
    try:
        yield plain
    finally:
        loaded.model.generation_config = own
