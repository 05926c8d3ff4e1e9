"""Families whose vision tower packs the tokens of all images, of whatever sizes, into one [tokens, width]."""

import itertools
from abc import abstractmethod
from functools import partial

import torch
from transformers import ProcessorMixin

from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.families.pooling import Pooler, packed_means

EDGES = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}  # pixels of an image, by their earlier names


class Packed(Family):
    """Images keep their sizes; `image_grid_thw` says how many patches of which image follow each other."""

    @abstractmethod
    def merged(self, inputs: dict) -> torch.Tensor | int:
        """How many patches of an image become one token at the connector."""

    def vision_pooler(self, inputs: dict) -> Pooler:
        return partial(packed_means, lengths=_patches(inputs).tolist())

    def connector_pooler(self, inputs: dict) -> Pooler:
        return partial(packed_means, lengths=(_patches(inputs) // self.merged(inputs)).tolist())

    def vision_places(self, inputs: dict) -> list[slice | int]:
        ends = itertools.accumulate(_patches(inputs).tolist(), initial=0)
        return [slice(*place) for place in itertools.pairwise(ends)]

    @classmethod
    def cap_pixels(cls, processor: ProcessorMixin, pixels: int) -> None:
        size = dict(processor.image_processor.size)
        fewest, most = (size.get(edge) or size[old] for edge, old in EDGES.items())
        processor.image_processor.size = {"shortest_edge": min(fewest, pixels), "longest_edge": min(most, pixels)}


def _patches(inputs: dict) -> torch.Tensor:
    """Of each image, int [images]."""
    return inputs["image_grid_thw"].prod(dim=-1)
