"""Settings of fine-tuning and of generated answers."""

from typing import Annotated, Literal

from pydantic import Field

from mlprobe_utils.common.settings import Count, Fraction, Part, Precision, Rate


class FineTuning(Part):
    """LoRA fine-tuning (paper section 3.2)."""

    rank: Count = Field(description="of the two trained matrices beside each weight: how freely it can change")
    alpha: Count = Field(description="the update is scaled by alpha / rank")
    dropout: Fraction = Field(description="share of a layer's inputs that its adapter drops in a step")
    vision_tower: Literal["lora", "frozen"] = Field(description="adapted like the other modules, or frozen")
    learning_rate: Rate = Field(description="peak rate of AdamW; if too low, the answers are not learned")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW, on the adapters' weights")
    warmup_ratio: Fraction = Field(description="share of the steps with a rising rate; a cosine decay follows")
    max_gradient_norm: Annotated[float, Field(gt=0)] = Field(description="gradients are clipped to this norm")
    epochs: Count = Field(description="passes over the training images; the last adapter is used")
    batch_size: Count = Field(description="images per step, over all processes")
    length_grouped: bool = Field(description="batches of images of similar size, to reduce padding")
    runs: Count = Field(description="adapters that differ only in their seed: their differences are chance")
    precision: Precision = Field(description="of the model's weights in every stage, unless its card sets another")
    gradient_checkpointing: bool = Field(description="saves memory, computes activations twice; same results")


class VisionTraining(Part):
    """The vision tower frozen, or trained alone with a linear layer and cross-entropy (paper, Tables 2 and 3). Images,
    epochs, batch and schedule are those of `fine_tuning`, so that all have one budget."""

    runs: Count = Field(description="with a frozen tower, and of a tower alone: the first seeds")
    learning_rate_all: Rate = Field(description="peak rate of AdamW, if all weights of the tower are trained")
    learning_rate_lora: Rate = Field(description="the same, if LoRA is trained beside the tower's linear layers")


class Answering(Part):
    max_new_tokens: Count = Field(description="maximum length of an answer")
    batch_size: Count = Field(description="images at a time; does not change results")
    shard_images: Count = Field(description="images after which results are saved, in case the run is killed")
