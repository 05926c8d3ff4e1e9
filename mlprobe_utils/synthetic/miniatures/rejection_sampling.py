"""Rejection-sampled fine-tuning, in place of reinforcement learning with answers that can be checked.

Policy gradients (GRPO, as Table S1 has it of MedVLM-R1 and Lingshu) reward a model's own right answers. One round of
rejection sampling does so in the plainest form: answers are drawn from the model, the right ones are kept, and the
model learns them (Yuan et al. 2023, "rejection sampling fine-tuning").
"""

import mlprobe_utils.models.compat

import torch
from transformers import GenerationConfig, PreTrainedModel, set_seed

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.synthetic.miniatures.conversations import ConversationEncoder, Conversations

BATCH, MAX_NEW_TOKENS = 64, 8


@torch.inference_mode()
def right_answers(
    model: PreTrainedModel, encoder: ConversationEncoder, asked: Conversations, samples: int, seed: int
) -> Conversations:
    """Those of the model's own answers that are right, each as often as it was drawn.

    Args:
        asked: questions with their right answers.
        samples: answers drawn a question, at temperature 1.
        seed: of the draws.

    Raises:
        InputError: no answer is right, so that there is nothing to learn.
    """
    set_seed(seed)
    model.eval()
    settings = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=True,
        top_k=0,
        num_return_sequences=samples,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=model.generation_config.pad_token_id,
    )
    kept: list[int] = []
    for start in range(0, len(asked), BATCH):
        positions = range(start, min(start + BATCH, len(asked)))
        inputs = encoder.questions([asked.image(i) for i in positions], [asked.questions[i] for i in positions])
        generated = model.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :]
        texts = encoder.processor.tokenizer.batch_decode(generated, skip_special_tokens=True)
        drawn = [i for i in positions for _ in range(samples)]
        kept += [i for i, text in zip(drawn, texts, strict=True) if text.strip() == asked.answers[i]]
    if not kept:
        raise InputError(
            f"none of {len(asked) * samples} sampled answers is right: give the recipe a stage with questions before "
            "its stage with samples"
        )
    return asked.chosen(kept)
