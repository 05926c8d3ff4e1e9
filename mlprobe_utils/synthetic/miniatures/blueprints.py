"""The shape of a miniature of each family: configuration, tokenizer and processor of the real classes.

Whatever a family's full-size models have (rotary sections, deepstack, sliding windows) a miniature has too, smaller.
"""

import json
from collections.abc import Callable, Mapping

import mlprobe_utils.models.compat

import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.hulu_med import IMAGE_TOKEN
from mlprobe_utils.synthetic.miniatures.recipe import Architecture

# The real models' 0.02 suits widths in the thousands: at width 64 tied embeddings of that size cannot carry a logit,
# and an answer word that no caption held could never become likely
INITIAL_DEVIATION = 0.1
QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
HULU_TOKENS = ("<|im_start|>", "<|im_end|>", "<|video_pad|>")


def blueprint(family: str, architecture: Architecture, corpus: list[str]) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Configuration and processor of a miniature.

    Args:
        family: name of a module of `mlprobe_utils.models.families`.
        corpus: texts that should come out in few tokens.
    """
    tokenizer_of, config, ids, parts_of, processor_of = _FAMILIES[family]
    tokenizer = tokenizer_of(corpus, architecture.vocabulary)
    text, vision = parts_of(architecture)
    more = {key: tokenizer.convert_tokens_to_ids(token) for key, token in ids.items()}
    if family == "gemma3":
        more |= {"mm_tokens_per_image": _gemma_tokens(architecture), "initializer_range": INITIAL_DEVIATION}
    else:
        more["tie_word_embeddings"] = True
    whole = config(**more, text_config=_text(architecture, tokenizer) | text, vision_config=vision)
    return whole, processor_of(architecture, tokenizer)


# Tokenizers, trained here on a small corpus: (corpus, at most so many tokens, special ones not counted) -> tokenizer


def _byte_level(special: tuple[str, ...], named: Mapping[str, str]) -> Callable[..., PreTrainedTokenizerBase]:
    """Byte-level BPE of Qwen's class; `special` tokens are no text, `named` ones are its attributes (`image_token`)."""

    def make(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab, merges = _trained(corpus, vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), alphabet)
        ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        tokenizer = hf.Qwen2Tokenizer(vocab=vocab, merges=merges, **ends, extra_special_tokens=dict(named))
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        return tokenizer

    return make


def _llama_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Of Llama's class with Yi's special tokens: spaces are written, what is unknown comes in bytes."""
    vocab, merges = _with_bytes(corpus, vocabulary, ["<unk>", "<|startoftext|>", "<|endoftext|>"])
    return hf.LlamaTokenizer(
        vocab=vocab,
        merges=merges,
        unk_token="<unk>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<unk>",
        add_bos_token=False,
        extra_special_tokens=["<|im_start|>", "<|im_end|>", IMAGE_TOKEN],
    )


def _gemma_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Of Gemma's class: a text begins with `<bos>`, which a chat template writes too."""
    vocab, merges = _with_bytes(corpus, vocabulary, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = hf.GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, extra_special_tokens=images)
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


# Configurations: keys of the text model and of the vision tower


def _text(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> dict:
    llm = architecture.llm
    return {
        "initializer_range": INITIAL_DEVIATION,
        "vocab_size": len(tokenizer),
        "hidden_size": llm.width,
        "intermediate_size": llm.feed_forward,
        "num_hidden_layers": llm.depth,
        "num_attention_heads": llm.heads,
        "num_key_value_heads": llm.key_value_heads,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vision(
    architecture: Architecture, depth: str = "num_hidden_layers", heads: str = "num_attention_heads", **more
) -> dict:
    """`depth` and `heads` are what the family calls these."""
    vision = architecture.vision
    return {
        "initializer_range": INITIAL_DEVIATION,
        "hidden_size": vision.width,
        "intermediate_size": vision.feed_forward,
        "patch_size": architecture.patch_size,
        depth: vision.depth,
        heads: vision.heads,
    } | more


def _head(architecture: Architecture) -> int:
    return architecture.llm.width // architecture.llm.heads


def _rotary(architecture: Architecture) -> dict:
    """Rotary channels for time, height and width, in Qwen's proportion 16 : 24 : 24."""
    half_head = _head(architecture) // 2
    spatial = half_head * 3 // 8
    sections = [half_head - 2 * spatial, spatial, spatial]
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}


def _qwen2_vl(architecture: Architecture) -> tuple[dict, dict]:
    tower = architecture.vision
    if tower.feed_forward % tower.width:
        raise InputError(
            f"recipe.architecture.vision: feed_forward {tower.feed_forward} of a Qwen2-VL has to be a multiple of "
            f"width {tower.width}"
        )
    vision = _vision(architecture, "depth", "num_heads", embed_dim=tower.width, hidden_size=architecture.llm.width)
    vision["mlp_ratio"] = vision.pop("intermediate_size") // tower.width
    return {"rope_parameters": _rotary(architecture)}, vision


def _qwen2_5_vl(architecture: Architecture) -> tuple[dict, dict]:
    full = list(range(3, architecture.vision.depth, 4))
    own = {"window_size": architecture.side, "fullatt_block_indexes": full, "out_hidden_size": architecture.llm.width}
    return {"rope_parameters": _rotary(architecture)}, _vision(architecture, "depth", "num_heads", **own)


def _qwen3_vl(architecture: Architecture) -> tuple[dict, dict]:
    own = {
        "num_position_embeddings": (architecture.side // architecture.patch_size) ** 2,
        "deepstack_visual_indexes": list(range(1, architecture.vision.depth - 1, 2))[: architecture.llm.depth],
        "out_hidden_size": architecture.llm.width,
    }
    rotary = _rotary(architecture) | {"mrope_interleaved": True}
    text = {"rope_parameters": rotary, "head_dim": _head(architecture)}
    return text, _vision(architecture, "depth", "num_heads", **own)


def _llava(architecture: Architecture) -> tuple[dict, dict]:
    own = {"model_type": "clip_vision_model", "projection_dim": architecture.vision.width}
    return {"model_type": "llama"}, _vision(architecture, image_size=architecture.side, **own)


def _hulu_med(architecture: Architecture) -> tuple[dict, dict]:
    kind = architecture.llm_type or "qwen2"
    head = {"head_dim": _head(architecture)} if kind == "qwen3" else {}
    return {"model_type": kind} | head, _vision(architecture)


def _gemma3(architecture: Architecture) -> tuple[dict, dict]:
    own = {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": architecture.side}
    head = _head(architecture)
    text = {"head_dim": head, "query_pre_attn_scalar": head, "sliding_window": 64}
    return text, _vision(architecture, **own)


def _gemma_tokens(architecture: Architecture) -> int:
    """Tokens of an image: the connector averages squares of 2 x 2 patches."""
    return (architecture.side // architecture.patch_size // 2) ** 2


# Processors and chat templates


def _template(start: str, role: str, model: str, image: str, end: str) -> str:
    """A chat template without a default system prompt: a miniature has no tokens to spend on one."""
    return f"""\
{{%- for message in messages %}}{start}{{{{ {role} }}}}
{{% if message.content is string %}}{{{{ message.content }}}}{{% else %}}{{% for part in message.content %}}\
{{% if part.type == 'image' %}}{image}{{% elif part.type == 'text' %}}{{{{ part.text }}}}\
{{% endif %}}{{% endfor %}}{{% endif %}}{end}
{{% endfor %}}{{% if add_generation_prompt %}}{start}{model}
{{% endif %}}"""


def _chatml(image: str) -> str:
    return _template("<|im_start|>", "message.role", "assistant", image, "<|im_end|>")


# of Gemma's turns the model's are the model's and not the assistant's
_GEMMA_ROLE = "'model' if message.role == 'assistant' else 'user'"
_TURNS = _template("<start_of_turn>", _GEMMA_ROLE, "model", "<start_of_image>", "<end_of_turn>")
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_IMAGE_LINE = f"{IMAGE_TOKEN}\n"


def _packed_processor(processor: type, images: type, videos: type, image: str) -> Callable:
    """Of a family whose images keep their sizes; `image` is what the chat template writes for one."""

    def make(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
        area = architecture.side**2
        shape = {"patch_size": architecture.patch_size, "size": {"shortest_edge": area, "longest_edge": area}}
        media = {"image_processor": images(**shape), "video_processor": videos(**shape)}
        return processor(**media, tokenizer=tokenizer, chat_template=_chatml(image))

    return make


def _llava_processor(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    square = {"height": architecture.side, "width": architecture.side}
    return hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": architecture.side}, crop_size=square),
        tokenizer=tokenizer,
        patch_size=architecture.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_chatml(_IMAGE_LINE),
    )


def _gemma_processor(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    square, tokens = {"height": architecture.side, "width": architecture.side}, _gemma_tokens(architecture)
    images = hf.Gemma3ImageProcessor(size=square, image_seq_length=tokens)
    turns = "{{ bos_token }}" + _TURNS
    return hf.Gemma3Processor(image_processor=images, tokenizer=tokenizer, chat_template=turns, image_seq_length=tokens)


_HULU_MEDIA = hf.VideoLlama3ImageProcessor, hf.VideoLlama3VideoProcessor, _IMAGE_LINE
_QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_GEMMA_IDS = {
    "boi_token_index": "<start_of_image>",
    "eoi_token_index": "<end_of_image>",
    "image_token_index": "<image_soft_token>",
}


def _qwen(config: type, parts: Callable, processor: type, videos: type) -> tuple:
    packed = _packed_processor(processor, hf.Qwen2VLImageProcessor, videos, _QWEN_IMAGE)
    return _byte_level(QWEN_TOKENS, {}), config, _QWEN_IDS, parts, packed


_FAMILIES: dict[str, tuple] = {  # tokenizer, class and token ids of the configuration, its parts, processor
    "qwen2_vl": _qwen(hf.Qwen2VLConfig, _qwen2_vl, hf.Qwen2VLProcessor, hf.Qwen2VLVideoProcessor),
    "qwen2_5_vl": _qwen(hf.Qwen2_5_VLConfig, _qwen2_5_vl, hf.Qwen2_5_VLProcessor, hf.Qwen2VLVideoProcessor),
    "qwen3_vl": _qwen(hf.Qwen3VLConfig, _qwen3_vl, hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor),
    "llava": (_llama_tokenizer, hf.LlavaConfig, {"image_token_index": IMAGE_TOKEN}, _llava, _llava_processor),
    "hulu_med": (
        _byte_level(HULU_TOKENS, {"image_token": IMAGE_TOKEN}),
        hf.VideoLlama3Config,
        {"image_token_id": IMAGE_TOKEN, "video_token_id": "<|video_pad|>"},
        _hulu_med,
        _packed_processor(hf.VideoLlama3Processor, *_HULU_MEDIA),
    ),
    "gemma3": (_gemma_tokenizer, hf.Gemma3Config, _GEMMA_IDS, _gemma3, _gemma_processor),
}
