"""Interventions: states of a model are changed on their way through it, by hooks, while a block lasts."""

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.loading import LoadedModel

IMAGE_TOKENS, LAST_TOKEN, TEXT, ALL = "image_tokens", "last_token", "text", "all"
Tokens = str | Sequence[int]  # one of these four, or places among an image's tokens, from 0
OF_HEADS = "/heads"  # behind a point's name: the outputs of its attention heads, side by side, before their projection


class Edit(Protocol):
    """A change of states. Anything with these two is one.

    >>> class Double:
    ...     point = "L.01"
    ...     def __call__(self, states, now):
    ...         return 2 * states
    """

    point: str  # a probe point, `V.00` and so on, maybe with OF_HEADS; or ANSWER, the logits

    def __call__(self, states: torch.Tensor, now: "Pass") -> torch.Tensor:
        """The module's output in place of `states`: [rows, tokens, width], or where the vision tower packs the tokens
        of all images, [tokens, width]. `now.where(point, tokens)` says which of them belong to which image."""


class Pass:
    """The forward pass that is under way: which images and texts it reads, and where their tokens are."""

    def __init__(self, family: Family):
        self.family = family
        self.appended = 0  # tokens of the next pass that are no longer of the prompt, though it reads them with it
        self.images: dict = {}  # what the vision tower was given
        self.read = self.image = self.present = torch.zeros(0, 0)  # [rows, tokens] up to now: ids, image tokens, all
        self.cached = self.prompt = 0  # tokens whose keys and values were there before this pass; of the prompt
        self.entering = self.states = None  # of the module that is being edited: what it was given, and what it gives
        self.head = None  # the weight of the LM head, where it is edited

    def sees(self, inputs: dict) -> None:
        self.images = inputs
        vars(self).pop("prints", None)

    def reads(self, inputs: dict) -> None:
        """A later step of generation holds no image tokens, and fewer than were read where a cache has gone back."""
        ids, past = inputs["input_ids"], inputs.get("past_key_values")
        image, present = self.family.image_mask(inputs), inputs.get("attention_mask")
        self.cached = past.get_seq_length() if past is not None else 0
        if self.cached:
            ids = torch.cat([self.read[:, : self.cached], ids], dim=1)
            image = torch.cat([self.image[:, : self.cached], image], dim=1)
        else:
            self.prompt = ids.shape[1] - self.appended
        whole = present is not None and present.shape == ids.shape
        self.read, self.image, self.present = ids, image, present.bool() if whole else torch.ones_like(ids).bool()

    @functools.cached_property
    def prints(self) -> list[bytes]:
        """Of each image, a hash of its pixels as the processor made them."""
        return prints(self.family, self.images)

    def mask(self, tokens: Tokens, onwards: bool = False) -> torch.Tensor:
        """Which of the tokens read by the LLM are meant, bool [rows, tokens]. `onwards`: with the last token of the
        prompt all that were generated since. InputError for a token that is not there."""
        known = {IMAGE_TOKENS: self.image, TEXT: self.present & ~self.image, ALL: self.present}
        if isinstance(tokens, str) and tokens in known:
            return known[tokens]
        places = torch.arange(self.read.shape[1], device=self.read.device)
        of_prompt = self.present & (places < self.prompt)
        if isinstance(tokens, str) and tokens == LAST_TOKEN:
            last = torch.where(of_prompt, places, -1).max(dim=1, keepdim=True).values
            return self.present & (places >= last if onwards else places == last)
        mask = torch.zeros_like(of_prompt)
        for row, own in enumerate(of_prompt):
            mask[row, own.nonzero()[:, 0][_places(tokens, int(own.sum()), "the prompt")]] = True
        return mask

    def where(self, point: str, tokens: Tokens = IMAGE_TOKENS) -> list:
        """Each image's tokens as an index into the states of a point in this pass; none where it holds none of them.
        InputError for text in the vision tower or connector, and for a token that is not there."""
        if point[0] == "L":
            rows = self.mask(tokens)[:, self.cached :]
            return [(row, mask.nonzero()[:, 0]) for row, mask in enumerate(rows)] if rows.any() else []
        if point == ANSWER:
            raise InputError(f"tokens at {point}: logits are of the last tokens alone: write an edit that takes them")
        places = self.family.places_at(self.images, point[0])
        if isinstance(tokens, str) and tokens in (IMAGE_TOKENS, ALL):
            return places
        if isinstance(tokens, str) and tokens in (LAST_TOKEN, TEXT):
            raise InputError(f"tokens {tokens!r} at {point}: only the LLM has text, L.00 and on")
        if not isinstance(places[0], slice):
            return [(place, _places(tokens, self.states.shape[1], point)) for place in places]
        each = [range(place.start, place.stop) for place in places]
        return [[own[token] for token in _places(tokens, len(own), point)] for own in each]


class Interventions:
    """The edits of a model, of this block and those around it, in the order in which they are made."""

    def __init__(self, model: LoadedModel, edits: Sequence[Edit], now: Pass):
        self.model, self.edits, self.now, self.hooks = model, edits, now, contextlib.ExitStack()
        for edit in edits:
            getattr(edit, "check", module_at)(model, edit.point)

    def attach(self) -> None:
        owner, name = self.model.model.base_model, "get_image_features"
        method, now = getattr(owner, name), self.now

        @functools.wraps(method)
        def sees(*arguments, **named):
            """`generate` calls the vision tower before the model's forward pass, which gets no pixels."""
            now.sees(inspect.signature(method).bind(*arguments, **named).arguments)
            return method(*arguments, **named)

        setattr(owner, name, sees)
        self.hooks.callback(delattr, owner, name)
        reads = self.model.model.register_forward_pre_hook(lambda *given: now.reads(given[2]), with_kwargs=True)
        self.hooks.callback(reads.remove)
        for edit in reversed(self.edits):  # each goes before those that are attached already
            attach = getattr(edit, "attach", functools.partial(_attach, edit))
            self.hooks.callback(attach(self.model, now))

    def detach(self) -> None:
        self.hooks.close()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Attaches edits anew after the block, to modules that have changed places in it, or behind others."""
        self.detach()
        try:
            yield
        finally:
            self.attach()


@contextlib.contextmanager
def intervene(model: LoadedModel, edits: Edit | Sequence[Edit]) -> Iterator[Pass]:
    """Changes the model's states inside the `with` block, whatever runs in it: `extract`, `answer`, `model.model(...)`.

    >>> with mp.intervene(model, mp.edits.Skip("L.02")):
    ...     without = mp.answer(model, images, question)

    Edits are applied in the given order, after those of enclosing blocks; extracted features are the edited states.
    After the block the model is as before. Ready-made ones are in `mp.edits`: `Patch`, `Steer`, `Erase`,
    `Skip`, `KnockOut`, `Keep`; `interventions.Edit` says how to write one. Side paths (deepstack) that
    leave before a point are not changed; they have points of their own, `D.00`….

    InputError for an unknown point; in a pass, for a missing token and states of another shape."""
    edits = [*edits] if isinstance(edits, Sequence) else [edits]
    around = model.family.interventions
    before, now = (around.edits, around.now) if around else ([], Pass(model.family))
    own = Interventions(model, [*before, *edits], now)
    with around.paused() if around else contextlib.nullcontext():
        try:
            own.attach()
            model.family.interventions = own
            yield own.now
        finally:
            own.detach()
            model.family.interventions = around


@contextlib.contextmanager
def recorded(model: LoadedModel) -> Iterator[dict]:
    """Keeps what blocks of vision tower and LLM compute in the first pass of the block, before edits, by point."""
    kept = {}

    def keeping(point: str, forward: Callable) -> Callable:
        def compute(*arguments, **named):
            computed = forward(*arguments, **named)
            kept.setdefault(point, computed)
            return computed

        return compute

    with _forwards(model, keeping):
        yield kept


def replayed(model: LoadedModel, kept: dict, until: str) -> contextlib.AbstractContextManager[None]:
    """Blocks before the point `until` compute nothing, but give what `recorded` kept, in passes over the same inputs
    without a cache. Edits of theirs are still made."""
    points = [*kept]
    end = points.index(until) if until in points else sum(point[0] == "V" or until == ANSWER for point in points)
    before = {*points[:end]}
    return _forwards(model, lambda point, forward: (lambda *_, **__: kept[point]) if point in before else forward)


@contextlib.contextmanager
def _forwards(model: LoadedModel, changed: Callable[[str, Callable], Callable]) -> Iterator[None]:
    """Other `forward` of blocks, as accelerate sets them on modules; hooks are called around them as ever."""
    with contextlib.ExitStack() as undo:
        for point in (point for point in model.family.probe_points() if point.name[0] in "VL"):
            own, before = vars(point.module), vars(point.module).get("forward")
            undo.callback(own.pop, "forward") if before is None else undo.callback(own.update, forward=before)
            point.module.forward = changed(point.name, point.module.forward)
        yield


def module_at(model: LoadedModel, point: str) -> torch.nn.Module:
    """The module of a probe point; of ANSWER the LM head. InputError for an unknown one, also with OF_HEADS."""
    modules = {one.name: one.module for one in model.family.probe_points()}
    modules[ANSWER] = model.model.get_output_embeddings()
    name = point.removesuffix(OF_HEADS)
    if name not in modules or (name != point and name[0] not in "VL"):
        raise unknown("point" if name not in modules else "point with attention heads", point, modules)
    return modules[name]


def _attach(edit: Edit, model: LoadedModel, now: Pass) -> Callable[[], None]:
    """Before other hooks, as transformers' own keep the states that LLaVA's connector reads."""
    module = module_at(model, edit.point)

    def changed(module, arguments, named, output):
        now.head = module.weight if edit.point == ANSWER else None
        states, *rest = output if isinstance(output, tuple) else (output,)
        now.entering, now.states = arguments[0] if arguments else named.get("hidden_states"), states
        states = edit(states, now)
        return (states, *rest) if isinstance(output, tuple) else states

    def of_heads(_, arguments):
        now.states = arguments[0]
        return edit(arguments[0], now), *arguments[1:]

    if edit.point.endswith(OF_HEADS):
        projection, _ = model.family.heads(module)
        return projection.register_forward_pre_hook(of_heads, prepend=True).remove
    return module.register_forward_hook(changed, with_kwargs=True, prepend=True).remove


def prints(family: Family, inputs: dict) -> list[bytes]:
    """Of each image of a batch, a hash of its pixels as the processor made them."""
    pixels = [inputs["pixel_values"][place].detach().float().cpu() for place in family.places_at(inputs, "V")]
    return [hashlib.sha256(own.contiguous().numpy().tobytes()).digest() for own in pixels]


def _places(tokens: Tokens, count: int, where: str) -> list[int]:
    if isinstance(tokens, str):
        mend = "Or give a list of positions."
        raise unknown("tokens", tokens, [IMAGE_TOKENS, LAST_TOKEN, TEXT, ALL], mend)
    for token in tokens:
        if not -count <= token < count:
            raise InputError(f"token {token} is not there: {where} has {count} tokens, 0 to {count - 1}")
    return [token % count for token in tokens]
