"""The semantic mapping: which tokens tell the options apart, and swapping their logits.

Acts on logits, never on the weights of the LM head, which are the embeddings' in families that tie them.
"""

from collections.abc import Callable

import torch

Prefix = tuple[int, ...]
Branches = dict[Prefix, dict[int, list[int]]]


def branches(options: list[list[int]]) -> Branches:
    """Where the options part: tokens written so far -> next token -> the options (by number) that go on with it.

    Shorter prefixes come first. Options that begin with different tokens, however many follow, part at `()` alone.

    Args:
        options: token ids of each option with the token that ends it, so that none is the beginning of another.
    """
    found: Branches = {}
    for number, tokens in enumerate(options):
        for length, token in enumerate(tokens):
            found.setdefault(tuple(tokens[:length]), {}).setdefault(token, []).append(number)
    parting = {prefix: following for prefix, following in found.items() if len(following) > 1}
    return dict(sorted(parting.items(), key=lambda item: len(item[0])))


def swapped(
    logits: torch.Tensor, written: torch.Tensor, hit: torch.Tensor, parting: Branches, seed: int
) -> torch.Tensor:
    """Logits in which, wherever options part, each of their tokens has the logit of another one.

    Args:
        logits: [images, positions, vocabulary], of the last positions of `written`.
        written: tokens that the model has read so far, int [images, tokens].
        hit: which images, bool [images]; the others' logits stay as they are.
        seed: chooses which token has the logit of which, the same for all images.
    """
    out = logits.clone()
    for prefix, following in parting.items():
        tokens, shift = [*following], 1 + seed % (len(following) - 1)
        there = hit[:, None] & _ends_with(written, prefix, logits.shape[1])
        out[..., tokens] = torch.where(there[..., None], out[..., tokens[shift:] + tokens[:shift]], out[..., tokens])
    return out


def _ends_with(written: torch.Tensor, prefix: Prefix, positions: int) -> torch.Tensor:
    """Whether what was read up to each of the last `positions` ends with a prefix, bool [images, positions]."""
    if not prefix:
        return torch.ones(len(written), positions, dtype=torch.bool, device=written.device)
    windows = written.unfold(1, len(prefix), 1)[:, -positions:]
    return (windows == windows.new_tensor(prefix)).all(dim=-1)


def chosen(next_logits: Callable[[Prefix], torch.Tensor], parting: Branches, options: int) -> torch.Tensor:
    """The option of each image, of so many `options`, that the model writes if it may write nothing else, int [images].

    Args:
        next_logits: tokens of an answer -> logits of the token after them, [images, vocabulary].
    """
    alive = None
    for prefix, following in parting.items():
        logits = next_logits(prefix)
        taken = logits[:, [*following]].argmax(dim=1)
        if alive is None:
            alive = torch.ones(len(logits), options, dtype=torch.bool, device=logits.device)
        reached = torch.zeros(len(following), options, dtype=torch.bool, device=logits.device)
        for place, numbers in enumerate(following.values()):
            reached[place, numbers] = True
        # those that came to this prefix have all its options alive, and not yet chosen among them
        here = (alive & reached.any(dim=0)).any(dim=1)
        alive = torch.where(here[:, None], alive & reached[taken], alive)
    return alive.int().argmax(dim=1)
