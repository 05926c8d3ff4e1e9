"""HiFuse (Huo et al. 2024): a local and a global branch whose stages are fused, each with what was fused before.

The branches are timm's ConvNeXt and Swin transformer; the fusion block is written from the paper's description, with
its inverted residual MLP. The *Tiny* form has two blocks in each of the four stages of either branch.
"""

from collections.abc import Sequence

import mlprobe_utils.models.compat

import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, gelu, pad, relu

REDUCTION = 16  # of the channels in the attention over them
LOCAL, GLOBAL = "convnext_tiny", "swin_tiny_patch4_window7_224"  # of which everything that differs is replaced


class HiFuse(nn.Module):
    """Images float [batch, 3, height, width] of any size from 32 pixels on -> logits [batch, classes].

    Args:
        img_size: that the windows of attention are laid out for; other sizes are padded to whole windows.
        width: channels of the first stage; each later stage has twice as many.
        depths: blocks of each of the four stages, in either branch.
        heads: of attention, in each stage.
        window: side of a window of attention, in patches of 4 pixels.
        drop_path: how often the last block of the global branch is passed over in training.
    """

    def __init__(
        self,
        num_classes: int,
        img_size: int,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int = 7,
        drop_path: float = 0.1,
    ):
        super().__init__()
        widths = [width * 2**stage for stage in range(len(depths))]
        stages = {"features_only": True, "depths": tuple(depths)}
        self.local_branch = timm.create_model(LOCAL, dims=tuple(widths), **stages)
        attention = {"num_heads": tuple(heads), "window_size": window, "drop_path_rate": drop_path}
        size = {"img_size": img_size, "strict_img_size": False}
        self.global_branch = timm.create_model(GLOBAL, embed_dim=width, **attention, **size, **stages)
        self.fusions = nn.ModuleList([Fusion(own, first=own == width) for own in widths])
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fused, patch = None, 4  # pixels; both branches begin with patches of this side
        height, width = images.shape[-2:]
        images = pad(images, (0, -width % patch, 0, -height % patch))
        near, far = self.local_branch(images), self.global_branch(images)
        for fuse, of_near, of_far in zip(self.fusions, near, far, strict=True):
            # where a side is odd the one branch drops what the other pads
            fused = fuse(of_near, adaptive_avg_pool2d(of_far.permute(0, 3, 1, 2), of_near.shape[-2:]), fused)
        return self.head(self.norm(fused.mean(dim=(2, 3))))


class Fusion(nn.Module):
    """The hierarchical feature fusion block of a stage: [batch, width, rows, columns] of each branch -> the same.

    Args:
        first: whether it is the first stage's, before which nothing was fused.
    """

    def __init__(self, width: int, first: bool):
        super().__init__()
        squeezed = max(width // REDUCTION, 1)
        self.attend_channels = nn.Sequential(
            nn.Conv2d(width, squeezed, 1, bias=False), nn.ReLU(), nn.Conv2d(squeezed, width, 1, bias=False)
        )
        self.attend_places = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))
        self.of_local, self.of_global = normalised(width, width), normalised(width, width)
        self.of_fused = None if first else normalised(width // 2, width)
        sources = (2 if first else 3) * width
        self.join = nn.Sequential(LayerNorm2d(sources), *normalised(sources, width), nn.GELU())
        self.norm = LayerNorm2d(3 * width)
        self.mix = InvertedResidualMLP(3 * width, width)

    def forward(self, near: torch.Tensor, far: torch.Tensor, fused: torch.Tensor | None) -> torch.Tensor:
        sources, before = [self.of_local(near), self.of_global(far)], 0.0
        if self.of_fused is not None:
            before = adaptive_avg_pool2d(relu(self.of_fused(fused)), near.shape[-2:])
            sources.insert(0, before)
        joined = self.join(torch.cat(sources, dim=1))
        places = torch.cat([near.amax(dim=1, keepdim=True), near.mean(dim=1, keepdim=True)], dim=1)
        near = near * torch.sigmoid(self.attend_places(places))
        pooled = [self.attend_channels(pool(far, 1)) for pool in (adaptive_max_pool2d, adaptive_avg_pool2d)]
        far = far * torch.sigmoid(sum(pooled))
        return before + self.mix(self.norm(torch.cat([far, near, joined], dim=1)))


class InvertedResidualMLP(nn.Module):
    """A depthwise convolution added to what it reads, then an MLP that widens four times."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.widen = nn.Conv2d(inside, 4 * inside, 1, bias=False)
        self.narrow = nn.Sequential(nn.Conv2d(4 * inside, outside, 1, bias=False), nn.BatchNorm2d(outside))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.norm(maps + gelu(self.depthwise(maps)))
        return self.narrow(gelu(self.widen(maps)))


def normalised(inside: int, outside: int) -> nn.Sequential:
    """A 1 x 1 convolution and its normalisation."""
    return nn.Sequential(nn.Conv2d(inside, outside, 1), nn.BatchNorm2d(outside))
