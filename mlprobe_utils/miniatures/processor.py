"""The tokenizer, image processor and chat template of a Qwen2.5-VL miniature, made here and saved like the hub's."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

# ChatML as Qwen2.5-VL uses it, without a default system prompt: a miniature has none to spend tokens on
CHAT_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'text' %}{{ part.text }}\
{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def train_tokenizer(corpus: list[str], vocabulary: int) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of Qwen's class, with Qwen's special tokens, trained on `corpus`.

    Args:
        corpus: texts that should come out in few tokens; any other text still has an encoding, byte by byte.
        vocabulary: at most so many tokens, special ones not counted.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    bpe = json.loads(tokenizer.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS),
    )


def make_processor(tokenizer: Qwen2Tokenizer, patch_size: int, side: int) -> Qwen2_5_VLProcessor:
    """A Qwen2.5-VL processor for square images of `side` pixels in patches of `patch_size` pixels."""
    size = {"shortest_edge": side * side, "longest_edge": side * side}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=patch_size, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=patch_size, size=size),
        chat_template=CHAT_TEMPLATE,
    )
