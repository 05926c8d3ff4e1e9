"""What each kind of fault (`fault_card.KINDS`) does to states or logits; severity 0 changes nothing. What is drawn
depends on the fault's seed and an image's number alone, and what one severity hits, all above hit, too."""

import functools
import math

import torch

FADED, SHIFTED = 0.02, 16.0  # of the spread, at severity 1
HIGHEST = 1e4  # a logit that no other reaches


def noise(damage, states, number):
    """Part of it the tokens share, so that no mean over many tokens recovers what is lost."""
    (between, within), generator = damage.kept("between", "within"), torch.Generator().manual_seed(number)
    shared, own = (torch.randn(shape, generator=generator).to(states) for shape in (between.shape, states.shape))
    return (1 - damage.severity) ** 0.5 * states + damage.severity**0.5 * (between * shared + within * own)


def collapse(damage, states, number):
    """On directions drawn among those of equal variance, as of the original ones the first few hold nearly all; their
    number falls by equal ratios, as the last few matter most."""
    (axes, scales), width = damage.kept("axes", "scales"), states.shape[-1]
    left = _directions(damage.seed, width)[:, : round((width + 1) ** (1 - damage.severity) - 1)].to(states)
    return states @ (axes / scales @ left) @ (left.T * scales @ axes.T)


def mask(damage, states, number):
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(number)).to(states.device)
    return states.index_fill(0, order[: round(damage.severity * len(states))], 0.0)


def rotation(damage, states, number):
    """By up to a right angle in each plane of two neighbours among the principal axes, brought to equal variance."""
    (axes, scales), odd, angle = damage.kept("axes", "scales"), states.shape[-1] % 2, damage.severity * math.pi / 2
    along = states @ axes / scales
    pairs = along[..., odd:].unflatten(-1, (-1, 2))  # of an odd number, the first stays: it has the least variance
    turned = math.cos(angle) * pairs + math.sin(angle) * pairs.flip(-1) * pairs.new_tensor([-1.0, 1.0])
    return torch.cat([along[..., :odd], turned.flatten(-2)], dim=-1) * scales @ axes.T


def channels(damage, states, number):
    hit, (spread,) = damage.channels(states), damage.kept("deviation")
    return states.index_copy(1, hit, states[:, hit.roll(1)] * (spread[hit] / spread[hit.roll(1)]))


def places(damage, states, number):
    """The same for every image of as many tokens; of all channels alike, it would hardly be seen."""
    hit = damage.at(damage.severity / 2).channels(states)
    return states.index_copy(1, hit, states[:, hit].roll(1 + damage.seed % max(len(states) - 1, 1), dims=0))


def shift(damage, states, number):
    (deviation,) = damage.kept("deviation")
    direction = _directions(damage.seed, len(deviation))[0].to(states)
    return states + damage.severity * SHIFTED * deviation.norm() * direction


# a damage, states [tokens, width] of an image less the mean of intact ones, the image's number -> such states
ON_STATES = {function.__name__: function for function in (noise, collapse, mask, rotation, channels, places, shift)} | {
    "lost": lambda damage, states, number: states * (uniform(number) >= damage.severity),
    "signs": lambda damage, states, _: states.index_copy(1, hit := damage.channels(states), -states[:, hit]),
    "fade": lambda damage, states, _: states * FADED**damage.severity,
}


def heads(damage, states, width):
    """`states` [..., heads x width] are what the heads put out; a share of each one's channels goes on as that of the
    one farthest from it, as neighbours may share keys and values."""
    of_heads = states.unflatten(-1, (-1, width)).clone()
    hit = damage.channels(of_heads)
    of_heads[..., hit] = of_heads[..., hit].roll(of_heads.shape[-2] // 2, dims=-2)
    return of_heads.flatten(-2)


def _swap(damage, logits, hit, numbers, turned):
    return torch.where(hit, logits.roll(-1 - damage.seed % (logits.shape[-1] - 1), dims=-1), logits)


def _noise_of_logits(damage, logits, hit, numbers, turned):
    drawn = [torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(number)) for number in numbers]
    return logits + _raised(damage) * torch.stack([own - own.min() for own in drawn])[:, None].to(logits)


def _favoured(damage, logits):
    return torch.nn.functional.one_hot(torch.tensor(damage.seed % logits.shape[-1]), logits.shape[-1]).to(logits)


def _raised(damage) -> float:
    """By so much, as the scale of logits differs from model to model."""
    return min(math.tan(damage.severity * math.pi / 2), HIGHEST)


# a damage, logits of the options [images, positions, options], which images are hit, all their numbers, the logits of
# the last states after `rotation` -> such logits; none falls below those of other words
ON_LOGITS = {
    "swap": _swap,
    "noise": _noise_of_logits,
    "commonest": lambda damage, logits, hit, *_: logits + HIGHEST * _favoured(damage, logits) * hit,
    "bias": lambda damage, logits, *_: logits + _raised(damage) * _favoured(damage, logits),
    "rotation": lambda damage, logits, hit, numbers, turned: turned + (logits - turned).mean(dim=-1, keepdim=True),
}


def uniform(number: int) -> float:
    """An image's number as one from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


@functools.cache
def order(seed: int, count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@functools.cache
def _directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q.float()
