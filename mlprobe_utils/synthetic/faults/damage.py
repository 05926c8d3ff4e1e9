"""Damages a loaded model in a `with` block, by hooks that change states or logits on their way:

- Vision tower and LLM: at one layer the states of an image's tokens are mixed with noise of the same mean and spread,
  part of which the tokens share, so that no mean over many tokens recovers what is lost.
- Connector: the outputs of its last Linear layer are projected on few directions around their mean, drawn among
  directions of equal variance (of the original ones, the first one or two hold nearly all).
- Semantic mapping: for a share of the images the logits of the options are swapped wherever these differ in the next
  token. No state changes, nor does the LM head, whose weights some families share with the embeddings.

What is drawn depends on the fault's seed and an image's own pixels, never on its place in a batch. A side path
(deepstack) that leaves before the damaged place, or goes around the connector, stays intact.
"""

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import ANSWER, on_side_path
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.pipeline.fault_card import Fault

Branches = dict[tuple[int, ...], list[int]]  # where options part: tokens written so far -> what they go on with


@dataclass(frozen=True)
class Damage:
    module: str
    seed: int
    point: str | None = None
    severity: float = 0.0  # 0 to 1: share of a state's variance that is noise, of directions dropped, of images hit
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)  # of intact states (`calibration.statistics_of`)

    def at(self, severity: float) -> "Damage":
        return replace(self, severity=severity)

    @property
    def rank(self) -> int:
        """Of a damaged connector's outputs."""
        return round((1 - self.severity) * len(self.statistics["mean"]))

    def numbers(self, family: Family, inputs: dict) -> list[int]:
        """63 bits for each image of a batch, from its pixels as the processor made them: seeds what is drawn for it."""
        found = []
        for place in family.vision_places(inputs):
            whole = hashlib.sha256(repr((self.seed, self.point)).encode())
            whole.update(inputs["pixel_values"][place].detach().float().cpu().contiguous().numpy().tobytes())
            found.append(int.from_bytes(whole.digest()[:8]) >> 1)
        return found

    def of_states(self, states: torch.Tensor, places: Sequence = (), numbers: Sequence[int] = ()) -> torch.Tensor:
        """Damaged states [..., width]: those at each image's place by its number; in the connector all of them."""
        statistics = {name: value.to(states.device) for name, value in self.statistics.items()}
        mean = statistics["mean"]
        if self.module == "C":
            kept = _directions(self.seed, len(mean))[:, : self.rank].to(states.device)
            rotated = (states.float() - mean) @ (statistics["inverse"] @ kept) @ (kept.T @ statistics["root"])
            return (mean + rotated).to(states.dtype)
        out = states.clone()
        for place, number in zip(places, numbers, strict=False):  # in later steps of generation there are no places
            centred, generator = states[place].float() - mean, torch.Generator().manual_seed(number)
            shared = torch.randn(len(mean), generator=generator).to(states.device)
            own = torch.randn(centred.shape, generator=generator).to(states.device)
            noise = statistics["between"] * shared + statistics["within"] * own
            out[place] = (mean + (1 - self.severity) ** 0.5 * centred + self.severity**0.5 * noise).to(states.dtype)
        return out

    def of_logits(
        self, logits: torch.Tensor, written: torch.Tensor, numbers: Sequence[int], parting: Branches
    ) -> torch.Tensor:
        """Logits [images, positions, vocabulary] with those of options exchanged where they part, in the images hit: at
        some severity, and at all above. `written`, [images, tokens], are all tokens read, up to the last position."""
        hit = torch.tensor([uniform(number) < self.severity for number in numbers], device=logits.device)
        written, out, positions = written.to(logits.device), logits.clone(), logits.shape[1]
        for prefix, tokens in parting.items():
            shift = 1 + self.seed % (len(tokens) - 1)
            there = hit[:, None].expand(-1, positions)
            if prefix:  # where what was read up to a position ends with it
                windows = written.unfold(1, len(prefix), 1)[:, -positions:]
                there = there & (windows == windows.new_tensor(prefix)).all(dim=-1)
            exchanged = out[..., tokens[shift:] + tokens[:shift]]
            out[..., tokens] = torch.where(there[..., None], exchanged, out[..., tokens])
        return out


def uniform(number: int) -> float:
    """An image's number as one from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


@functools.cache
def _directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q.float()


def planted(fault: Fault, family: Family) -> Damage:
    """A fault as a damage of a model, at severity 0 and without statistics. Raises InputError for an LLM layer that is
    followed by one after which a side path adds image information."""
    points = [point.name for point in family.probe_points()]
    point = fault.place(points)
    entries = sum(on_side_path(name) for name in points)  # the n-th one's states are added after the n-th layer
    if point and point[0] == "L" and int(point[2:]) < entries:
        why = f"up to L.{entries - 1:02d} the side path brings image tokens what the fault has taken"
        wrong = f"data/faults/{fault.slug}.yml: depth {fault.depth} is {point}"
        raise InputError(f"{wrong}, but {why}: give a greater depth")
    return Damage(fault.module, fault.seed, point)


@contextlib.contextmanager
def damaged(loaded: LoadedModel, damage: Damage | None, parting: Branches | None = None) -> Iterator[None]:
    """Damages the loaded model in the block, unless `damage` is None or of severity 0. `parting`: the `branches` of the
    options, for the semantic mapping. Goes around `extraction.capturing`, not inside it."""
    if damage is None or damage.severity == 0:
        yield
        return
    batch: dict = {}  # where the images are, and the tokens read so far
    family, owner, name = loaded.family, loaded.model.base_model, "get_image_features"
    method = getattr(owner, name)

    @functools.wraps(method)
    def note_images(*arguments, **named):
        """`generate` calls the vision tower before the model's forward pass, which gets no pixels."""
        inputs = inspect.signature(method).bind(*arguments, **named).arguments
        batch.update(V=family.vision_places(inputs), numbers=damage.numbers(family, inputs))
        return method(*arguments, **named)

    def note_text(model, arguments, inputs):
        """A later step of generation has no image tokens."""
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
        states = damage.of_states(states, batch.get(damage.module, ()), batch.get("numbers", ()))
        return (states, *rest) if isinstance(output, tuple) else states

    head = loaded.model.get_output_embeddings()
    place = head if damage.module == ANSWER else module_at(loaded, damage.point)
    with contextlib.ExitStack() as stack:
        setattr(owner, name, note_images)
        stack.callback(delattr, owner, name)
        stack.callback(loaded.model.register_forward_pre_hook(note_text, with_kwargs=True).remove)
        stack.callback(place.register_forward_hook(change).remove)
        yield


def module_at(loaded: LoadedModel, point: str) -> torch.nn.Module:
    return next(one.module for one in loaded.family.probe_points() if one.name == point)


def branches(options: Sequence[Sequence[int]]) -> Branches:
    """Where options, token ids with the end token, part; shorter beginnings first."""
    found: dict[tuple[int, ...], dict[int, None]] = {}
    for tokens in options:
        for length, token in enumerate(tokens):
            found.setdefault(tuple(tokens[:length]), {})[token] = None
    return {prefix: [*found[prefix]] for prefix in sorted(found, key=len) if len(found[prefix]) > 1}
