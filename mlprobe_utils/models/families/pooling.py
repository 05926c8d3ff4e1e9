"""Reducing tokens to one vector an image: means are taken token range by token range, and nothing is copied before.

Sums are kept in float32 whatever the model's precision. A pass adds one vector an image and point to what is held,
however many tokens there are.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TextTokens:
    """Where a batch's image tokens and last tokens are in the LLM; made once a batch, before the pass.

    `images` has a range of positions for each row, or the positions themselves where they are no range.
    """

    shape: tuple[int, int]  # batch, tokens
    images: list[slice | torch.Tensor]
    last: torch.Tensor  # int [batch]


def find_text_tokens(mask: torch.Tensor, attention: torch.Tensor) -> TextTokens:
    """Finds them from the mask of image tokens, bool [batch, tokens], and the attention mask of the same shape.

    Right for both paddings: the last token is the last that is attended to.

    Raises:
        RuntimeError: a prompt without an image token.
    """
    images = image_positions(mask)
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(attention.bool(), places, -1).max(dim=1).values
    return TextTokens(tuple(mask.shape), images, last)


def image_positions(mask: torch.Tensor) -> list[slice | torch.Tensor]:
    """Where each row's image tokens are: a range of positions, or the positions themselves where they are no range.

    Args:
        mask: of image tokens, bool [batch, tokens].

    Raises:
        RuntimeError: a prompt without an image token.
    """
    mask, device = mask.cpu(), mask.device
    if not mask.any(dim=1).all():
        raise RuntimeError("a prompt of the batch holds no image token")
    images: list[slice | torch.Tensor] = []
    for row in mask:
        positions = row.nonzero().flatten()
        first, end = int(positions[0]), int(positions[-1]) + 1
        images.append(slice(first, end) if end - first == len(positions) else positions.to(device))
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


def row_means(output: torch.Tensor, images: int, first: int = 0) -> torch.Tensor:
    """Mean of each image's tokens from `first` on, float32 [images, width], of one image a row.

    Args:
        output: [images, tokens, width].

    Raises:
        RuntimeError: the output has another shape.
    """
    if output.ndim != 3 or output.shape[0] != images:
        raise RuntimeError(f"expected [{images}, tokens, width], got {list(output.shape)}")
    return output[:, first:].mean(dim=1, dtype=torch.float32)


def text_means(output: torch.Tensor, tokens: TextTokens) -> torch.Tensor:
    """Mean of each row's image tokens, float32 [batch, width], of LLM states [batch, tokens, width].

    What stands at padding is not read: it need not be finite.

    Raises:
        RuntimeError: the output has another shape.
    """
    _check_text(output, tokens)
    first = tokens.images[0]
    if isinstance(first, slice) and all(place == first for place in tokens.images):  # one kernel for all
        return output[:, first].mean(dim=1, dtype=torch.float32)
    rows = zip(output, tokens.images, strict=True)
    return torch.stack([row[_on(row, place)].mean(dim=0, dtype=torch.float32) for row, place in rows])


def last_states(output: torch.Tensor, tokens: TextTokens) -> torch.Tensor:
    """The last token's state of each row, float32 [batch, width]. Raises as `text_means`."""
    _check_text(output, tokens)
    rows = torch.arange(len(output), device=output.device)
    return output[rows, tokens.last.to(output.device)].float()  # a model may lie on several devices


def _on(row: torch.Tensor, place: slice | torch.Tensor) -> slice | torch.Tensor:
    return place if isinstance(place, slice) else place.to(row.device)


def _check_text(output: torch.Tensor, tokens: TextTokens) -> None:
    if output.ndim != 3 or tuple(output.shape[:2]) != tokens.shape:
        raise RuntimeError(f"expected [{tokens.shape[0]}, {tokens.shape[1]}, width], got {list(output.shape)}")
