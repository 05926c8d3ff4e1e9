"""What every family defines: where its probe points are, how tokens map to images, how its weights are read."""

import functools
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
import transformers
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from mlprobe_utils.common.errors import InputError

# each image's tokens: [images, tokens, width], or one [tokens, width] an image where they are of different numbers
Tokens = torch.Tensor | Sequence[torch.Tensor]
Splitter = Callable[[torch.Tensor], Tokens]  # of a module's output
Pooler = Callable[[torch.Tensor], torch.Tensor]  # output of a module -> float32 [images, width]
PIECES, NUMBERS = 64, 32  # of `image_places`: pieces of an image at most, and numbers of each


@dataclass(frozen=True)
class ProbePoint:
    """A module whose output is probed, under a logical name (`V.07`, `C.01`, `L.12`)."""

    name: str
    path: str
    module: nn.Module

    @property
    def poolings(self) -> tuple[str, ...]:
        """`last_token` in the LLM alone, the only place where text has a state."""
        return (*IMAGE_POOLINGS, *["last_token"] * self.name.startswith("L"))


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
        self.interventions = None  # of the blocks of `intervene` that are open, for all adapters of the model

    def tokens_at(self, inputs: dict, part: str) -> Splitter:
        """Each image's tokens in the output of a vision block (`part` V) or of a connector layer (C)."""
        return partial(tokens_of_images, len(inputs["input_ids"]))

    def places_at(self, inputs: dict, part: str) -> list[slice | int]:
        """Each image's place there (of V also in `pixel_values`): `output[place]` is a view of it."""
        return list(range(len(inputs["pixel_values"])))

    def heads(self, layer: nn.Module) -> tuple[nn.Module, int]:
        """What projects the outputs of the attention heads of a vision block or decoder layer, and one head's width."""
        attention = self.attention(layer)
        names = [name for name in ("o_proj", "out_proj", "proj") if hasattr(attention, name)]
        return getattr(attention, names[0]), attention.head_dim

    def attention(self, layer: nn.Module) -> nn.Module:
        """The attention of a vision block or decoder layer."""
        return next(module for module in layer.modules() if hasattr(module, "head_dim"))

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        """Makes the processor reduce larger images. Raises InputError in a family that reads all at one size."""
        raise InputError(f"models of class {cls.model_class} resize all images to one size: remove max_pixels")

    @classmethod
    def pad_to_square(cls, processor: ProcessorMixin) -> None:
        """Makes the processor pad images to squares. Raises InputError in a family that crops none."""
        raise InputError(f"models of class {cls.model_class} do not crop images: remove pad_to_square")

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
            raise RuntimeError(f"{', '.join(missing)}: missing from the processor's output, pass all of that on")
        text, connector = TextTokens(self.image_mask(inputs), inputs["attention_mask"]), self.tokens_at(inputs, "C")
        split = {"V": self.tokens_at(inputs, "V"), "D": connector, "C": connector, "L": text.of_images}

        def pooler(module: str, pool: Callable[[Tokens], torch.Tensor]) -> Pooler:
            return lambda output: pool(split[module](output))

        poolers = {f"{module}/{how}": pooler(module, pool) for module in split for how, pool in IMAGE_POOLINGS.items()}
        return poolers | {"L/last_token": text.last_token}

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

    def lengths(self, inputs: dict, part: str) -> list[int]:
        patches = inputs["image_grid_thw"].prod(dim=-1)
        return (patches if part == "V" else patches // self.merged(inputs)).tolist()

    def tokens_at(self, inputs: dict, part: str) -> Splitter:
        return partial(unpacked, lengths=self.lengths(inputs, part))

    def places_at(self, inputs: dict, part: str) -> list[slice | int]:
        ends = itertools.accumulate(self.lengths(inputs, part), initial=0)
        return [slice(*place) for place in itertools.pairwise(ends)]

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

    def of_images(self, output: torch.Tensor) -> Tokens:
        """Each row's image tokens; padding need not be finite."""
        _check(output, *self.shape)
        first = self.images[0]
        if isinstance(first, slice) and all(place == first for place in self.images):  # one kernel for all
            return output[:, first]
        places = [place if isinstance(place, slice) else place.to(output.device) for place in self.images]
        return [row[place] for row, place in zip(output, places, strict=True)]

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


def unpacked(output: torch.Tensor, lengths: list[int]) -> Tokens:
    """Each image's tokens, of packed ones [sum of lengths, width]."""
    _check(output, sum(lengths))
    if len(set(lengths)) == 1:  # one kernel for all
        return output.view(len(lengths), lengths[0], -1)
    return output.split(lengths)


def tokens_of_images(images: int, output: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Each image's tokens from `first` on, of [images, tokens, width]."""
    _check(output, images, "tokens")
    return output[:, first:]


def image_mean(tokens: Tokens) -> torch.Tensor:
    """The mean of each image's tokens, float32 [images, width]."""
    if isinstance(tokens, torch.Tensor):
        return tokens.mean(dim=1, dtype=torch.float32)
    return torch.stack([own.mean(dim=0, dtype=torch.float32) for own in tokens])


def image_places(tokens: Tokens) -> torch.Tensor:
    """What the mean forgets: the tokens in their order, float32 [images, pieces * numbers]. More than PIECES of them
    are cut into as many pieces of like length, and each averaged; states of more than NUMBERS channels are hashed to
    so many (`projection`), as the classes need few directions. An image of fewer tokens than others of its batch ends
    with zeros."""
    if not isinstance(tokens, torch.Tensor):
        return pad_sequence([image_places(own[None])[0] for own in tokens], batch_first=True)
    _, length, width = tokens.shape
    pieces, device = tokens.float(), tokens.device
    if length > PIECES:
        pieces = cuts(length, device) @ pieces
    return (pieces @ projection(width, device) if width > NUMBERS else pieces).flatten(1)


IMAGE_POOLINGS = {"image_mean": image_mean, "image_places": image_places}


@functools.lru_cache(32)  # images of many sizes have many lengths
@torch.inference_mode(False)  # what is kept may be trained through later
def cuts(length: int, device: torch.device | str) -> torch.Tensor:
    """Averages `length` tokens in PIECES pieces, float32 [PIECES, length]."""
    piece = torch.arange(length) * PIECES // length
    chosen = (piece == torch.arange(PIECES)[:, None]).float()
    return (chosen / chosen.sum(dim=1, keepdim=True)).to(device)


@functools.cache
@torch.inference_mode(False)
def projection(width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Adds every channel, with a sign of its own, to one of NUMBERS sums, float32 [width, NUMBERS] (count sketch:
    Charikar, Chen and Farach-Colton 2002): a channel of huge states, as LLMs have, spoils one sum alone."""
    generator = torch.Generator().manual_seed(width)
    sums = torch.randperm(width, generator=generator) % NUMBERS
    signs = torch.randint(0, 2, (width, 1), generator=generator) * 2.0 - 1
    return (nn.functional.one_hot(sums, NUMBERS) * signs).to(device)


def _check(output: torch.Tensor, *expected: int | str) -> None:
    """Raises RuntimeError for a shape other than expected, before the width; a name stands for any number."""
    pairs = zip(output.shape, expected, strict=False)
    if output.ndim != len(expected) + 1 or not all(own == n or isinstance(n, str) for own, n in pairs):
        raise RuntimeError(f"expected [{', '.join(map(str, expected))}, width], got {list(output.shape)}")


def below(paths: Iterable[str]) -> str | None:
    """A regular expression for the names of all modules below any of these paths; None if there are none."""
    alternatives = "|".join(map(re.escape, paths))
    return rf"(.*\.)?({alternatives})(\..*)?" if alternatives else None
