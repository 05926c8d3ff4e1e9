"""From a baseline's card to a network: built by timm, by another package, or by `networks`."""

from collections.abc import Callable
from functools import partial

import mlprobe_utils.models.compat

import timm
import torch
from torch import nn

from mlprobe_utils.baselines.networks import S2MLP, ConvMLP, ConvSdMLPMixer, HiFuse
from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.pipeline.baseline_card import BaselineCard, Variant, check_installed

OWN = {"s2_mlp": S2MLP, "conv_mlp": ConvMLP, "hifuse": HiFuse, "conv_sdmlp_mixer": ConvSdMLPMixer}


def build(card: BaselineCard, which: str, classes: int, side: int, pretrained: bool = False) -> nn.Module:
    """A variant of a baseline ("full" or "small"), which maps images float [batch, 3, side, side] to logits [batch,
    classes]: with timm's weights from the hub, or with random ones by torch's current seed.

    Raises InputError, which names the card, for whatever is wrong with the variant, its package or the images' side.
    """
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
        weights = " with pretrained weights" if pretrained else ""
        raise InputError(
            f"{place}: {variant.name} cannot be built{weights} with {arguments}: {error}; correct its arguments"
        ) from error
    model.eval()
    try:
        with torch.no_grad():
            shape = model(torch.zeros(1, 3, side, side)).shape
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{place}: images of {side} px cannot be read ({error}); give another baselines.side in the protocol, or "
            "correct the card's arguments"
        ) from error
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
