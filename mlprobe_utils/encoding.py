"""From images and a question to what the model reads, and from answers to labels and their losses."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy


class Encoder:
    """Encodes one question about many images, by the model's own processor and chat template.

    Prompts are padded on the left, answers are appended to the right of them, so that the answer's logits are the last
    columns of every row. What the processor returns is fed whole: leaving out a key changes features silently.
    """

    def __init__(self, processor, template: str, order: str = "image_first"):
        """`template` holds `<image>` once (data card); `order` is the protocol's."""
        question = {"type": "text", "text": " ".join(template.replace("<image>", " ").split())}
        parts = [{"type": "image"}, question] if order == "image_first" else [question, {"type": "image"}]
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)

    def questions(self, images: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Model inputs for uint8 images [height, width, 3] of any sizes, prompts padded on the left."""
        return dict(
            self.processor(
                images=images,
                text=[self.prompt] * len(images),
                padding=True,
                padding_side="left",
                return_tensors="pt",
            )
        )

    def answered(self, images: list[np.ndarray], answers: list[str]) -> dict[str, torch.Tensor]:
        """Model inputs with each answer and the end token appended.

        `labels` is [images, answer tokens] and covers the appended columns only; -100 where an answer is padded.
        """
        return append_answers(self.questions(images), self.answer_tokens(answers), self.tokenizer.pad_token_id)

    def answer_tokens(self, answers: list[str]) -> list[list[int]]:
        """Token ids of each answer, the end token included."""
        ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
        return [[*tokens, self.tokenizer.eos_token_id] for tokens in ids]


def append_answers(inputs: dict, answers: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Appends token ids to the right of left-padded prompts; every key with a value a token grows with them."""
    rows, width = inputs["input_ids"].shape
    longest = max(len(tokens) for tokens in answers)
    labels = torch.tensor([tokens + [-100] * (longest - len(tokens)) for tokens in answers])
    present = labels != -100
    grown = {"input_ids": torch.where(present, labels, pad), "attention_mask": present.long()}
    out = dict(inputs)
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape == (rows, width):
            extra = grown.get(key, torch.zeros_like(labels))
            out[key] = torch.cat([value, extra.to(value.dtype)], dim=1)
    return out | {"labels": labels}


def answer_losses(model: torch.nn.Module, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of each image's answer, float32 [images] in nats, and its number of tokens, int [images].

    Args:
        inputs: from `Encoder.answered`; logits are computed at the answers' columns only.
    """
    inputs = dict(inputs)
    labels = inputs.pop("labels")
    # a cache of keys and values would be built for nothing: the setting that Trainer makes does not reach the LLM
    outputs = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False)
    logits = outputs.logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return losses.sum(dim=1), (labels != -100).sum(dim=1)
