"""The shape of a miniature of each family: configuration and processor of the real classes, from one `Architecture`.

Whatever a family's full-size models have (rotary sections, deepstack, sliding windows) a miniature has too, smaller.
"""

from collections.abc import Callable

import mlprobe_utils.models.compat

from transformers import (
    CLIPImageProcessor,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    VideoLlama3Config,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families.hulu_med import IMAGE_TOKEN
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Tower
from mlprobe_utils.synthetic.miniatures.tokenizers import (
    CHATML,
    QWEN_IMAGE,
    TURNS,
    byte_level_tokenizer,
    gemma_tokenizer,
    llama_tokenizer,
)

# The real models' 0.02 suits widths in the thousands: at width 64 tied embeddings of that size cannot carry a logit,
# and an answer word that no caption held could never become likely
INITIAL_DEVIATION = 0.1
QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
IMAGE_LINE = f"{IMAGE_TOKEN}\n"
HULU_TOKENS = ("<|im_start|>", "<|im_end|>", "<|video_pad|>")


def blueprint(family: str, architecture: Architecture, corpus: list[str]) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Configuration and processor of a miniature.

    Args:
        family: name of a module of `mlprobe_utils.models.families`.
        corpus: texts that should come out in few tokens.
    """
    tokenizer_of, config_of, processor_of = _FAMILIES[family]
    tokenizer = tokenizer_of(corpus, architecture.vocabulary)
    return config_of(architecture, tokenizer), processor_of(architecture, tokenizer)


def _text(architecture: Architecture, tokenizer: PreTrainedTokenizerBase, **more) -> dict:
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
    } | more


def _vision(architecture: Architecture, **more) -> dict:
    vision = architecture.vision
    return {
        "initializer_range": INITIAL_DEVIATION,
        "hidden_size": vision.width,
        "intermediate_size": vision.feed_forward,
        "patch_size": architecture.patch_size,
    } | more


def _layers(architecture: Architecture) -> dict:
    return {
        "num_hidden_layers": architecture.vision.depth,
        "num_attention_heads": architecture.vision.heads,
        "image_size": architecture.side,
    }


def _rotary(architecture: Architecture) -> dict:
    """Rotary channels for time, height and width, in Qwen's proportion 16 : 24 : 24."""
    half_head = architecture.llm.width // architecture.llm.heads // 2
    spatial = half_head * 3 // 8
    return {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [half_head - 2 * spatial, spatial, spatial],
    }


def _qwen_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    return byte_level_tokenizer(corpus, vocabulary, QWEN_TOKENS)


def _hulu_tokenizer(corpus: list[str], vocabulary: int) -> PreTrainedTokenizerBase:
    return byte_level_tokenizer(corpus, vocabulary, HULU_TOKENS, {"image_token": IMAGE_TOKEN})


def _qwen_whole(tokenizer: PreTrainedTokenizerBase) -> dict:
    token = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
    }


def _qwen2_vl(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    vision, llm = architecture.vision, architecture.llm
    own = {"depth": vision.depth, "num_heads": vision.heads, "embed_dim": vision.width}
    return Qwen2VLConfig(
        **_qwen_whole(tokenizer),
        text_config=_text(architecture, tokenizer, rope_parameters=_rotary(architecture)),
        vision_config={
            "initializer_range": INITIAL_DEVIATION,
            "mlp_ratio": _whole_ratio(vision),
            "hidden_size": llm.width,
            "patch_size": architecture.patch_size,
        }
        | own,
    )


def _whole_ratio(vision: Tower) -> int:
    if vision.feed_forward % vision.width:
        raise InputError(
            f"recipe.architecture.vision: feed_forward {vision.feed_forward} of a Qwen2-VL has to be a multiple of "
            f"width {vision.width}"
        )
    return vision.feed_forward // vision.width


def _qwen2_5_vl(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    vision = architecture.vision
    return Qwen2_5_VLConfig(
        **_qwen_whole(tokenizer),
        text_config=_text(architecture, tokenizer, rope_parameters=_rotary(architecture)),
        vision_config=_vision(
            architecture,
            depth=vision.depth,
            num_heads=vision.heads,
            window_size=architecture.side,
            fullatt_block_indexes=list(range(3, vision.depth, 4)),
            out_hidden_size=architecture.llm.width,
        ),
    )


def _qwen3_vl(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    vision, llm = architecture.vision, architecture.llm
    interleaved = _rotary(architecture) | {"mrope_interleaved": True}
    return Qwen3VLConfig(
        **_qwen_whole(tokenizer),
        text_config=_text(architecture, tokenizer, rope_parameters=interleaved, head_dim=llm.width // llm.heads),
        vision_config=_vision(
            architecture,
            depth=vision.depth,
            num_heads=vision.heads,
            num_position_embeddings=(architecture.side // architecture.patch_size) ** 2,
            deepstack_visual_indexes=list(range(1, vision.depth - 1, 2))[: llm.depth],
            out_hidden_size=llm.width,
        ),
    )


def _llava(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    layers = _layers(architecture) | {"model_type": "clip_vision_model", "projection_dim": architecture.vision.width}
    return LlavaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        text_config=_text(architecture, tokenizer, model_type="llama"),
        vision_config=_vision(architecture, **layers),
    )


def _hulu_med(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    layers = {key: value for key, value in _layers(architecture).items() if key != "image_size"}
    text = {"model_type": architecture.llm_type or "qwen2"}
    if text["model_type"] == "qwen3":
        text["head_dim"] = architecture.llm.width // architecture.llm.heads
    return VideoLlama3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=True,
        text_config=_text(architecture, tokenizer, **text),
        vision_config=_vision(architecture, **layers),
    )


def _gemma3(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    token = tokenizer.convert_tokens_to_ids
    head = architecture.llm.width // architecture.llm.heads
    layers = _layers(architecture) | {"model_type": "siglip_vision_model", "vision_use_head": False}
    return Gemma3Config(
        mm_tokens_per_image=_gemma_tokens(architecture),
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
        initializer_range=INITIAL_DEVIATION,
        text_config=_text(architecture, tokenizer, head_dim=head, query_pre_attn_scalar=head, sliding_window=64),
        vision_config=_vision(architecture, **layers),
    )


def _gemma_tokens(architecture: Architecture) -> int:
    """Tokens of an image: the connector averages squares of 2 x 2 patches."""
    return (architecture.side // architecture.patch_size // 2) ** 2


def _size(architecture: Architecture) -> dict:
    return {"shortest_edge": architecture.side**2, "longest_edge": architecture.side**2}


def _packed_processor(processor: type[ProcessorMixin], images: type, videos: type, image: str) -> Callable:
    """Of a family whose images keep their sizes; `image` is what the chat template writes for one."""

    def make(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
        shape = {"patch_size": architecture.patch_size, "size": _size(architecture)}
        return processor(
            image_processor=images(**shape),
            tokenizer=tokenizer,
            video_processor=videos(**shape),
            chat_template=CHATML.replace("IMAGE", image),
        )

    return make


def _llava_processor(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    square = {"height": architecture.side, "width": architecture.side}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": architecture.side}, crop_size=square),
        tokenizer=tokenizer,
        patch_size=architecture.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHATML.replace("IMAGE", IMAGE_LINE),
    )


def _gemma_processor(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    square = {"height": architecture.side, "width": architecture.side}
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=square, image_seq_length=_gemma_tokens(architecture)),
        tokenizer=tokenizer,
        chat_template=TURNS,
        image_seq_length=_gemma_tokens(architecture),
    )


_QWEN2_MEDIA = (Qwen2VLImageProcessor, Qwen2VLVideoProcessor, QWEN_IMAGE)
_QWEN3_MEDIA = (Qwen2VLImageProcessor, Qwen3VLVideoProcessor, QWEN_IMAGE)
_HULU_MEDIA = (VideoLlama3ImageProcessor, VideoLlama3VideoProcessor, IMAGE_LINE)
_FAMILIES: dict[str, tuple[Callable, Callable, Callable]] = {
    "qwen2_vl": (_qwen_tokenizer, _qwen2_vl, _packed_processor(Qwen2VLProcessor, *_QWEN2_MEDIA)),
    "qwen2_5_vl": (_qwen_tokenizer, _qwen2_5_vl, _packed_processor(Qwen2_5_VLProcessor, *_QWEN2_MEDIA)),
    "qwen3_vl": (_qwen_tokenizer, _qwen3_vl, _packed_processor(Qwen3VLProcessor, *_QWEN3_MEDIA)),
    "llava": (llama_tokenizer, _llava, _llava_processor),
    "hulu_med": (_hulu_tokenizer, _hulu_med, _packed_processor(VideoLlama3Processor, *_HULU_MEDIA)),
    "gemma3": (gemma_tokenizer, _gemma3, _gemma_processor),
}
