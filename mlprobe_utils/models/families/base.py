"""What every family answers: where its probe points are, how tokens map to images, how its weights are read."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import transformers
from torch import nn
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from mlprobe_utils.models.families.pooling import Pooler, TextTokens, image_positions


@dataclass(frozen=True)
class ProbePoint:
    """A place in the model whose output is probed: logical name (`V.07`, `C.01`, `L.12`), path and torch module."""

    name: str
    path: str
    module: nn.Module

    @property
    def poolings(self) -> tuple[str, ...]:
        """`image_mean` everywhere; `last_token` in the LLM, the only place where text has a state."""
        return ("image_mean", "last_token") if self.name.startswith("L") else ("image_mean",)


class Family(ABC):
    """One architecture. A subclass holds everything that is specific to it: mostly, where modules are."""

    model_class: ClassVar[str]  # of transformers
    hosted: ClassVar[tuple[str, ...]] = ()  # the hub's own classes whose weights the model class takes
    key_mapping: ClassVar[dict[str, str]] = {}  # names of hosted weights -> the model class's, regular expressions
    inputs: ClassVar[tuple[str, ...]]  # what the processor returns; without any of it features change in silence
    vision_tower: ClassVar[tuple[str, ...]]  # paths of all that is neither connector nor LLM
    vision_blocks: ClassVar[str]
    connector: ClassVar[tuple[str, ...]]
    connector_layers: ClassVar[tuple[str, ...]]  # its Linear layers (audit, point 3)
    side_path: ClassVar[str | None] = None  # modules whose outputs go around the connector
    llm: ClassVar[tuple[str, ...]] = ("model.language_model", "lm_head")
    decoder_layers: ClassVar[str] = "model.language_model.layers"

    def __init__(self, model: nn.Module):
        self.model = model

    @abstractmethod
    def vision_pooler(self, inputs: dict) -> Pooler:
        """Means of each image's tokens at a vision block: block's output -> float32 [images, width]."""

    @abstractmethod
    def connector_pooler(self, inputs: dict) -> Pooler:
        """Means of each image's tokens at a connector layer: layer's output -> float32 [images, width]."""

    @abstractmethod
    def vision_places(self, inputs: dict) -> list[slice | int]:
        """Where each image is, as an index into `pixel_values` and into the output of every vision block.

        Needs nothing of the text. `output[index]` is [tokens, width] and can be assigned to, here and in the LLM.
        """

    @classmethod
    @abstractmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        """Makes the processor reduce images of more pixels.

        Raises:
            InputError: the family reads all images at one size.
        """

    def blocks_read(self) -> int:
        """How many vision blocks, from the first, the connector's input depends on: all, unless a family says less."""
        return len(self.model.get_submodule(self.vision_blocks))

    def image_mask(self, inputs: dict) -> torch.Tensor:
        """Which LLM positions hold image tokens, bool [batch, tokens]."""
        return inputs["input_ids"] == self.model.config.image_token_id

    def text_places(self, inputs: dict) -> list[tuple]:
        """Where each image's tokens are in the LLM, as an index into the output of every decoder layer.

        Raises:
            RuntimeError: a prompt without an image token.
        """
        return list(enumerate(image_positions(self.image_mask(inputs))))

    def probe_points(self) -> list[ProbePoint]:
        """All probe points, in the order the data flows; `D` are those of a side path."""
        paths = {
            "V": self._children(self.vision_blocks)[: self.blocks_read()],
            "D": self._children(self.side_path) if self.side_path else [],
            "C": self.connector_layers,
            "L": self._children(self.decoder_layers),
        }
        named = [(f"{module}.{i:02d}", path) for module, all_of in paths.items() for i, path in enumerate(all_of)]
        return [ProbePoint(name, path, self.model.get_submodule(path)) for name, path in named]

    def poolers(self, inputs: dict) -> dict[str, Pooler]:
        """How the points' outputs on one batch are reduced: `module/pooling` -> output -> float32 [images, width].

        Args:
            inputs: what the processor returned for the batch, whole; one image a row.

        Raises:
            RuntimeError: a part of it is missing; a prompt without an image token.
        """
        if missing := [key for key in self.inputs if inputs.get(key) is None]:
            raise RuntimeError(f"{', '.join(missing)}: missing of what the processor returns, feed the model all of it")
        tokens = TextTokens(self.image_mask(inputs), inputs["attention_mask"])
        connector = self.connector_pooler(inputs)
        poolers = {"V/image_mean": self.vision_pooler(inputs), "D/image_mean": connector, "C/image_mean": connector}
        return poolers | {"L/image_mean": tokens.image_mean, "L/last_token": tokens.last_token}

    @classmethod
    def parts(cls) -> dict[str, tuple[str, ...]]:
        """The paths of vision tower, connector and LLM, which hold every parameter once."""
        return {"vision tower": cls.vision_tower, "connector": cls.connector, "LLM": cls.llm}

    def not_adapted(self, frozen_vision_tower: bool) -> str | None:
        """Which modules LoRA leaves out, as peft's `exclude_modules`: what nothing reads, and a frozen vision tower."""
        unread = self._children(self.vision_blocks)[self.blocks_read() :]
        return below([*unread, *(self.vision_tower if frozen_vision_tower else ())])

    @classmethod
    def transformers_class(cls) -> type[transformers.PreTrainedModel]:
        return getattr(transformers, cls.model_class)

    @classmethod
    def config_of(cls, published: dict) -> PreTrainedConfig:
        """The model class's configuration from the content of a checkpoint's config.json."""
        return cls.transformers_class().config_class.from_dict(published)

    @classmethod
    def is_hosted(cls, architectures: Sequence[str]) -> bool:
        """Whether a checkpoint is of one of the hub's own classes; `architectures` as its config.json names them."""
        return bool({*architectures} & {*cls.hosted})

    @classmethod
    def read_processor(cls, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
        """The checkpoint's own processor; `config` is from `config_of`. Raises what transformers raises."""
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)

    def _children(self, path: str) -> list[str]:
        return [f"{path}.{name}" for name, _ in self.model.get_submodule(path).named_children()]


def below(paths: Iterable[str]) -> str | None:
    """A regular expression for the names of all modules below any of these paths; None if there are none."""
    alternatives = "|".join(map(re.escape, paths))
    return rf"(.*\.)?({alternatives})(\..*)?" if alternatives else None
