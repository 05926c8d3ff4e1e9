"""ConvMLP (Li et al. 2023): convolutions first, then MLPs over channels that a depthwise convolution connects.

Written from the paper's description; its *S* form has stages of 2, 4 and 2 blocks with 128, 256 and 512 channels.
"""

from collections.abc import Sequence
from itertools import pairwise

import mlprobe_utils.models.compat

import torch
from timm.layers import DropPath, Mlp
from torch import nn


class ConvMLP(nn.Module):
    """Images float [batch, 3, height, width] of any size -> logits [batch, classes].

    Args:
        channels: of the tokenizer and the convolutional stage.
        convolutions: blocks of the convolutional stage.
        depths, widths: blocks and channels of each MLP stage.
        expansion: of the MLPs.
        drop_path: how often the last block of a stage is passed over in training; of the first it is never.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        convolutions: int,
        depths: Sequence[int],
        widths: Sequence[int],
        expansion: int = 2,
        drop_path: float = 0.1,
    ):
        super().__init__()
        half = channels // 2
        self.tokenizer = nn.Sequential(
            *convolution(3, half, 3, stride=2), *convolution(half, half, 3), *convolution(half, channels, 3)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.convolutions = nn.ModuleList([bottleneck(channels, widths[0]) for _ in range(convolutions)])
        self.into = halving(channels, widths[0])
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*[Block(width, expansion, float(rate)) for rate in torch.linspace(0, drop_path, depth)])
                for depth, width in zip(depths, widths, strict=True)
            ]
        )
        self.between = nn.ModuleList([*(halving(*pair) for pair in pairwise(widths)), nn.Identity()])
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        self.apply(initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.pool(self.tokenizer(images))
        for block in self.convolutions:
            maps = maps + block(maps)
        maps = self.into(maps)
        for stage, after in zip(self.stages, self.between, strict=True):
            maps = after(stage(maps))
        return self.head(self.norm(maps.permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class Block(nn.Module):
    """An MLP over channels, a depthwise convolution, and another MLP; [batch, width, rows, columns]."""

    def __init__(self, width: int, expansion: int, drop_path: float):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.mlps = nn.ModuleList([Mlp(width, expansion * width) for _ in range(2)])
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        before, connecting, behind = self.norms
        one, other = self.mlps
        patches = maps.permute(0, 2, 3, 1)
        patches = patches + self.drop_path(one(before(patches)))
        patches = self.connect(connecting(patches).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        patches = patches + self.drop_path(other(behind(patches)))
        return patches.permute(0, 3, 1, 2)


def initialise(layer: nn.Module) -> None:
    """First weights as the authors draw them."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def convolution(inside: int, outside: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size at stride 1, its normalisation, and ReLU."""
    layer = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outside), nn.ReLU()]


def bottleneck(channels: int, hidden: int) -> nn.Sequential:
    """The convolutional stage's block: 1 x 1, 3 x 3, 1 x 1."""
    return nn.Sequential(
        *convolution(channels, hidden, 1), *convolution(hidden, hidden, 3), *convolution(hidden, channels, 1)
    )


def halving(inside: int, outside: int) -> nn.Conv2d:
    """A convolution that halves both sides of a map."""
    return nn.Conv2d(inside, outside, 3, 2, 1)
