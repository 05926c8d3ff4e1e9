"""Conv-SdMLPMixer (Ren et al. 2025): a multi-branch CNN with MLPs over rows, columns and channels in its middle.

Written from the paper's description: *multi-path inverted residual bottleneck* blocks, and between the second and the
third stage the *SdMLP* over overlapping patches of several sizes, added up from the smallest to the largest. Where the
patches lie the description leaves open; as in the authors' code they share the upper right corner. That code brings
MLP outputs back by a reshape that mixes places and channels; here they go back to where they came from.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import gelu, interpolate

PATCHES = (4 / 28, 8 / 28, 16 / 28, 24 / 28, 1.0)  # sides of the patches, as shares of the map's: 28 at 224 pixels
EXPANSION = 4
STAGES_BEFORE = 2  # as many stages come before the MLPs


class ConvSdMLPMixer(nn.Module):
    """Images float [batch, 3, img_size, img_size] -> logits [batch, classes].

    Args:
        img_size: of the images, in pixels: MLPs over rows and columns are of one size.
        width: channels behind the first convolution; every stage has twice as many as the one before.
        depths: blocks of each of the four stages.
    """

    def __init__(self, num_classes: int, img_size: int, width: int, depths: Sequence[int]):
        super().__init__()
        self.stem = MultiPath(3, width, stride=2)
        self.stages = nn.ModuleList()
        for depth in depths:
            blocks = [bottleneck(width, 2 * width, stride=2)]
            width *= 2
            blocks += [bottleneck(width, width, stride=1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Linear(width, num_classes)
        side = img_size
        for _ in range(1 + STAGES_BEFORE):
            side = (side + 1) // 2
        inside = width // 2 ** (len(depths) - STAGES_BEFORE)
        self.patches = sorted({max(round(share * side), 1) for share in PATCHES})
        self.mlps = nn.ModuleList([nn.Sequential(*over_all(patch, inside)) for patch in self.patches])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = gelu(self.stem(images))
        for number, stage in enumerate(self.stages):
            if number == STAGES_BEFORE:
                maps = maps + self.aggregated(maps)
            maps = stage(maps)
        return self.head(maps.mean(dim=(2, 3)))

    def aggregated(self, maps: torch.Tensor) -> torch.Tensor:
        """The patches' outputs, each enlarged to the next larger patch and added to it."""
        sides = zip(self.patches, self.mlps, strict=True)
        smallest, *larger = [mlp(maps[:, :, :side, -side:]) for side, mlp in sides]
        for patch in larger:
            smallest = patch + interpolate(smallest, patch.shape[-2:], mode="bilinear", align_corners=True)
        return smallest


class MultiPath(nn.Module):
    """Paths of a 3 x 3 convolution, a 1 x 1 one and, where the shape stays, none, each normalised, added up.

    Where the number of channels stays, each channel is convolved for itself.
    """

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        groups = inside if inside == outside else 1
        self.paths = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False),
                    nn.BatchNorm2d(outside),
                )
                for size in (3, 1)
            ]
        )
        if inside == outside and stride == 1:
            self.paths.append(nn.BatchNorm2d(inside))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return sum(path(maps) for path in self.paths)


class OverAxis(nn.Module):
    """An MLP over one axis of maps [batch, channels, rows, columns], added to what it reads."""

    def __init__(self, axis: int, size: int, channels: int):
        super().__init__()
        self.axis, self.norm = axis, nn.LayerNorm(channels)
        self.widen, self.narrow = nn.Linear(size, EXPANSION * size), nn.Linear(EXPANSION * size, size)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        normed = self.norm(maps.movedim(1, -1)).movedim(-1, 1)
        mixed = gelu(self.narrow(gelu(self.widen(normed.movedim(self.axis, -1)))))
        return maps + mixed.movedim(-1, self.axis)


def bottleneck(inside: int, outside: int, stride: int) -> nn.Sequential:
    """The multi-path inverted residual bottleneck: paths, then an MLP over channels at every place."""
    hidden = EXPANSION * inside
    mlp = nn.Sequential(nn.Conv2d(outside, hidden, 1), nn.GELU(), nn.Conv2d(hidden, outside, 1))
    return nn.Sequential(MultiPath(inside, outside, stride), mlp)


def over_all(patch: int, channels: int) -> list[OverAxis]:
    """MLPs over the rows, the columns and the channels of a patch."""
    return [OverAxis(axis, size, channels) for axis, size in ((2, patch), (3, patch), (1, channels))]
