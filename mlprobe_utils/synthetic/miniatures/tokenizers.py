"""The tokenizers and chat templates of miniatures: the real classes of each family, trained here on a small corpus."""

import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer

# ChatML as Qwen and Yi use it, without a default system prompt: a miniature has none to spend tokens on
CHATML = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}IMAGE{% elif part.type == 'text' %}{{ part.text }}\
{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
# Gemma's turns, of which the model's are the model's and not the assistant's
TURNS = """\
{{ bos_token }}{%- for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<start_of_image>{% elif part.type == 'text' %}{{ part.text }}\
{% endif %}{% endfor %}{% endif %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""


def byte_level_tokenizer(
    corpus: list[str], vocabulary: int, special: Sequence[str], named: Mapping[str, str] | None = None
) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of Qwen's class, trained on `corpus`.

    Args:
        corpus: texts that should come out in few tokens; any other text still has an encoding, byte by byte.
        vocabulary: at most so many tokens, special ones not counted.
        special: tokens that are no text.
        named: more of them, which the tokenizer has as attributes (`image_token`).
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab, merges = _trained(corpus, vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), alphabet)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named or {},
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def llama_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A tokenizer of Llama's class with Yi's special tokens: spaces are written, what is unknown comes in bytes."""
    vocab, merges = _with_bytes(corpus, vocabulary, ["<unk>", "<|startoftext|>", "<|endoftext|>"])
    return LlamaTokenizer(
        vocab=vocab,
        merges=merges,
        unk_token="<unk>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<unk>",
        add_bos_token=False,
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<image>"],
    )


def gemma_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A tokenizer of Gemma's class: a text begins with `<bos>`, which a chat template writes too."""
    vocab, merges = _with_bytes(corpus, vocabulary, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, extra_special_tokens=images)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    return tokenizer


def _with_bytes(corpus: list[str], vocabulary: int, first: list[str]) -> tuple[dict[str, int], list[tuple]]:
    """A vocabulary that begins with some tokens and one for every byte."""
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    learned, merges = _trained(corpus, vocabulary, words, [])
    tokens = [*first, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    return {token: place for place, token in enumerate(tokens)}, merges


def _trained(corpus: list[str], vocabulary: int, words, alphabet: list[str]) -> tuple[dict[str, int], list[tuple]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = words
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    bpe = json.loads(tokenizer.to_str())["model"]
    return bpe["vocab"], [tuple(merge) for merge in bpe["merges"]]
