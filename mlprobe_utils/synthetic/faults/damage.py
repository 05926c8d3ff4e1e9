"""Damaging a loaded model while a `with` block lasts: hooks that change states or logits on their way.

- Vision tower and LLM: at one layer the states of an image's tokens are mixed with noise of the same mean and spread.
  What they share is drowned in noise that they share, so that no mean over many tokens brings it back.
- Connector: the outputs of its last Linear layer are projected on few directions around their mean. These are drawn
  among directions of equal variance: as they vary by themselves, the first one or two would hold nearly all.
- Semantic mapping: for a share of the images the logits of the options are swapped, wherever these differ in the next
  token. Every state is as before, and so are the weights of the LM head, which some families share with the embeddings.

What is drawn for an image depends on the fault's seed and the image's own pixels: never on its place in a batch. A side
path (deepstack) that leaves the vision tower before the damaged place, or goes around the connector, is intact.
"""

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import ANSWER, on_side_path
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.pipeline.fault_card import Fault

Prefix = tuple[int, ...]
Branches = dict[Prefix, dict[int, list[int]]]


@dataclass(frozen=True)
class Damage:
    """A fault in one model."""

    module: str
    seed: int
    point: str | None = None
    severity: float = 0.0  # 0 to 1: share of a state's variance that is noise, of directions dropped, of images hit
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)  # of intact states (`calibration.statistics_of`)

    def at(self, severity: float) -> "Damage":
        return replace(self, severity=severity)

    def of_states(self, states: torch.Tensor, number: int | None = None) -> torch.Tensor:
        """Damaged states [tokens, width] of one image, `number` from its pixels; of the connector, of any tokens."""
        statistics = {name: value.to(states.device) for name, value in self.statistics.items()}
        mean = statistics["mean"]
        centred = states.float() - mean
        if self.module == "C":
            kept = _directions(self.seed, len(mean))[:, : self.rank].to(states.device)
            return (mean + centred @ (statistics["inverse"] @ kept) @ (kept.T @ statistics["root"])).to(states.dtype)
        generator = torch.Generator().manual_seed(number)
        shared = torch.randn(len(mean), generator=generator).to(states.device)
        own = torch.randn(states.shape, generator=generator).to(states.device)
        noise = statistics["between"] * shared + statistics["within"] * own
        return (mean + (1 - self.severity) ** 0.5 * centred + self.severity**0.5 * noise).to(states.dtype)

    @property
    def rank(self) -> int:
        """Of a damaged connector's outputs."""
        return round((1 - self.severity) * len(self.statistics["mean"]))

    def of_logits(
        self, logits: torch.Tensor, written: torch.Tensor, numbers: list[int], parting: Branches
    ) -> torch.Tensor:
        """As `swapped`, by one number an image from its pixels: hit at some severity, it is hit at all above."""
        hit = torch.tensor([uniform(number) < self.severity for number in numbers], device=logits.device)
        return swapped(logits, written.to(logits.device), hit, parting, self.seed)


def digest(pixels: torch.Tensor, *stream) -> int:
    """63 bits that stand for an image, by its pixels as the processor made them, in one stream of random numbers."""
    whole = hashlib.sha256(repr(stream).encode())
    whole.update(pixels.detach().float().cpu().contiguous().numpy().tobytes())
    return int.from_bytes(whole.digest()[:8]) >> 1


def uniform(number: int) -> float:
    """A digest as a number from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


def numbers_of(damage: Damage, family: Family, inputs: dict) -> list[int]:
    """The digest of each image of a batch in the random numbers of a damage."""
    return [digest(inputs["pixel_values"][place], damage.seed, damage.point) for place in family.vision_places(inputs)]


@functools.cache
def _directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q.float()


def planted(fault: Fault, family: Family) -> Damage:
    """The damage that a fault means in a model, at severity 0 and without statistics. Raises InputError for an LLM
    layer before the last into which a side path pours image information."""
    points = [point.name for point in family.probe_points()]
    point = fault.place(points)
    entries = sum(on_side_path(name) for name in points)  # the n-th one's states are added after the n-th layer
    if point and point[0] == "L" and int(point[2:]) < entries:
        raise InputError(
            f"data/faults/{fault.slug}.yml: depth {fault.depth} is {point}, but up to L.{entries - 1:02d} the side "
            "path brings image tokens what the fault has taken: give a greater depth"
        )
    return Damage(fault.module, fault.seed, point)


@contextlib.contextmanager
def damaged(loaded: LoadedModel, damage: Damage | None, parting: Branches | None = None) -> Iterator[None]:
    """While it lasts, the loaded model is damaged; None: it is not. Goes around `extraction.capturing`, not inside it.

    A damage of the semantic mapping needs the `branches` of the options.
    """
    if damage is None or damage.severity == 0:
        yield
        return
    batch: dict = {}  # where the images are, and the tokens read so far
    family, owner, name = loaded.family, loaded.model.base_model, "get_image_features"
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def note_images(*arguments, **named):
        """`generate` lets the vision tower see images before the model's own forward pass, which knows no pixels."""
        inputs = inspect.signature(method).bind(*arguments, **named).arguments
        batch.update(V=family.vision_places(inputs), numbers=numbers_of(damage, family, inputs))
        return method(*arguments, **named)

    def note_text(model, arguments, inputs):
        """A later step of generation has no image tokens and reads on."""
        prompt, read = bool(family.image_mask(inputs).any()), inputs["input_ids"]
        batch["L"] = family.text_places(inputs) if prompt else []
        if not prompt:
            before = inputs["past_key_values"].get_seq_length()  # less than was read, after the cache has gone back
            read = torch.cat([batch["written"][:, :before], read], dim=1)
        batch["written"] = read

    def change(module, arguments, output):
        if damage.module == ANSWER:
            return damage.of_logits(output, batch["written"], batch["numbers"], parting)
        states, *rest = output if isinstance(output, tuple) else (output,)
        states = damaged_states(batch, damage, states)
        return (states, *rest) if isinstance(output, tuple) else states

    head = loaded.model.get_output_embeddings()
    place = head if damage.module == ANSWER else module_at(loaded, damage.point)
    with contextlib.ExitStack() as stack:
        setattr(owner, name, note_images)
        stack.callback(lambda: setattr(owner, name, own) if own else delattr(owner, name))
        stack.callback(loaded.model.register_forward_pre_hook(note_text, with_kwargs=True).remove)
        stack.callback(place.register_forward_hook(change).remove)
        yield


def module_at(loaded: LoadedModel, point: str) -> torch.nn.Module:
    return next(one.module for one in loaded.family.probe_points() if one.name == point)


def damaged_states(batch: Mapping, damage: Damage, states: torch.Tensor) -> torch.Tensor:
    """The states of a batch at the damaged place; `batch` says where its images are there, and their `numbers`."""
    if damage.module == "C":
        return damage.of_states(states)
    if places := batch[damage.module]:
        states = states.clone()
        for place, number in zip(places, batch["numbers"], strict=True):
            states[place] = damage.of_states(states[place], number)
    return states


def branches(options: list[list[int]]) -> Branches:
    """Where the options part: tokens written so far -> next token -> the options (by number) that go on with it.

    Shorter prefixes come first. `options` are token ids that include the token that ends an answer.
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
    """Logits in which, wherever options part, each of their tokens has the logit of another one, by the seed.

    `logits` [images, positions, vocabulary] are of the last positions of `written`, int [images, tokens], the tokens
    read so far; those of images that are not hit, bool [images], stay as they are.
    """
    out, positions = logits.clone(), logits.shape[1]
    for prefix, following in parting.items():
        tokens, shift, there = [*following], 1 + seed % (len(following) - 1), hit[:, None].expand(-1, positions)
        if prefix:  # where what was read up to a position ends with it
            windows = written.unfold(1, len(prefix), 1)[:, -positions:]
            there = there & (windows == windows.new_tensor(prefix)).all(dim=-1)
        out[..., tokens] = torch.where(there[..., None], out[..., tokens[shift:] + tokens[:shift]], out[..., tokens])
    return out


def chosen(next_logits: Callable[[Prefix], torch.Tensor], parting: Branches, options: int) -> torch.Tensor:
    """The option of each image, of so many, that the model writes if it may write nothing else, int [images].

    `next_logits` gives the logits of the token after some tokens of an answer, [images, vocabulary].
    """
    alive: list[set[int]] = []
    for prefix, following in parting.items():
        taken = next_logits(prefix)[:, [*following]].argmax(dim=1).tolist()
        alive = alive or [set(range(options))] * len(taken)
        groups = [set(numbers) for numbers in following.values()]
        # an image that came to this prefix has all its options alive, and not yet chosen among them
        alive = [
            own & groups[place] if own & set().union(*groups) else own for own, place in zip(alive, taken, strict=True)
        ]
    return torch.tensor([min(own) for own in alive])
