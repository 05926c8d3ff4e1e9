"""Ready-made edits for `intervene`, which replace states, add to them, or remove something."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mlprobe_utils.models.compat import attention_with

import numpy as np
import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.question import Question
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import questions_about
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.interventions import IMAGE_TOKENS, LAST_TOKEN, OF_HEADS, Pass, Tokens, intervene, module_at

States = torch.Tensor | np.ndarray | Sequence[torch.Tensor]


@dataclass(frozen=True)
class _AtTokens:
    """An edit of the tokens of one image after the other."""

    point: str

    def __call__(self, states: torch.Tensor, now: Pass) -> torch.Tensor:
        out, places = states.clone(), now.where(self.point, self.tokens)
        self._check(len(places), states.shape[-1])
        for number, place in enumerate(places):
            out[place] = self.of_image(states[place].float(), number).to(states.dtype)
        return out


@dataclass(frozen=True)
class Patch(_AtTokens):
    """Replaces states by those of other images, or of another model of the same shape (activation patching: Vig et al.
    2020; Meng et al. 2022). With the mean of many images as `states` it is a mean ablation, with those of another image
    a resample ablation; of some `channels` alone, also of one head (`heads`).

    >>> donors = mp.edits.states(model, images[2:4], question, "L.01")
    >>> with mp.intervene(model, mp.edits.Patch("L.01", donors)), mp.capture(model, images[:2], question) as changed:
    ...     pass

    Args:
        point: `V.00`… `C.00`… `L.00`…; with `/heads`, before a block's attention projects the outputs of its heads.
        states: of one image, [tokens, width] or [width], for all; or a list, one for each image of the pass.
        tokens: `image_tokens`, `last_token`, `text`, `all`, or positions in the prompt (in the image, before the LLM).
        channels: which channels; None: all.

    InputError in a pass with another number of images, tokens or channels."""

    states: States
    tokens: Tokens = IMAGE_TOKENS
    channels: slice | Sequence[int] | None = None

    def of_image(self, own: torch.Tensor, number: int) -> torch.Tensor:
        given = torch.as_tensor(self.states[number] if self._each else self.states).to(own)
        channels = slice(None) if self.channels is None else self.channels
        if given.ndim == 2 and len(given) != len(own):
            wrong = f"{len(given)} tokens of states for {len(own)} of image {number}"
            raise InputError(f"Patch at {self.point}: {wrong}: take images of one size, or tokens both have")
        out = own.clone()
        out[:, channels] = given[..., channels]
        return out

    @property
    def _each(self) -> bool:
        return isinstance(self.states, list | tuple)

    def _check(self, images: int, width: int) -> None:
        if self._each and images not in (0, len(self.states)):
            wrong = f"states of {len(self.states)} images for a pass of {images}"
            raise InputError(f"Patch at {self.point}: {wrong}: give as many, or pass batch_size={len(self.states)}")
        _check_width(self, self.states[0] if self._each else self.states, width)


@dataclass(frozen=True)
class Steer(_AtTokens):
    """Moves states by a multiple of a direction, as the difference of two classes' means (Turner et al. 2023) or a
    probe's weights.

    >>> direction = features["L.01/image_mean"][:4].mean(0) - features["L.01/image_mean"][4:].mean(0)
    >>> with mp.intervene(model, mp.edits.Steer("L.01", direction, by=1.0)):
    ...     steered = mp.answer(model, images, question, max_new_tokens=4)

    Args:
        direction: [width], or [images, width] where each image of the pass has its own.
        by: how often it is added; 1 moves one class's mean to the other's, if it is their difference.

    InputError in a pass with another width or number of images."""

    direction: torch.Tensor | np.ndarray
    by: float = 1.0
    tokens: Tokens = IMAGE_TOKENS

    def of_image(self, own: torch.Tensor, number: int) -> torch.Tensor:
        direction = torch.as_tensor(self.direction).to(own)
        return own + self.by * (direction if direction.ndim == 1 else direction[number])

    def _check(self, images: int, width: int) -> None:
        if self.direction.ndim == 2 and images not in (0, len(self.direction)):
            wrong = f"{len(self.direction)} directions for a pass of {images} images"
            raise InputError(f"Steer at {self.point}: {wrong}: give one, or one for each")
        _check_width(self, self.direction, width)


@dataclass(frozen=True)
class Erase(_AtTokens):
    """Removes from states what separates classes: subtracts `projection` (h - mean) from them. Made by
    `mean_difference` or `leace`.

    >>> erase = mp.edits.Erase.mean_difference("L.01", features["L.01/image_mean"], images.table["label"])
    >>> with mp.intervene(model, erase):
    ...     without = mp.answer(model, images, question, max_new_tokens=4)
    """

    mean: torch.Tensor
    projection: torch.Tensor  # [width, width]
    tokens: Tokens = IMAGE_TOKENS

    def of_image(self, own: torch.Tensor, number: int) -> torch.Tensor:
        mean, projection = self.mean.to(own), self.projection.to(own)
        return own - (own - mean) @ projection.T

    def _check(self, images: int, width: int) -> None:
        _check_width(self, self.mean, width)

    @classmethod
    def mean_difference(cls, point: str, features: np.ndarray, labels: Sequence, tokens: Tokens = IMAGE_TOKENS):
        """Removes the directions between the classes' means, orthogonally. `features` are [images, width]."""
        features, means = _of_classes(point, features, labels)
        axes = torch.linalg.svd((means - means.mean(dim=0))[:-1], full_matrices=False).Vh
        return cls(point, features.mean(dim=0), axes.T @ axes, tokens)

    @classmethod
    def leace(cls, point: str, features: np.ndarray, labels: Sequence, tokens: Tokens = IMAGE_TOKENS):
        """Removes all that any linear probe of the features could decode, with the least change (Belrose et al. 2023;
        package `concept-erasure`). `features` are [images, width], more images than channels."""
        from concept_erasure import LeaceEraser

        features, means = _of_classes(point, features, labels)
        codes = torch.as_tensor(np.unique(labels, return_inverse=True)[1])
        eraser = LeaceEraser.fit(features, torch.nn.functional.one_hot(codes, len(means)).double())
        projection = eraser.proj_left @ eraser.proj_right
        return cls(point, features.mean(dim=0), projection, tokens)


@dataclass(frozen=True)
class Skip:
    """Skips a block of vision tower or LLM: it returns its input unchanged.

    >>> with mp.intervene(model, mp.edits.Skip("V.01")):
    ...     without = mp.extract(model, images, question)
    """

    point: str

    def __call__(self, states: torch.Tensor, now: Pass) -> torch.Tensor:
        return now.entering

    def check(self, model: LoadedModel, point: str) -> None:
        module_at(model, point)
        if point[0] not in "VL" or OF_HEADS in point:
            raise InputError(f"Skip {point}: only blocks of vision tower and LLM can be skipped, such as V.00")


@dataclass(frozen=True)
class KnockOut:
    """Cuts attention from some tokens to others in a range of blocks (Geva et al. 2023): those of
    `queries` no longer attend to `keys`; the tokens' own states are kept. With the prompt's last
    token, all generated tokens no longer attend to them. A token that attends to nothing gets nothing.

    >>> with mp.intervene(model, mp.edits.KnockOut("L.01", "L.02")):  # the last token no longer sees the image
    ...     blind = mp.answer(model, images, question, max_new_tokens=4)

    Args:
        point, until: first and last block, of vision tower or LLM; None: `point` alone.
        queries, keys: as `tokens` of `Patch`; for a vision block positions among its tokens, or `image_tokens`.

    Meanwhile attention is computed by torch's scaled_dot_product_attention, whatever the model uses."""

    point: str
    until: str | None = None
    queries: Tokens = LAST_TOKEN
    keys: Tokens = IMAGE_TOKENS

    def check(self, model: LoadedModel, point: str) -> None:
        first, last = point, self.until or point
        for end in (first, last):
            module_at(model, end)
        if first[0] != last[0] or first[0] not in "VL" or OF_HEADS in first + last or last < first:
            raise InputError(f"KnockOut {first} to {last}: name a block of vision tower or LLM, and a later one of it")

    def attach(self, model: LoadedModel, now: Pass) -> Callable[[], None]:
        blocks = [p for p in model.family.probe_points() if self.point <= p.name <= (self.until or self.point)]
        hidden = partial(self._in_llm if self.point[0] == "L" else self._in_tower, now)
        return attention_with(model.model, {model.family.attention(p.module): hidden for p in blocks})

    def __call__(self, states: torch.Tensor, now: Pass) -> torch.Tensor:
        return states

    def _in_llm(self, now: Pass, begun: int, queries: int, keys: int) -> torch.Tensor:
        """Which keys each query no longer sees, bool [rows, queries, keys]; a cache may have dropped the first."""
        asking, seen = now.mask(self.queries, onwards=True), now.mask(self.keys)
        return asking[:, -queries:, None] & seen[:, None, -keys:]

    def _in_tower(self, now: Pass, begun: int, queries: int, keys: int) -> torch.Tensor:
        """Where the tower packs the tokens of all images, it attends within one piece of them after the other."""
        places = now.family.places_at(now.images, "V")
        packed = isinstance(places[0], slice)
        shape = (1, places[-1].stop) if packed else (len(places), queries)
        sides = []
        for tokens in (self.queries, self.keys):
            mask = torch.zeros(shape, dtype=torch.bool)
            flat, now.states = mask[0] if packed else mask, mask
            for place in now.where(self.point, tokens):
                flat[place] = True
            sides.append(mask[:, begun : begun + queries])
        return sides[0][:, :, None] & sides[1][:, None, :]


@dataclass
class Keep:
    """Changes nothing, and records the states: `kept` has one tensor [tokens, width] per image, as the passes
    read them.

    >>> with mp.intervene(model, keep := mp.edits.Keep("L.01/heads")):
    ...     answers = mp.answer(model, images, question, max_new_tokens=4)
    >>> len(keep.kept) == len(answers)
    True
    """

    point: str
    tokens: Tokens = IMAGE_TOKENS
    kept: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, states: torch.Tensor, now: Pass) -> torch.Tensor:
        self.kept += [states[place].clone() for place in now.where(self.point, self.tokens)]
        return states


@torch.inference_mode()
def states(
    model: LoadedModel, images: Sequence[np.ndarray], question: Question, point: str, tokens: Tokens = IMAGE_TOKENS
) -> list[torch.Tensor]:
    """The states of images at a point, in one pass, one tensor [tokens, width] each, for `Patch`.

    >>> [tuple(own.shape) for own in mp.edits.states(model, images[:2], question, "L.01", "last_token")]
    [(1, 32), (1, 32)]

    Arguments and errors as of `extract` and `Patch`."""
    keep, questions = Keep(point, tokens), questions_about(model, question, images)
    with adapter(model, model.adapter), intervene(model, keep):
        model.model(**to_device(questions.batch(range(len(images))), model), logits_to_keep=1, use_cache=False)
    return keep.kept


def head(model: LoadedModel, point: str, number: int) -> slice:
    """The channels of one attention head at `<point>/heads`, for `Patch`. InputError for a missing one.

    >>> mp.edits.head(model, "L.01", 2)
    slice(16, 24, None)
    """
    projection, width = model.family.heads(module_at(model, point + OF_HEADS))
    if not 0 <= number < (count := projection.in_features // width):
        raise InputError(f"head {number} is not there: {point} has {count}, 0 to {count - 1}")
    return slice(number * width, (number + 1) * width)


def _check_width(edit, given: States, width: int) -> None:
    if given.shape[-1] != width:
        wrong = f"{type(edit).__name__} at {edit.point}: {given.shape[-1]} channels for states of {width}"
        raise InputError(f"{wrong}: take those of this point, of a model of the same shape")


def _of_classes(point: str, features: np.ndarray, labels: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = torch.as_tensor(features).double(), np.asarray(labels)
    classes = np.unique(labels)
    if len(labels) != len(features) or len(classes) < 2:
        wrong = f"{len(features)} images, {len(labels)} labels, {len(classes)} classes"
        raise InputError(f"Erase at {point}: {wrong}: give the label of each image, of two classes or more")
    return features, torch.stack([features[labels == name].mean(dim=0) for name in classes])
