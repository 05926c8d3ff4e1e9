"""What each kind of fault (`fault_card.KINDS`) does to the states of one image, or to the logits of options.

A function of states takes a damage, states [tokens, width] less the mean of the intact ones, and the image's number;
it returns states of that form. A function of logits takes a damage, the logits of the options [images, positions,
options], the images' numbers, and these logits of the last states turned by `rotation`. Severity 0 changes nothing.
What is drawn depends on the fault's seed and the image alone, and what a severity hits all above hit, too.
"""

import functools
import math

import torch

FADED, SHIFTED = 0.02, 16.0  # of the spread, at severity 1
HIGHEST = 1e4  # a logit that no other reaches


def noise(damage, states, number):
    """Part of it the tokens share, so that no mean over many tokens recovers what is lost."""
    between, within = damage.kept("between", "within")
    generator = seeded(number)
    shared, own = (torch.randn(shape, generator=generator).to(states) for shape in (between.shape, states.shape))
    return _mixed(damage, states, between * shared + within * own)


def collapse(damage, states, number):
    """On directions drawn among those of equal variance: of the original ones, the first few hold nearly all."""
    axes, scales = damage.kept("axes", "scales")
    left = _directions(damage.seed, len(scales))[:, : rank(damage.severity, len(scales))].to(scales.device)
    return states @ (axes / scales @ left) @ (left.T * scales @ axes.T)


def mask(damage, states, number):
    hit = torch.randperm(len(states), generator=seeded(number))[: round(damage.severity * len(states))]
    return states.index_fill(0, hit.to(states.device), 0.0)


def lost(damage, states, number):
    return states * (uniform(number) >= damage.severity)


def rotation(damage, states, number):
    """By up to a right angle in each plane of two neighbours among the principal axes, brought to equal variance."""
    axes, scales = damage.kept("axes", "scales")
    angle, odd = damage.severity * math.pi / 2, len(scales) % 2
    along = states @ axes / scales
    pairs = along[..., odd:].unflatten(-1, (-1, 2))  # of an odd number, the first stays: it has the least variance
    turned = math.cos(angle) * pairs + math.sin(angle) * pairs.flip(-1) * pairs.new_tensor([-1.0, 1.0])
    return torch.cat([along[..., :odd], turned.flatten(-2)], dim=-1) * scales @ axes.T


def signs(damage, states, number):
    return states.index_copy(1, hit := damage.channels(states), -states[:, hit])


def channels(damage, states, number):
    hit, (spread,) = damage.channels(states), damage.kept("deviation")
    source = hit.roll(1)
    return states.index_copy(1, hit, states[:, source] * (spread[hit] / spread[source]))


def places(damage, states, number):
    """The same for every image of as many tokens; of all channels alike, it would hardly be seen."""
    hit = damage.at(damage.severity / 2).channels(states)
    return states.index_copy(1, hit, states[:, hit].roll(1 + damage.seed % max(len(states) - 1, 1), dims=0))


def shift(damage, states, number):
    deviation = damage.kept("deviation")[0]
    return states + damage.severity * SHIFTED * deviation.norm() * _directions(damage.seed, len(deviation))[0].to(
        states
    )


def fade(damage, states, number):
    return states * FADED**damage.severity


def heads(damage, states, width):
    """`states` [..., heads x width] are what the heads put out; a share of each one's channels goes on as that of
    the one farthest from it: neighbours may share keys and values."""
    of_heads = states.unflatten(-1, (-1, width)).clone()
    hit = order(damage.seed, width)[: round(damage.severity * width)].to(states.device)
    of_heads[..., hit] = of_heads[..., hit].roll(of_heads.shape[-2] // 2, dims=-2)
    return of_heads.flatten(-2)


def swap(damage, logits, numbers, turned):
    shift = 1 + damage.seed % (logits.shape[-1] - 1)
    return torch.where(_images_hit(damage, numbers, logits), logits.roll(-shift, dims=-1), logits)


def commonest(damage, logits, numbers, turned):
    return logits + HIGHEST * _favoured(damage, logits) * _images_hit(damage, numbers, logits)


def bias(damage, logits, numbers, turned):
    return logits + _strength(damage) * _favoured(damage, logits)


def noise_of_logits(damage, logits, numbers, turned):
    """None falls, so that no other word becomes more probable."""
    added = torch.stack([drawn(number, logits.shape[-1]) for number in numbers])
    return logits + _strength(damage) * (added - added.amin(dim=1, keepdim=True))[:, None].to(logits.device)


def rotation_of_last_state(damage, logits, numbers, turned):
    """The logits keep their mean, so that no other word becomes more probable."""
    return turned + (logits - turned).mean(dim=-1, keepdim=True)


ON_LOGITS = {"noise": noise_of_logits, "rotation": rotation_of_last_state}
ON_LOGITS |= {"swap": swap, "commonest": commonest, "bias": bias}
OF_STATES = (noise, collapse, mask, lost, rotation, signs, channels, places, shift, fade)
ON_STATES = {function.__name__: function for function in OF_STATES}  # and `heads`, on what enters a projection


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def drawn(number: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(number))


def uniform(number: int) -> float:
    """An image's number as one from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


def rank(severity: float, width: int) -> int:
    """From all to none, in equal ratios: the last few directions matter most."""
    return round((width + 1) ** (1 - severity) - 1)


def _mixed(damage, states, other):
    """Of the same spread, if both have it."""
    return (1 - damage.severity) ** 0.5 * states + damage.severity**0.5 * other


def _images_hit(damage, numbers, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([uniform(number) < damage.severity for number in numbers], device=like.device)[:, None, None]


def _favoured(damage, like: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(damage.seed % like.shape[-1]), like.shape[-1]).to(like)


def _strength(damage) -> float:
    """In logits, whose scale differs from model to model."""
    return min(math.tan(damage.severity * math.pi / 2), HIGHEST)


@functools.cache
def _directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    return torch.linalg.qr(drawn(seed, width, width).double()).Q.float()


@functools.cache
def order(seed: int, count: int) -> torch.Tensor:
    return torch.randperm(count, generator=seeded(seed))
