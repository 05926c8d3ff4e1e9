"""What every family defines: where its probe points are, how tokens map to images, how its weights are read."""

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
import transformers
from torch import nn
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from mlprobe_utils.common.errors import InputError

Pooler = Callable[[torch.Tensor], torch.Tensor]  # output of a module -> float32 [images, width]


@dataclass(frozen=True)
class ProbePoint:
    """A module whose output is probed, under a logical name (`V.07`, `C.01`, `L.12`)."""

    name: str
    path: str
    module: nn.Module

    @property
    def poolings(self) -> tuple[str, ...]:
        """`image_mean` everywhere; `last_token` in the LLM, the only place where text has a state."""
        return ("image_mean", "last_token") if self.name.startswith("L") else ("image_mean",)


class Family:
    """One architecture. A subclass holds everything that is specific to it: mostly, where modules are. The vision tower
    reads every image at one size, [images, tokens, width] throughout, unless the family is `Packed`."""

    model_class: ClassVar[str]  # of transformers
    hosted: ClassVar[tuple[str, ...]] = ()  # the hub's own classes whose weights the model class takes
    key_mapping: ClassVar[dict[str, str]] = {}  # names of hosted weights -> the model class's, regular expressions
    # what the processor returns; without any of it features change in silence
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "pixel_values")
    vision_tower: ClassVar[tuple[str, ...]]  # paths of all that is neither connector nor LLM
    vision_blocks: ClassVar[str]
    connector: ClassVar[tuple[str, ...]]
    connector_layers: ClassVar[tuple[str, ...]]  # its Linear layers (audit, point 3)
    side_path: ClassVar[str | None] = None  # modules whose outputs go around the connector
    llm: ClassVar[tuple[str, ...]] = ("model.language_model", "lm_head")
    decoder_layers: ClassVar[str] = "model.language_model.layers"

    def __init__(self, model: nn.Module):
        self.model = model

    def vision_pooler(self, inputs: dict) -> Pooler:
        """Means of each image's tokens at a vision block."""
        return partial(image_means, len(inputs["input_ids"]))

    connector_pooler = vision_pooler  # at a connector layer

    def vision_places(self, inputs: dict) -> list[slice | int]:
        """Each image's place in `pixel_values` and in every vision block's output: `output[place]` is a view of it."""
        return list(range(len(inputs["pixel_values"])))

    connector_places = vision_places  # in the output of the connector

    def heads(self, layer: nn.Module) -> tuple[nn.Module, int]:
        """What projects the outputs of the attention heads of a vision block or decoder layer, and one head's width."""
        attention = next(module for module in layer.modules() if hasattr(module, "head_dim"))
        names = [name for name in ("o_proj", "out_proj", "proj") if hasattr(attention, name)]
        return getattr(attention, names[0]), attention.head_dim

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        """Makes the processor reduce larger images. Raises InputError in a family that reads all at one size."""
        raise InputError(f"models of class {cls.model_class} read every image at one size: remove max_pixels")

    @classmethod
    def pad_to_square(cls, processor: ProcessorMixin) -> None:
        """Makes the processor pad images to squares. Raises InputError in a family that crops none."""
        raise InputError(f"models of class {cls.model_class} crop no image: remove pad_to_square")

    def blocks_read(self) -> int:
        """How many vision blocks, from the first, the connector's input depends on: all, unless a family says less."""
        return len(self.model.get_submodule(self.vision_blocks))

    def image_mask(self, inputs: dict) -> torch.Tensor:
        """Which LLM positions hold image tokens, bool [batch, tokens]."""
        return inputs["input_ids"] == self.model.config.image_token_id

    def text_places(self, inputs: dict) -> list[tuple]:
        """Where each image's tokens are in the LLM, as an index into the output of every decoder layer."""
        return list(enumerate(image_positions(self.image_mask(inputs))))

    def probe_points(self) -> list[ProbePoint]:
        """All probe points, in the order the data flows; `D` are those of a side path."""
        read = self._children(self.vision_blocks)[: self.blocks_read()]
        side = self._children(self.side_path) if self.side_path else []
        paths = {"V": read, "D": side, "C": self.connector_layers, "L": self._children(self.decoder_layers)}
        named = {f"{module}.{i:02d}": path for module, all_of in paths.items() for i, path in enumerate(all_of)}
        return [ProbePoint(name, path, self.model.get_submodule(path)) for name, path in named.items()]

    def poolers(self, inputs: dict) -> dict[str, Pooler]:
        """How the points' outputs are reduced, by `module/pooling`, on a batch of one image a row. RuntimeError where a
        part of what the processor returned is missing, or a prompt holds no image token."""
        if missing := [key for key in self.inputs if inputs.get(key) is None]:
            raise RuntimeError(f"{', '.join(missing)}: missing of what the processor returns, feed the model all of it")
        tokens = TextTokens(self.image_mask(inputs), inputs["attention_mask"])
        poolers = {"V/image_mean": self.vision_pooler(inputs)}
        poolers |= dict.fromkeys(("D/image_mean", "C/image_mean"), self.connector_pooler(inputs))
        return poolers | {"L/image_mean": tokens.image_mean, "L/last_token": tokens.last_token}

    @classmethod
    def parts(cls) -> dict[str, tuple[str, ...]]:
        """The paths of vision tower, connector and LLM, which hold every parameter once."""
        return {"vision tower": cls.vision_tower, "connector": cls.connector, "LLM": cls.llm}

    def not_adapted(self, frozen_vision_tower: bool) -> str | None:
        """peft's `exclude_modules`: blocks whose output nothing uses, and a frozen vision tower."""
        unread = self._children(self.vision_blocks)[self.blocks_read() :]
        return below(unread + [*self.vision_tower] * frozen_vision_tower)

    @classmethod
    def transformers_class(cls) -> type[transformers.PreTrainedModel]:
        return getattr(transformers, cls.model_class)

    @classmethod
    def config_of(cls, published: dict) -> PreTrainedConfig:
        """The model class's configuration from the content of a checkpoint's config.json."""
        return cls.transformers_class().config_class.from_dict(published)

    @classmethod
    def read_processor(cls, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
        """The checkpoint's own processor; `config` is from `config_of`. Raises what transformers raises."""
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)

    def _children(self, path: str) -> list[str]:
        return [f"{path}.{name}" for name, _ in self.model.get_submodule(path).named_children()]


class Packed(Family, ABC):
    """A vision tower that packs the tokens of all images, of any sizes, into one [tokens, width]."""

    @abstractmethod
    def merged(self, inputs: dict) -> torch.Tensor | int:
        """How many patches of an image become one token at the connector."""

    def lengths(self, inputs: dict, merged: torch.Tensor | int = 1) -> list[int]:
        return (inputs["image_grid_thw"].prod(dim=-1) // merged).tolist()

    def vision_pooler(self, inputs: dict, merged: torch.Tensor | int = 1) -> Pooler:
        return partial(packed_means, lengths=self.lengths(inputs, merged))

    def connector_pooler(self, inputs: dict) -> Pooler:
        return self.vision_pooler(inputs, self.merged(inputs))

    def vision_places(self, inputs: dict, merged: torch.Tensor | int = 1) -> list[slice | int]:
        ends = itertools.accumulate(self.lengths(inputs, merged), initial=0)
        return [slice(*place) for place in itertools.pairwise(ends)]

    def connector_places(self, inputs: dict) -> list[slice | int]:
        return self.vision_places(inputs, self.merged(inputs))

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        size = dict(processor.image_processor.size)
        earlier_names = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
        capped = {edge: min(size.get(edge) or size[name], pixels) for edge, name in earlier_names.items()}
        processor.image_processor.size = capped


class TextTokens:
    """Where a batch's image tokens and last tokens are in the LLM: found once a batch, before the pass."""

    def __init__(self, mask: torch.Tensor, attention: torch.Tensor):
        """`mask` (of image tokens) and `attention` are [batch, tokens], padded on either side."""
        self.shape, self.images = mask.shape, image_positions(mask)
        places = torch.arange(mask.shape[1], device=mask.device)
        self.last = torch.where(attention.bool(), places, -1).max(dim=1).values

    def image_mean(self, output: torch.Tensor) -> torch.Tensor:
        """Mean of each row's image tokens, float32 [batch, width]; padding need not be finite."""
        _check(output, *self.shape)
        first = self.images[0]
        if isinstance(first, slice) and all(place == first for place in self.images):  # one kernel for all
            return output[:, first].mean(dim=1, dtype=torch.float32)
        places = [place if isinstance(place, slice) else place.to(output.device) for place in self.images]
        rows = zip(output, places, strict=True)
        return torch.stack([row[place].mean(dim=0, dtype=torch.float32) for row, place in rows])

    def last_token(self, output: torch.Tensor) -> torch.Tensor:
        """The last token's state of each row, float32 [batch, width]."""
        _check(output, *self.shape)
        rows = torch.arange(len(output), device=output.device)
        return output[rows, self.last.to(output.device)].float()  # a model may lie on several devices


def image_positions(mask: torch.Tensor) -> list[slice | torch.Tensor]:
    """Each row's image tokens, from their mask, bool [batch, tokens]: a range, or positions where they form none."""
    rows, images = mask.cpu(), []
    if not rows.any(dim=1).all():
        raise RuntimeError("a prompt of the batch holds no image token")
    for row in rows:
        positions = row.nonzero().flatten()
        first, end = int(positions[0]), int(positions[-1]) + 1
        images.append(slice(first, end) if end - first == len(positions) else positions.to(mask.device))
    return images


def packed_means(output: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Mean of each image's tokens, float32 [images, width], of packed tokens [sum of lengths, width]."""
    _check(output, sum(lengths))
    if len(set(lengths)) == 1:  # one kernel for all
        return output.view(len(lengths), lengths[0], -1).mean(dim=1, dtype=torch.float32)
    return torch.stack([tokens.mean(dim=0, dtype=torch.float32) for tokens in output.split(lengths)])


def image_means(images: int, output: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Mean of each image's tokens from `first` on, float32 [images, width], of [images, tokens, width]."""
    _check(output, images, "tokens")
    return output[:, first:].mean(dim=1, dtype=torch.float32)


def _check(output: torch.Tensor, *expected: int | str) -> None:
    """Raises RuntimeError for a shape other than expected, before the width; a name stands for any number."""
    pairs = zip(output.shape, expected, strict=False)
    if output.ndim != len(expected) + 1 or not all(own == n or isinstance(n, str) for own, n in pairs):
        raise RuntimeError(f"expected [{', '.join(map(str, expected))}, width], got {list(output.shape)}")


def below(paths: Iterable[str]) -> str | None:
    """A regular expression for the names of all modules below any of these paths; None if there are none."""
    alternatives = "|".join(map(re.escape, paths))
    return rf"(.*\.)?({alternatives})(\..*)?" if alternatives else None
