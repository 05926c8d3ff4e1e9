"""The final output: the generated answer, and the probability of each option."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlprobe_utils.models.compat

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, GenerationConfig

from mlprobe_utils.common.files import claimed, hash_of, read_parquet, write_parquet
from mlprobe_utils.common.processes import own_missing, processes, remove_shards, shards_of
from mlprobe_utils.common.settings import paper
from mlprobe_utils.datasets.own_images import Images
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.evaluation.rows import OPTION, check_finite
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
    """The model's answers to the validation and test images, and the probability of each option. To compare another
    wording, use another `Question` with the same options.

    >>> [*mp.answer(model, images, question, max_new_tokens=4)]
    ['image', 'label', 'split', 'cluster', 'text', 'parsed', 'thought_cut', 'p_normal', 'p_ill']

    Args:
        folder: saves the answers; an interrupted pass continues there, a finished one is loaded.
        max_new_tokens: maximum length of an answer; None: the model's own, or as in the protocol `paper`. A model that
            thinks needs 512 to 2,000, and much more time.
        batch_size: images at a time; does not change results.

    Returns one row per image: image, label, split (validation or test), cluster (equal for images of one patient or
    file), text (as generated), parsed (the only label whose answer the text contains outside of thoughts, else null),
    thought_cut (cut before an answer), and p_<label> (probability of its answer among the options). InputError for a
    label without an answer or an answer without label, and as `extract`."""
    question.check_labels(images.table["label"].dropna())
    most = model.card.max_new_tokens if max_new_tokens is None else max_new_tokens
    limit = {} if most is None else {"max_new_tokens": most}
    settings = paper(Answering, "answering", batch_size=batch_size, **limit)
    rows = images.rows("validation", "test")
    recorded = {"options": dict(question.options), "max_new_tokens": settings.max_new_tokens}
    recorded["synonyms"] = {option: [*words] for option, words in question.synonyms.items()}
    recorded["labels"] = hash_of(rows.to_dict("list"))
    inputs = made_of(model, question, images) | recorded
    with tempfile.TemporaryDirectory() if folder is None else claimed(folder, inputs) as kept:
        kept = Path(kept)
        if not (kept / ANSWERS).is_file():
            label_of = {option: label for label, option in question.options.items()}
            given = questions_about(model, question, images), [*label_of], [*rows.index], settings, kept
            with adapter(model, model.adapter):
                found, probabilities = predict(model, *given, question.synonyms)
            check_finite(probabilities, rows["image"], model.card.called)
            rows = rows.reset_index(drop=True).assign(**found.assign(parsed=found["parsed"].map(label_of)))
            rows = rows.assign(**{OPTION + label: probabilities[:, i] for i, label in enumerate(question.options)})
            write_parquet(rows, kept / ANSWERS)
        return read_parquet(kept / ANSWERS)


def predict(
    loaded: LoadedModel,
    questions: Questions,
    options: list[str],
    positions: list[int],
    settings: Answering,
    folder: Path,
    synonyms: Mapping[str, Sequence[str]] = {},
) -> tuple[pd.DataFrame, np.ndarray]:
    """Answers to the images at `positions`, resumed from the shards in `folder`: one row per image, `text` (generated
    greedily), `parsed` (option or None), `thought_cut` (by the limit of tokens); and the options' probabilities,
    float64 [images, options]: summed log-probability of the option's tokens and the end token, normalised."""
    shards, encoder = shards_of(folder, positions, settings.shard_images, ".parquet"), questions.encoder
    given = encoder, options, settings.max_new_tokens
    for path, batches in own_missing(shards, settings.batch_size, "answer"):
        write_parquet(pd.concat([answer_batch(loaded, questions.batch(batch), *given) for batch in batches]), path)
    processes().wait_for_everyone()
    whole = pd.concat([read_parquet(shard) for shard in shards], ignore_index=True)
    processes().wait_for_everyone()
    if processes().is_main_process:
        remove_shards(folder)
    answers = pd.DataFrame([encoder.answer(text, options, synonyms) for text in whole["text"]])
    return answers, softmax(whole[options].to_numpy(), axis=1)


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel, prompts: dict[str, torch.Tensor], encoder: Encoder, options: list[str], max_new_tokens: int
) -> pd.DataFrame:
    """The `text` generated about each image of one batch of `encoder`, and the log-probability of each option."""
    # images and question are read once, for the text: each option goes on from the cached keys and values, all but
    # those of the prompts' last token, which is text and gives the logits of the option's first token
    cache = DynamicCache(config=loaded.model.config)
    cache.activate_past_recording()  # else a sliding window, once full, could not go back to the end of the prompts
    rows, length = prompts["input_ids"].shape
    with greedy(loaded, max_new_tokens, encoder.end) as configuration:
        generate = partial(loaded.model.generate, past_key_values=cache, generation_config=configuration)
        new = generate(**to_device(prompts, loaded))[:, length:]
        columns = {"text": [encoder.text_of(tokens, configuration.eos_token_id) for tokens in new.tolist()]}
        for option, tokens in zip(options, encoder.answer_tokens(options), strict=True):
            cache.crop(length - 1 - cache.get_seq_length())
            longer = append_answers(prompts, [tokens[:-1]] * rows, pad=0)  # pads nothing: all rows are equally long
            inputs = {key: value for key, value in longer.items() if value.shape == longer["input_ids"].shape}
            logits = generate(**to_device(inputs, loaded), custom_generate=_logits_of_unread)
            labels = torch.tensor([tokens] * rows, device=logits.device)
            losses = cross_entropy(logits.float().mT, labels, reduction="none")
            columns[option] = -losses.sum(dim=1).double().cpu().numpy()
    return pd.DataFrame(columns)


def _logits_of_unread(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs):
    """Logits [images, tokens, vocabulary] of the tokens that are not in the cache, in place of `generate`'s loop."""
    unread = input_ids.shape[1] - inputs["past_key_values"].get_seq_length()
    inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=unread, **inputs)
    return model(**inputs | {"logits_to_keep": unread}).logits


@contextlib.contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int, end: int) -> Iterator[GenerationConfig]:
    """Greedy generation up to an end token, in place of the model's own configuration, whose penalties `generate` would
    fill in, and whose special tokens may be those of another tokenizer."""
    own, tokenizer = loaded.model.generation_config, loaded.processor.tokenizer
    known = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = {end, tokenizer.eos_token_id, *(token for token in known if token in tokenizer.added_tokens_decoder)}
    special = {"eos_token_id": sorted(ends - {None}), "pad_token_id": tokenizer.pad_token_id}
    loaded.model.generation_config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, **special)
    try:
        yield loaded.model.generation_config
    finally:
        loaded.model.generation_config = own
