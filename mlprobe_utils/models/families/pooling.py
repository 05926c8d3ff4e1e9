"""Reducing tokens to one vector an image, without a copy of the tokens and with sums in float32 in any precision."""

from collections.abc import Callable

import torch

Pooler = Callable[[torch.Tensor], torch.Tensor]


class TextTokens:
    """Where a batch's image tokens and last tokens are in the LLM: looked up once a batch, before the pass."""

    def __init__(self, mask: torch.Tensor, attention: torch.Tensor):
        """Finds them from the mask of image tokens, bool [batch, tokens], and the attention mask of the same shape.

        The last token is the last that is attended to, whichever side is padded.

        Raises:
            RuntimeError: a prompt without an image token.
        """
        self.shape, self.images = list(mask.shape), image_positions(mask)
        places = torch.arange(mask.shape[1], device=mask.device)
        self.last = torch.where(attention.bool(), places, -1).max(dim=1).values

    def image_mean(self, output: torch.Tensor) -> torch.Tensor:
        """Mean of each row's image tokens, float32 [batch, width], of LLM states [batch, tokens, width].

        Padding is not read: it need not be finite.

        Raises:
            RuntimeError: the output has another shape.
        """
        self._check(output)
        first = self.images[0]
        if isinstance(first, slice) and all(place == first for place in self.images):  # one kernel for all
            return output[:, first].mean(dim=1, dtype=torch.float32)
        places = [place if isinstance(place, slice) else place.to(output.device) for place in self.images]
        rows = zip(output, places, strict=True)
        return torch.stack([row[place].mean(dim=0, dtype=torch.float32) for row, place in rows])

    def last_token(self, output: torch.Tensor) -> torch.Tensor:
        """The last token's state of each row, float32 [batch, width]. Raises as `image_mean`."""
        self._check(output)
        rows = torch.arange(len(output), device=output.device)
        return output[rows, self.last.to(output.device)].float()  # a model may lie on several devices

    def _check(self, output: torch.Tensor) -> None:
        if output.ndim != 3 or list(output.shape[:2]) != self.shape:
            raise RuntimeError(f"expected [{self.shape[0]}, {self.shape[1]}, width], got {list(output.shape)}")


def image_positions(mask: torch.Tensor) -> list[slice | torch.Tensor]:
    """Where each row's image tokens are, from their mask, bool [batch, tokens]: a range, or positions if they are none.

    Raises:
        RuntimeError: a prompt without an image token.
    """
    rows, images = mask.cpu(), []
    if not rows.any(dim=1).all():
        raise RuntimeError("a prompt of the batch holds no image token")
    for row in rows:
        positions = row.nonzero().flatten()
        first, end = int(positions[0]), int(positions[-1]) + 1
        images.append(slice(first, end) if end - first == len(positions) else positions.to(mask.device))
    return images


def packed_means(output: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Mean of each image's tokens, float32 [images, width], of packed tokens [sum of lengths, width].

    Raises:
        RuntimeError: the output has another shape.
    """
    if output.ndim != 2 or output.shape[0] != sum(lengths):
        raise RuntimeError(f"expected [{sum(lengths)}, width], got {list(output.shape)}")
    if len(set(lengths)) == 1:  # one kernel for all
        return output.view(len(lengths), lengths[0], -1).mean(dim=1, dtype=torch.float32)
    return torch.stack([tokens.mean(dim=0, dtype=torch.float32) for tokens in output.split(lengths)])
