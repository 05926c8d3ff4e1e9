"""What every family answers: where its probe points are, how tokens map to images, which token is last."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from mlprobe_utils.families.pooling import find_text_tokens, last_states, packed_means, text_means

Pooler = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ProbePoint:
    """A place in the model whose output is probed: logical name (`V.07`, `C.01`, `L.12`) and the torch module."""

    name: str
    module: nn.Module

    @property
    def poolings(self) -> tuple[str, ...]:
        """`image_mean` everywhere; `last_token` in the LLM, the only place where text has a state."""
        return ("image_mean", "last_token") if self.name.startswith("L") else ("image_mean",)


class Family(ABC):
    """One architecture. Subclasses hold everything that is specific to it."""

    model_class: ClassVar[str]
    vision_tower_pattern: ClassVar[str]  # peft module names to exclude when the vision tower stays frozen
    inputs: ClassVar[tuple[str, ...]]  # what the processor returns; without any of it features change in silence

    def __init__(self, model: nn.Module):
        self.model = model

    @abstractmethod
    def vision_blocks(self) -> list[nn.Module]:
        """Every vision block that the connector's input depends on, in the order of the data."""

    @abstractmethod
    def connector_layers(self) -> list[nn.Module]:
        """The connector's Linear layers (audit, point 3)."""

    @abstractmethod
    def decoder_layers(self) -> list[nn.Module]:
        """Every decoder layer of the LLM."""

    @abstractmethod
    def image_lengths(self, inputs: dict, module: str) -> torch.Tensor:
        """Number of tokens of each image, [images], at the output of the vision tower (`V`) or connector (`C`)."""

    def image_mask(self, inputs: dict) -> torch.Tensor:
        """Which LLM positions hold image tokens, bool [batch, tokens]."""
        return inputs["input_ids"] == self.model.config.image_token_id

    def probe_points(self) -> list[ProbePoint]:
        """All probe points, in the order the data flows."""
        groups = {"V": self.vision_blocks(), "C": self.connector_layers(), "L": self.decoder_layers()}
        return [ProbePoint(f"{m}.{i:02d}", layer) for m, layers in groups.items() for i, layer in enumerate(layers)]

    def poolers(self, inputs: dict) -> dict[str, Pooler]:
        """How the points' outputs on one batch are reduced: `module/pooling` -> function of the output.

        Every function takes [packed tokens, width] in vision tower and connector or [batch, tokens, width] in the LLM,
        and gives float32 [images, width]. Where the tokens are is looked up here, once a batch.

        Args:
            inputs: what the processor returned for the batch, whole.

        Raises:
            RuntimeError: a part of it is missing; a prompt without an image token.
        """
        if missing := [key for key in self.inputs if inputs.get(key) is None]:
            raise RuntimeError(f"{', '.join(missing)}: missing of what the processor returns, feed the model all of it")
        lengths = {module: self.image_lengths(inputs, module).tolist() for module in "VC"}
        tokens = find_text_tokens(self.image_mask(inputs), inputs["attention_mask"])
        return {
            "V/image_mean": lambda output: packed_means(output, lengths["V"]),
            "C/image_mean": lambda output: packed_means(output, lengths["C"]),
            "L/image_mean": lambda output: text_means(output, tokens),
            "L/last_token": lambda output: last_states(output, tokens),
        }
