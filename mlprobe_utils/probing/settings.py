"""Settings of features and probes."""

from typing import Annotated, Literal

from pydantic import Field

from mlprobe_utils.common.settings import Count, Fraction, Part, Rate


class Extraction(Part):
    batch_size: Count = Field(description="images at a time; changes no result")
    shard_images: Count = Field(description="images after which features are kept, should the run be killed")


class Interventions(Part):
    pairs: Count = Field(description="of images of two classes, whose states are edited")
    images: Count = Field(description="test images of which blocks are left out, at most")
    every: Count = Field(description="of blocks and layers, each so-manieth is edited, and the last of each module")


class Probe(Part):
    """A probe and its training: the paper's two-layer MLP (section 3.2), or a linear one, without hidden layer."""

    kind: Literal["mlp", "linear"] = Field(description="two layers with ReLU between them, or one layer")
    hidden: Count = Field(description="units between the two layers of an MLP")
    dropout: Fraction = Field(description="share of the hidden units of an MLP that a step does not see")
    learning_rate: Rate = Field(description="of AdamW at its highest")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="of AdamW")
    warmup_ratio: Fraction = Field(description="share of the steps in which the rate rises; it falls as a cosine then")
    epochs: Count = Field(description="passes over the training images; the probe of the last one is used")
    batch_size: Count = Field(description="images a step")
    standardised: bool = Field(description="each feature has mean 0 and variance 1 over the training images")
    training_fraction: Rate = Field(
        description="share of the training images, of each class; what a smaller share draws, a larger one has too"
    )
