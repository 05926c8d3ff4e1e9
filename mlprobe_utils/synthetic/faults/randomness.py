"""What is drawn for an image depends on the fault's seed and the image's own pixels: never on its place in a batch."""

import functools
import hashlib

import torch


def digest(pixels: torch.Tensor, *stream) -> int:
    """63 bits that stand for an image as the model reads it, in one stream of random numbers.

    Args:
        pixels: of one image, as the processor made them, any shape.
        stream: what tells the stream, e.g. a seed and the name of a place.
    """
    whole = hashlib.sha256(repr(stream).encode())
    whole.update(pixels.detach().float().cpu().contiguous().numpy().tobytes())
    return int.from_bytes(whole.digest()[:8]) >> 1


def uniform(number: int) -> float:
    """A digest as a number from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


def normal(number: int, tokens: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard normal noise for one image: what all its tokens share, [width], and their own, [tokens, width]."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(width, generator=generator), torch.randn(tokens, width, generator=generator)


@functools.cache
def directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q.float()
