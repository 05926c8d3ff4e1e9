"""What every family answers: where its probe points are, how tokens map to images, which token is last."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn


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

    def pool(self, point: str, output: torch.Tensor, inputs: dict) -> dict[str, torch.Tensor]:
        """Reduces a probe point's output to one vector an image: pooling name -> float32 [images, width].

        Args:
            point: logical name of the probe point.
            output: [packed tokens, width] in vision tower and connector, [batch, tokens, width] in the LLM.
            inputs: what the processor returned for the batch.

        Raises:
            RuntimeError: the output does not have the shape that the inputs imply.
        """
        if point.startswith("L"):
            return _pool_llm(point, output, self.image_mask(inputs), inputs["attention_mask"])
        return {"image_mean": _pool_packed(point, output, self.image_lengths(inputs, point[0]))}


def _pool_packed(point: str, output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    tokens = int(lengths.sum())
    if output.ndim != 2 or output.shape[0] != tokens:
        raise RuntimeError(f"{point}: expected [{tokens}, width], got {list(output.shape)}")
    image = torch.repeat_interleave(torch.arange(len(lengths), device=output.device), lengths)
    sums = torch.zeros(len(lengths), output.shape[1], device=output.device).index_add_(0, image, output.float())
    return sums / lengths[:, None]


def _pool_llm(point: str, output: torch.Tensor, mask: torch.Tensor, attention: torch.Tensor) -> dict[str, torch.Tensor]:
    if output.ndim != 3 or output.shape[:2] != mask.shape:
        raise RuntimeError(f"{point}: expected [{mask.shape[0]}, {mask.shape[1]}, width], got {list(output.shape)}")
    if not mask.any(dim=1).all():
        raise RuntimeError(f"{point}: a prompt of the batch holds no image token")
    positions = torch.arange(mask.shape[1], device=output.device)
    last = torch.where(attention.bool(), positions, -1).max(dim=1).values  # right for both paddings
    images = output.float().masked_fill(~mask[..., None], 0)  # not a product: states at padding need not be finite
    return {
        "image_mean": images.sum(dim=1) / mask.sum(dim=1, keepdim=True),
        "last_token": output[torch.arange(len(output), device=output.device), last].float(),
    }
