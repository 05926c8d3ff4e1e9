"""Configuration, tokenizer and processor of a miniature of each family, of the real classes: whatever the full-size
models have (rotary sections, deepstack, sliding windows) it has too, smaller."""

import json
from collections.abc import Callable
from functools import partial

import mlprobe_utils.models.compat

import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families import FAMILIES
from mlprobe_utils.models.families.hulu_med import IMAGE_TOKEN
from mlprobe_utils.synthetic.miniatures.recipe import Architecture

# The real models' 0.02 suits widths in the thousands: at width 64 tied embeddings of that size cannot carry a logit,
# and an answer word that no caption held could never become likely
INITIAL_DEVIATION = 0.1
FIRST_TOKENS = {
    "llava": ["<unk>", "<|startoftext|>", "<|endoftext|>"],
    "gemma3": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
}
GEMMA_IMAGE = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
QWEN = ("vision_start", "vision_end", "image_pad", "video_pad")
TOKENS = {  # of a family's configuration, by the names of their ids; those of QWEN of the others
    "llava": {"image_token_index": IMAGE_TOKEN},
    "hulu_med": {"image_token_id": IMAGE_TOKEN, "video_token_id": "<|video_pad|>"},
    "gemma3": {f"{name}_index": token for name, token in GEMMA_IMAGE.items()},
}


def blueprint(family: str, architecture: Architecture, corpus: list[str]) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Configuration and processor of a miniature of a family; the texts of the corpus come out in few tokens."""
    tokenizer, llm = _tokenizer(family, corpus, architecture.vocabulary), architecture.llm
    more, vision = _towers(family, architecture)
    text = {"initializer_range": INITIAL_DEVIATION, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
    text |= {"hidden_size": llm.width, "intermediate_size": llm.feed_forward, "num_hidden_layers": llm.depth}
    text |= {"num_attention_heads": llm.heads, "num_key_value_heads": llm.key_value_heads, "tie_word_embeddings": True}
    text |= {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    whole = {"text_config": text | more, "vision_config": vision}
    qwen = {f"{name.removesuffix('_pad')}_token_id": f"<|{name}|>" for name in QWEN}
    for key, token in TOKENS.get(family, qwen).items():
        whole[key] = tokenizer.convert_tokens_to_ids(token)
    if family == "gemma3":
        tokens = (architecture.side // architecture.patch_size // 2) ** 2  # the connector averages 2 x 2 patches
        whole |= {"mm_tokens_per_image": tokens, "initializer_range": INITIAL_DEVIATION}
    else:
        whole["tie_word_embeddings"] = True
    classes = FAMILIES[family].model_class.removesuffix("ForConditionalGeneration")
    made = partial(getattr(hf, f"{classes}Processor"), tokenizer=tokenizer)
    return getattr(hf, f"{classes}Config")(**whole), _processor(family, architecture, made)


def _tokenizer(family: str, corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Of the family's class, trained here on a small corpus: at most `vocabulary` tokens, special ones not counted."""
    if first := FIRST_TOKENS.get(family):  # spaces are written, what is unknown comes in bytes
        words, alphabet = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never"), []
    else:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = words
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(corpus, trainer)
    bpe = json.loads(trained.to_str())["model"]
    vocab, merges = bpe["vocab"], [tuple(merge) for merge in bpe["merges"]]
    if first:
        tokens = [*first, *(f"<0x{byte:02X}>" for byte in range(256)), *vocab]
        vocab = {token: place for place, token in enumerate(tokens)}
    if family == "llava":  # with Yi's special tokens
        ends = {"unk_token": "<unk>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
        special = {"pad_token": "<unk>", "extra_special_tokens": ["<|im_start|>", "<|im_end|>", IMAGE_TOKEN]}
        return hf.LlamaTokenizer(vocab=vocab, merges=merges, **ends, **special, add_bos_token=False)
    if family == "gemma3":  # a text begins with <bos>, which a chat template writes too
        made = hf.GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, extra_special_tokens=GEMMA_IMAGE)
        special = ["<start_of_turn>", "<end_of_turn>"]
    else:
        named = {"image_token": IMAGE_TOKEN} if family == "hulu_med" else {}
        ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        made = hf.Qwen2Tokenizer(vocab=vocab, merges=merges, **ends, extra_special_tokens=named)
        special = ["<|im_start|>", "<|im_end|>", *(f"<|{name}|>" for name in (QWEN[-1:] if named else QWEN))]
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def _towers(family: str, architecture: Architecture) -> tuple[dict, dict]:
    """What the family adds to the configuration of its LLM, and the whole one of its vision tower."""
    vision, llm, side = architecture.vision, architecture.llm, architecture.side
    depth, heads = ("depth", "num_heads") if family.startswith("qwen") else ("num_hidden_layers", "num_attention_heads")
    tower = {"initializer_range": INITIAL_DEVIATION, "hidden_size": vision.width, "patch_size": architecture.patch_size}
    tower |= {"intermediate_size": vision.feed_forward, depth: vision.depth, heads: vision.heads}
    head, kind = llm.width // llm.heads, architecture.llm_type or "qwen2"
    spatial = head // 2 * 3 // 8  # rotary channels for time, height and width, in Qwen's proportion 16 : 24 : 24
    rotary = {"rope_type": "default", "rope_theta": 10000.0}
    rotary["mrope_section"] = [head // 2 - 2 * spatial, spatial, spatial]
    if family == "qwen2_vl":
        if vision.feed_forward % vision.width:
            wrong = f"feed_forward {vision.feed_forward} is no multiple of width {vision.width}"
            raise InputError(f"recipe.architecture.vision: {wrong}, as a Qwen2-VL needs")
        ratio = tower.pop("intermediate_size") // vision.width
        tower |= {"embed_dim": vision.width, "hidden_size": llm.width, "mlp_ratio": ratio}
        return {"rope_parameters": rotary}, tower
    if family == "qwen2_5_vl":
        tower |= {"window_size": side, "fullatt_block_indexes": list(range(3, vision.depth, 4))}
        return {"rope_parameters": rotary}, tower | {"out_hidden_size": llm.width}
    if family == "qwen3_vl":
        tower |= {"num_position_embeddings": (side // architecture.patch_size) ** 2, "out_hidden_size": llm.width}
        tower["deepstack_visual_indexes"] = list(range(1, vision.depth - 1, 2))[: llm.depth]
        return {"rope_parameters": rotary | {"mrope_interleaved": True}, "head_dim": head}, tower
    if family == "hulu_med":
        return {"model_type": kind} | ({"head_dim": head} if kind == "qwen3" else {}), tower
    if family == "llava":
        tower |= {"model_type": "clip_vision_model", "projection_dim": vision.width, "image_size": side}
        return {"model_type": "llama"}, tower
    tower |= {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": side}
    return {"head_dim": head, "query_pre_attn_scalar": head, "sliding_window": 64}, tower


def _processor(family: str, architecture: Architecture, made: Callable[..., ProcessorMixin]) -> ProcessorMixin:
    side, patch = architecture.side, {"patch_size": architecture.patch_size}
    square = {"height": side, "width": side}
    if family == "gemma3":  # of its turns the model's are the model's and not the assistant's
        role, turn = "'model' if message.role == 'assistant' else 'user'", ("<start_of_turn>", "<end_of_turn>")
        template = "{{ bos_token }}" + _template(GEMMA_IMAGE["boi_token"], turn, role, "model")
        tokens = {"image_seq_length": (side // architecture.patch_size // 2) ** 2}
        images = hf.Gemma3ImageProcessor(size=square, **tokens)
        return made(image_processor=images, chat_template=template, **tokens)
    image = "<|vision_start|><|image_pad|><|vision_end|>" if family.startswith("qwen") else f"{IMAGE_TOKEN}\n"
    template = _template(image)
    if family == "llava":
        images = hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square)
        features = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        return made(image_processor=images, chat_template=template, **patch, **features)
    first, last = {"hulu_med": ("VideoLlama3",) * 2, "qwen3_vl": ("Qwen2VL", "Qwen3VL")}.get(family, ("Qwen2VL",) * 2)
    images, videos = getattr(hf, f"{first}ImageProcessor"), getattr(hf, f"{last}VideoProcessor")
    kept = {"size": {"shortest_edge": side**2, "longest_edge": side**2}} | patch  # images keep their proportions
    return made(image_processor=images(**kept), video_processor=videos(**kept), chat_template=template)


def _template(image: str, turn=("<|im_start|>", "<|im_end|>"), role="message.role", model="assistant") -> str:
    """A chat template without a default system prompt: a miniature has no tokens to spend on one. ChatML's turns."""
    start, end = turn
    return f"""\
{{%- for message in messages %}}{start}{{{{ {role} }}}}
{{% if message.content is string %}}{{{{ message.content }}}}{{% else %}}{{% for part in message.content %}}\
{{% if part.type == 'image' %}}{image}{{% elif part.type == 'text' %}}{{{{ part.text }}}}\
{{% endif %}}{{% endfor %}}{{% endif %}}{end}
{{% endfor %}}{{% if add_generation_prompt %}}{start}{model}
{{% endif %}}"""
