"""S2-MLP (Yu et al. 2022): patches that mix by shifting groups of channels one patch in each of four directions.

Written from the paper's description; its *wide* form has 12 blocks of 768 channels on patches of 16 pixels.
"""

import mlprobe_utils.models.compat

import torch
from timm.layers import Mlp
from torch import nn

DIRECTIONS = 4


class S2MLP(nn.Module):
    """Images float [batch, 3, height, width] of any size of at least a patch -> logits [batch, classes].

    Args:
        width: channels, a multiple of 4: a quarter is shifted in each direction.
        expansion: of the MLP over channels.

    Raises:
        ValueError: a width that is no multiple of 4.
    """

    def __init__(self, num_classes: int, width: int, depth: int, patch_size: int, expansion: int = 4):
        super().__init__()
        if width % DIRECTIONS:
            raise ValueError(f"width must be a multiple of {DIRECTIONS}, found {width}")
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        self.blocks = nn.Sequential(*[Block(width, expansion) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).permute(0, 2, 3, 1)
        return self.head(self.norm(self.blocks(patches)).mean(dim=(1, 2)))


class Block(nn.Module):
    """A spatial-shift MLP and one over channels, each added to what it reads; [batch, rows, columns, width]."""

    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.norm_of_shift, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.before, self.after = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = Mlp(width, expansion * width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        mixed = nn.functional.gelu(self.before(self.norm_of_shift(patches)))
        patches = patches + self.after(spatial_shift(mixed))
        return patches + self.mlp(self.norm(patches))


def spatial_shift(patches: torch.Tensor) -> torch.Tensor:
    """Shifts a quarter of the channels each down, up, right and left by one patch; at the edge a patch keeps its own.

    Args:
        patches: [batch, rows, columns, channels].
    """
    down, up, right, left = patches.chunk(DIRECTIONS, dim=-1)
    shifted = [
        torch.cat([down[:, :1], down[:, :-1]], dim=1),
        torch.cat([up[:, 1:], up[:, -1:]], dim=1),
        torch.cat([right[:, :, :1], right[:, :, :-1]], dim=2),
        torch.cat([left[:, :, 1:], left[:, :, -1:]], dim=2),
    ]
    return torch.cat(shifted, dim=-1)
