"""Settings of fine-tuning and of generated answers."""

from typing import Annotated, Literal

from pydantic import Field

from mlprobe_utils.common.settings import Count, Fraction, Part, Precision, Rate


class FineTuning(Part):
    """LoRA fine-tuning (paper section 3.2)."""

    rank: Count = Field(description="of the two matrices that are trained beside each weight: how far it can move")
    alpha: Count = Field(description="the update is scaled by alpha / rank")
    dropout: Fraction = Field(description="share of a layer's inputs that its adapter does not see in a step")
    vision_tower: Literal["lora", "frozen"] = Field(description="adapted as the rest, or left as it was pretrained")
    learning_rate: Rate = Field(description="of AdamW at its highest; too low and the answers are not learned")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW, on the adapters' weights")
    warmup_ratio: Fraction = Field(description="share of the steps in which the rate rises; it falls as a cosine then")
    max_gradient_norm: Annotated[float, Field(gt=0)] = Field(description="longer gradients are cut to this length")
    epochs: Count = Field(description="passes over the training images; the adapter of the last one is used")
    batch_size: Count = Field(description="images a step, of all processes together")
    length_grouped: bool = Field(description="batches of images of similar size, so that little is padded")
    runs: Count = Field(description="adapters trained with nothing but another seed: what they differ by is chance")
    precision: Precision = Field(description="of the model's weights in every stage, unless its card says another")
    gradient_checkpointing: bool = Field(description="saves memory by computing activations twice; changes no result")


class VisionTraining(Part):
    """The vision tower frozen, or trained alone with a linear layer and cross-entropy (paper, Tables 2 and 3). Images,
    epochs, batch and schedule are those of `fine_tuning`, so that all have one budget."""

    runs: Count = Field(description="of a fine-tuning with the tower frozen, and of a tower alone: the first seeds")
    learning_rate_all: Rate = Field(description="of AdamW at its highest, where all weights of the tower are trained")
    learning_rate_lora: Rate = Field(description="the same where LoRA is trained beside the tower's linear layers")


class Answering(Part):
    max_new_tokens: Count = Field(description="an answer is cut off here")
    batch_size: Count = Field(description="images at a time; changes no result")
    shard_images: Count = Field(description="images after which a result is kept, should the run be killed")
