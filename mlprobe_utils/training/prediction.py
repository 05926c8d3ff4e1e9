"""The final output: the generated answer, and the probability of each option."""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, GenerationConfig

from mlprobe_utils.common.files import claim, hash_of, write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.settings import paper
from mlprobe_utils.common.shards import own_missing, remove_shards, shards_of
from mlprobe_utils.datasets.own_images import Images
from mlprobe_utils.evaluation.answers import parse_answer
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, Questions, append_answers, questions_about
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.extraction import made_of
from mlprobe_utils.training.settings import Answering

ANSWERS = "answers.parquet"


def answer(
    model: LoadedModel,
    images: Images,
    question: Question,
    *,
    folder: str | Path | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 8,
) -> pd.DataFrame:
    """What the model answers about the validation and test images, and how probable it finds each option.

    >>> answers = mp.answer(model, images, question, max_new_tokens=4)
    >>> [*answers]
    ['image', 'label', 'split', 'cluster', 'text', 'parsed', 'p_normal', 'p_ill']

    Args:
        model, images, batch_size: as of `extract`; the images have labels.
        folder: where answers are kept: an interrupted pass goes on there, a whole one is read back.
        max_new_tokens: where an answer is cut off; None: as in the protocol `paper`.

    Returns:
        One row an image: image, label, split (validation or test), cluster (images with the same number are of one
        patient or file), text (as generated), parsed (the label whose answer alone the text names, else null), and for
        each label p_<label> (0 to 1: of its answer among the options).

    Raises:
        InputError: a label without an answer or an answer without label; as `extract`.
    """
    question.check_labels(images.table["label"].dropna())
    changed = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    settings = paper(Answering, "answering", batch_size=batch_size, **changed)
    rows = images.rows("validation", "test")
    with tempfile.TemporaryDirectory() as temporary:
        if folder is not None:
            recorded = {"options": dict(question.options), "max_new_tokens": settings.max_new_tokens}
            recorded["labels"] = hash_of(rows.to_dict("list"))
            folder = claim(folder, made_of(model, question, images) | recorded)
            if (folder / ANSWERS).is_file():
                return pd.read_parquet(folder / ANSWERS)
        questions, options = questions_about(model.processor, question, images), [*question.options.values()]
        with adapter(model, model.adapter):
            shards = Path(folder or temporary)
            found, probabilities = predict(model, questions, options, list(rows.index), settings, shards)
    label_of = dict(zip(options, question.options, strict=True))
    rows = rows.reset_index(drop=True).assign(text=found["text"], parsed=found["parsed"].map(label_of))
    rows = rows.assign(**{OPTION + label: probabilities[:, i] for i, label in enumerate(question.options)})
    if folder is not None:
        write_parquet(rows, folder / ANSWERS)
    return rows


def predict(
    loaded: LoadedModel,
    questions: Questions,
    options: list[str],
    positions: list[int],
    settings: Answering,
    folder: Path,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Answers the questions about the images at `positions`; shards in `folder` let an interrupted run go on.

    Returns:
        A table with `text` (as generated, greedily) and `parsed` (option or None), one row an image; and the options'
        probabilities, float64 [images, options]: summed log-probability of the option's tokens and the end token,
        normalised over the options.
    """
    shards = shards_of(folder, positions, settings.shard_images, ".parquet")
    given = questions.encoder, options, settings.max_new_tokens
    for path, batches in own_missing(shards, settings.batch_size, "answer"):
        write_parquet(pd.concat([answer_batch(loaded, questions.batch(batch), *given) for batch in batches]), path)
    processes().wait_for_everyone()
    whole = pd.concat([pd.read_parquet(shard.path) for shard in shards], ignore_index=True)
    processes().wait_for_everyone()
    if processes().is_main_process:
        remove_shards(folder)
    answers = whole[["text"]].assign(parsed=[parse_answer(text, options) for text in whole["text"]])
    return answers, softmax(whole[options].to_numpy(), axis=1)


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel, prompts: dict[str, torch.Tensor], encoder: Encoder, options: list[str], max_new_tokens: int
) -> pd.DataFrame:
    """What the model writes about each image of one batch, `text`, and the log-probability of each option.

    Images and question are read once, for the text: the options go on from the keys and values that it leaves.
    `prompts` is the batch as `encoder` encodes it.
    """
    cache = DynamicCache(config=loaded.model.config)
    cache.activate_past_recording()  # else a sliding window, once full, could not go back to the end of the prompts
    with greedy(loaded, max_new_tokens, encoder.end) as configuration:
        generate = partial(loaded.model.generate, past_key_values=cache, generation_config=configuration)
        new = generate(**to_device(prompts, loaded))[:, prompts["input_ids"].shape[1] :]
        columns = {"text": encoder.tokenizer.batch_decode(new, skip_special_tokens=True)}
        for option, tokens in zip(options, encoder.answer_tokens(options), strict=True):
            inputs = to_device(_go_back(cache, prompts, tokens), loaded)
            columns[option] = _log_probability(tokens, generate(**inputs, custom_generate=_logits_of_unread))
    return pd.DataFrame(columns)


def _go_back(cache: DynamicCache, prompts: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """Makes the cache forget all from the prompts' last token on; gives inputs with all but the last of `tokens` added.

    The prompts' last token, which is text, is read again: its logits are those of the first of `tokens`.
    """
    rows, length = prompts["input_ids"].shape
    cache.crop(length - 1 - cache.get_seq_length())
    longer = append_answers(prompts, [tokens[:-1]] * rows, pad=0)  # which pads nothing: the rows are equally long
    return {key: value for key, value in longer.items() if value.shape == longer["input_ids"].shape}


def _logits_of_unread(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs):
    """Logits [images, tokens, vocabulary] of the tokens that the cache has not read, in one pass.

    In place of the loop of `generate`, with its arguments: positions and masks are as generation has them.
    """
    unread = input_ids.shape[1] - inputs["past_key_values"].get_seq_length()
    inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=unread, **inputs)
    return model(**inputs | {"logits_to_keep": unread}).logits


def _log_probability(tokens: list[int], logits: torch.Tensor) -> np.ndarray:
    """Summed log-probability of tokens, the same for all images, float64 [images]; logits [images, tokens, all]."""
    labels = torch.tensor([tokens] * len(logits), device=logits.device)
    return -cross_entropy(logits.float().mT, labels, reduction="none").sum(dim=1).double().cpu().numpy()


@contextlib.contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int, end: int) -> Iterator[GenerationConfig]:
    """Greedy generation up to a token that ends an answer, without the penalties and temperatures of a checkpoint.

    While it lasts the model has no other configuration, from which `generate` fills in what a given one leaves open.
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
