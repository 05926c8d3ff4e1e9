"""Networks of baselines, built from a card: images float [batch, 3, height, width] to logits [batch, classes]. Inside,
maps are [batch, channels, rows, columns], patches [batch, rows, columns, channels]."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import mlprobe_utils.models.compat

import timm
import torch
from timm.layers import ConvNormAct, DropPath, LayerNorm2d, Mlp
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, gelu, interpolate, pad, relu

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.pipeline.baseline_card import BaselineCard, Variant, check_installed

DROP_PATH = 0.1  # how often a network's, or a stage's, last block is skipped in training; the first one never is
normalised = partial(ConvNormAct, apply_act=False)  # a convolution that keeps the size at stride 1, without bias


class Residual(nn.Sequential):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + super().forward(states)


class S2MLP(nn.Module):
    """S2-MLP (Yu et al. 2022): patches mixed by shifting a quarter of the channels one patch each way; of any size."""

    def __init__(self, num_classes: int, width: int, depth: int, patch_size: int):
        super().__init__()
        if width % 4:
            raise ValueError(f"width must be a multiple of 4, found {width}")
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        self.blocks = nn.Sequential()
        for _ in range(depth):
            layers = nn.Linear(width, width), nn.GELU(), SpatialShift(), nn.Linear(width, width)
            self.blocks.append(Residual(nn.LayerNorm(width), *layers))
            self.blocks.append(Residual(nn.LayerNorm(width), Mlp(width, 4 * width)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).permute(0, 2, 3, 1)
        return self.head(self.norm(self.blocks(patches)).mean(dim=(1, 2)))


class SpatialShift(nn.Module):
    """Shifts a quarter of the channels each down, up, right and left by one patch; patches at the edge keep theirs."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        shifted = []
        for group, (axis, step) in zip(patches.chunk(4, dim=-1), ((1, -1), (1, 1), (2, -1), (2, 1)), strict=True):
            places = torch.arange(group.shape[axis], device=group.device) + step
            shifted.append(group.index_select(axis, places.clamp(0, group.shape[axis] - 1)))
        return torch.cat(shifted, dim=-1)


class ConvMLP(nn.Module):
    """ConvMLP (Li et al. 2023): convolutions, then MLPs over channels that a depthwise convolution connects; of any
    size. `channels` are those of tokenizer and convolutional stage, `convolutions` the latter's blocks."""

    def __init__(
        self, num_classes: int, channels: int, convolutions: int, depths: Sequence[int], widths: Sequence[int]
    ):
        super().__init__()
        wide, stem = widths[0], pairwise([3, channels // 2, channels // 2, channels])
        self.tokenizer = nn.Sequential(*[ConvNormAct(*pair, 3, 1 + (i == 0)) for i, pair in enumerate(stem)])
        self.pool = nn.MaxPool2d(3, 2, 1)
        layers = [(channels, wide, 1), (wide, wide, 3), (wide, channels, 1)]
        blocks = [Residual(*[ConvNormAct(*layer) for layer in layers]) for _ in range(convolutions)]
        self.convolutions = nn.Sequential(*blocks)
        self.into = nn.Conv2d(channels, wide, 3, 2, 1)
        rates = [torch.linspace(0, DROP_PATH, depth).tolist() for depth in depths]
        stages = [[MLPBlock(width, rate) for rate in own] for width, own in zip(widths, rates, strict=True)]
        self.stages = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages])
        self.between = nn.ModuleList([*(nn.Conv2d(*pair, 3, 2, 1) for pair in pairwise(widths)), nn.Identity()])
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        for layer in self.modules():  # as the authors draw initial weights
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.into(self.convolutions(self.pool(self.tokenizer(images))))
        for stage, after in zip(self.stages, self.between, strict=True):
            maps = after(stage(maps))
        return self.head(self.norm(maps.permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class MLPBlock(nn.Module):
    """An MLP over channels, a depthwise convolution, and another MLP; of maps."""

    def __init__(self, width: int, drop_path: float):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.mlps = nn.ModuleList([Mlp(width, 2 * width) for _ in range(2)])
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        patches = maps.permute(0, 2, 3, 1)
        patches = patches + self.drop_path(self.mlps[0](self.norms[0](patches)))
        patches = self.connect(self.norms[1](patches).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        patches = patches + self.drop_path(self.mlps[1](self.norms[2](patches)))
        return patches.permute(0, 3, 1, 2)


class HiFuse(nn.Module):
    """HiFuse (Huo et al. 2024): a local (ConvNeXt) and a global branch (Swin), fused stage by stage, each with the
    fusion before. Of any size from 32 pixels; windows are laid out for `img_size`, others padded. Channels double."""

    def __init__(self, num_classes: int, img_size: int, width: int, depths: Sequence[int], heads: Sequence[int]):
        super().__init__()
        widths = [width * 2**stage for stage in range(len(depths))]
        stages = {"features_only": True, "depths": tuple(depths)}
        self.local_branch = timm.create_model("convnext_tiny", dims=tuple(widths), **stages)
        stages |= {"num_heads": tuple(heads), "drop_path_rate": DROP_PATH, "img_size": img_size}
        swin = "swin_tiny_patch4_window7_224"
        self.global_branch = timm.create_model(swin, embed_dim=width, strict_img_size=False, **stages)
        self.fusions = nn.ModuleList([Fusion(own, first=own == width) for own in widths])
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fused, (height, width) = None, images.shape[-2:]
        images = pad(images, (0, -width % 4, 0, -height % 4))  # both branches begin with patches of 4 pixels
        near, far = self.local_branch(images), self.global_branch(images)
        for fuse, of_near, of_far in zip(self.fusions, near, far, strict=True):
            # where a side is odd the one branch drops what the other pads
            fused = fuse(of_near, adaptive_avg_pool2d(of_far.permute(0, 3, 1, 2), of_near.shape[-2:]), fused)
        return self.head(self.norm(fused.mean(dim=(2, 3))))


class Fusion(nn.Module):
    """HiFuse's feature fusion of a stage: the maps of each branch, and those fused before, to maps of the same width;
    channel attention weighs the global branch, spatial attention the local one."""

    def __init__(self, width: int, first: bool):
        super().__init__()
        self.attend_channels = Mlp(width, max(width // 16, 1), act_layer=nn.ReLU, bias=False, use_conv=True)
        self.attend_places = normalised(2, 1, 7)
        self.of_local, self.of_global = (normalised(width, width, 1, bias=True) for _ in range(2))
        self.of_fused = None if first else normalised(width // 2, width, 1, bias=True)
        sources = (2 if first else 3) * width
        self.join = nn.Sequential(LayerNorm2d(sources), normalised(sources, width, 1, bias=True), nn.GELU())
        self.norm = LayerNorm2d(3 * width)
        depthwise = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.mix = nn.Sequential(  # an inverted residual MLP
            Residual(depthwise, nn.GELU()),
            nn.BatchNorm2d(3 * width),
            nn.Conv2d(3 * width, 12 * width, 1, bias=False),
            nn.GELU(),
            normalised(12 * width, width, 1),
        )

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


class ConvSdMLPMixer(nn.Module):
    """Conv-SdMLPMixer (Ren et al. 2025): a CNN whose stages double the `width`, with MLPs over rows, columns and
    channels between the second and third: over patches of several sizes that share, as in the authors' code, the upper
    right corner, added up from the smallest on. Unlike there, outputs go back to where they came from."""

    PATCHES = (4 / 28, 8 / 28, 16 / 28, 24 / 28, 1.0)  # sides of the patches as shares of the map's, 28 at 224 pixels
    STAGES_BEFORE = 2  # the MLPs

    def __init__(self, num_classes: int, img_size: int, width: int, depths: Sequence[int]):
        super().__init__()
        self.stem = MultiPath(3, width, stride=2)
        self.stages = nn.ModuleList()
        for depth in depths:  # of inverted bottlenecks: paths, then an MLP over channels at every place
            blocks = [(width, 2 * width, 2), *[(2 * width, 2 * width, 1)] * (depth - 1)]
            mlps = [(Mlp(block[1], 4 * block[0], use_conv=True), MultiPath(*block)) for block in blocks]
            self.stages.append(nn.Sequential(*[layer for mlp, paths in mlps for layer in (paths, mlp)]))
            width *= 2
        self.head = nn.Linear(width, num_classes)
        side = -(-img_size // 2 ** (1 + self.STAGES_BEFORE))  # halved by the stem and each stage, rounded up
        inside = width // 2 ** (len(depths) - self.STAGES_BEFORE)
        self.patches = sorted({max(round(share * side), 1) for share in self.PATCHES})
        axes = [((2, patch), (3, patch), (1, inside)) for patch in self.patches]
        self.mlps = nn.ModuleList([nn.Sequential(*[AxisMLP(*axis, inside) for axis in own]) for own in axes])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = gelu(self.stem(images))
        for number, stage in enumerate(self.stages):
            if number == self.STAGES_BEFORE:
                # the patches' outputs, each enlarged to the next larger patch and added to it
                sides = zip(self.patches, self.mlps, strict=True)
                summed, *larger = [mlp(maps[:, :, :side, -side:]) for side, mlp in sides]
                for patch in larger:
                    summed = patch + interpolate(summed, patch.shape[-2:], mode="bilinear", align_corners=True)
                maps = maps + summed
            maps = stage(maps)
        return self.head(maps.mean(dim=(2, 3)))


class MultiPath(nn.Module):
    """Sum of a 3 x 3 and a 1 x 1 convolution (depthwise if channels stay) and, if the shape stays, the identity."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        groups = inside if inside == outside else 1
        self.paths = nn.ModuleList([normalised(inside, outside, size, stride, groups=groups) for size in (3, 1)])
        if inside == outside and stride == 1:
            self.paths.append(nn.BatchNorm2d(inside))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return sum(path(maps) for path in self.paths)


class AxisMLP(nn.Module):
    """An MLP over one axis of maps, with a residual connection; `size` is the axis's."""

    def __init__(self, axis: int, size: int, channels: int):
        super().__init__()
        self.axis, self.norm, self.mlp = axis, nn.LayerNorm(channels), Mlp(size, 4 * size)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        normed = self.norm(maps.movedim(1, -1)).movedim(-1, 1)
        return maps + gelu(self.mlp(normed.movedim(self.axis, -1))).movedim(-1, self.axis)


OWN = {"s2_mlp": S2MLP, "conv_mlp": ConvMLP, "hifuse": HiFuse, "conv_sdmlp_mixer": ConvSdMLPMixer}


def build(card: BaselineCard, which: str, classes: int, side: int, pretrained: bool = False) -> nn.Module:
    """A variant of a baseline ("full" or "small"): with timm's weights from the hub, or with random ones by torch's
    current seed. Raises InputError, which names the card, for whatever is wrong with it, its package or the side."""
    variant = card.variant(which)
    check_installed(card, which)
    place = f"data/baselines/{card.slug}.yml, {which}"
    if pretrained and variant.library != "timm":
        raise InputError(f"{place}: only timm's models have pretrained weights; set baselines.pretrained to false")
    arguments = variant.arguments | {"num_classes": classes} | ({"img_size": side} if variant.sized else {})
    constructor = _constructor(variant, place)
    try:
        model = constructor(pretrained=True, **arguments) if pretrained else constructor(**arguments)
    except Exception as error:  # whatever a library raises for arguments that it does not take
        wrong = f"{variant.name} cannot be built{' with pretrained weights' if pretrained else ''} with {arguments}"
        raise InputError(f"{place}: {wrong}: {error}; correct its arguments") from error
    model.eval()
    try:
        with torch.no_grad():
            shape = model(torch.zeros(1, 3, side, side)).shape
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        mend = "give another baselines.side in the protocol, or correct the card's arguments"
        raise InputError(f"{place}: images of {side} px cannot be read ({error}); {mend}") from error
    if shape != (1, classes):
        raise InputError(f"{place}: gives {tuple(shape)} for one image, not (1, {classes}): it is no classifier")
    return model


def _constructor(variant: Variant, place: str) -> Callable[..., nn.Module]:
    """What builds a variant from keyword arguments. Raises InputError for a name that its library does not know."""
    if variant.library == "own":
        if variant.name not in OWN:
            raise unknown(f"network of mlprobe_utils/baselines in {place}", variant.name, OWN)
        return OWN[variant.name]
    if variant.library == "timm":
        module, _, architecture = variant.name.rpartition(".")
        if hasattr(timm.models, module):
            family = vars(getattr(timm.models, module))
            if architecture not in family:
                raise unknown(f"class of timm.models.{module} in {place}", architecture, family)
            return family[architecture]
        if not timm.is_model(variant.name):
            raise unknown(f"model of timm in {place}", variant.name, timm.list_models())
        return partial(timm.create_model, variant.name)
    import fastervit  # an extra: its licence allows no commercial use

    return partial(fastervit.create_model, variant.name)
