"""Settings of features and probes."""

from typing import Annotated, Literal

from pydantic import Field

from mlprobe_utils.common.settings import Count, Fraction, Part, Rate


class Extraction(Part):
    batch_size: Count = Field(description="images at a time; does not change results")
    shard_images: Count = Field(description="images after which features are saved, in case the run is killed")


class Interventions(Part):
    pairs: Count = Field(description="pairs of images of two classes whose states are edited")
    images: Count = Field(description="maximum number of test images for skipping blocks")
    every: Count = Field(description="every n-th block or layer is edited, and the last of each module")


class Probe(Part):
    """A probe and its training: the paper's two-layer MLP (section 3.2), or a linear one, without hidden layer."""

    kind: Literal["mlp", "linear"] = Field(description="two layers with ReLU between them, or one layer")
    hidden: Count = Field(description="units between the two layers of an MLP")
    dropout: Fraction = Field(description="share of the hidden units of an MLP that a step drops")
    learning_rate: Rate = Field(description="peak rate of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW")
    warmup_ratio: Fraction = Field(description="share of the steps with a rising rate; a cosine decay follows")
    epochs: Count = Field(description="passes over the training images; the last probe is used")
    batch_size: Count = Field(description="images per step")
    standardised: bool = Field(description="each feature has mean 0 and variance 1 over the training images")
    training_fraction: Rate = Field(
        description="share of the training images of each class; smaller shares are subsets of larger ones"
    )
