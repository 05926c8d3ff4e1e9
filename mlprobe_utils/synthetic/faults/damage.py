"""Damages a loaded model in a `with` block, by hooks that change states or logits. What is done is a kind of fault
(`kinds`); here is where: at the output of a vision block, of the connector or of an LLM's layer, to an image's tokens,
and in the LLM to those of text, too, where a kind keeps the class, as text has read the image early on; where a layer
projects its attention heads; or at the LM head, to the logits of options where these part. No weight changes, as some
families share the LM head's with the embeddings. A side path (deepstack) that leaves before the place, or goes around
the connector, stays intact.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import ANSWER, on_side_path
from mlprobe_utils.models.encoding import Branches
from mlprobe_utils.models.families.base import Family
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.pipeline.fault_card import KINDS, Fault
from mlprobe_utils.probing.interventions import OF_HEADS, Pass, intervene, module_at
from mlprobe_utils.synthetic.faults import kinds

WITH_TEXT = " with text"


@dataclass(frozen=True)
class Damage:
    kind: str
    module: str
    seed: int
    point: str | None = None
    severity: float = 0.0  # 0, nothing is changed, to 1
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)  # of intact states (`calibration.statistics_of`)

    @property
    def place(self) -> str:
        return self.point or ANSWER

    @property
    def of_text(self) -> bool:
        """Whether it changes the states of text, too."""
        return self.module == "L" and not KINDS[self.kind].destroys

    @property
    def known_by(self) -> str:
        """What the statistics of the states that it changes are called."""
        return self.place + WITH_TEXT * self.of_text

    def at(self, severity: float) -> "Damage":
        return replace(self, severity=severity)

    def kept(self, *names: str) -> list[torch.Tensor]:
        return [self.statistics[name] for name in names]

    def channels(self, states: torch.Tensor) -> torch.Tensor:
        """Those that the severity hits, and all lower ones, too."""
        width = states.shape[-1]
        return kinds.order(self.seed, width)[: round(self.severity * width)].to(states.device)

    def numbers(self, prints: Sequence[bytes]) -> list[int]:
        """63 bits for each image, by its print: seeds what is drawn for it."""
        of_fault = repr((self.seed, self.point)).encode()
        return [int.from_bytes(hashlib.sha256(of_fault + own).digest()[:8]) >> 1 for own in prints]

    def of_states(self, states: torch.Tensor, places: Sequence, numbers: Sequence[int]) -> torch.Tensor:
        """States with those at each image's place, [tokens, width], damaged by its number."""
        own = replace(self, statistics={name: value.to(states.device) for name, value in self.statistics.items()})
        out, mean = states.clone(), own.statistics["mean"]
        for place, number in zip(places, numbers, strict=False):  # in later steps of generation there are no places
            centred = states[place].float() - mean
            out[place] = (mean + kinds.ON_STATES[self.kind](own, centred, number)).to(states.dtype)
        return out

    def of_logits(
        self, logits: torch.Tensor, read: torch.Tensor, numbers: Sequence[int], parting: Branches, *head: torch.Tensor
    ) -> torch.Tensor:
        """Logits [images, positions, vocabulary] with those of options damaged where they part. `read`, [images,
        tokens], are all tokens read, up to the last position; `head`: the last states and the LM head's weight."""
        read, out, positions = read.to(logits.device), logits.clone(), logits.shape[1]
        hit = torch.tensor([kinds.uniform(number) < self.severity for number in numbers], device=logits.device)
        for prefix, tokens in parting.items():
            own, turned = out[..., tokens], None
            if self.kind == "rotation":
                states, weight = head
                places = [*range(len(states))]
                turned = (self.of_states(states, places, places) @ weight[tokens].T).to(own.dtype)
            changed = kinds.ON_LOGITS[self.kind](self, own, hit[:, None, None], numbers, turned)
            if prefix:  # where what was read up to a position ends with it
                windows = read.unfold(1, len(prefix), 1)[:, -positions:]
                there = (windows == windows.new_tensor(prefix)).all(dim=-1)
                changed = torch.where(there[..., None], changed, own)
            out[..., tokens] = changed
        return out


def planted(fault: Fault, family: Family) -> Damage:
    """A fault as a damage of a model, at severity 0 and without statistics. Raises InputError for an LLM layer that is
    followed by one after which a side path adds image information."""
    points = [point.name for point in family.probe_points()]
    point = fault.place(points)
    entries = sum(on_side_path(name) for name in points)  # the n-th one's states are added after the n-th layer
    if point and point[0] == "L" and int(point[2:]) < entries:
        why = f"up to L.{entries - 1:02d} the side path restores what the fault removes"
        wrong = f"data/faults/{fault.slug}.yml: depth {fault.depth} is {point}"
        raise InputError(f"{wrong}, but {why}: give a greater depth")
    return Damage(fault.kind, fault.module, fault.seed, point)


@dataclass(frozen=True)
class _Planted:
    """A damage as an edit of the model's states or logits."""

    damage: Damage
    width: int | None  # of an attention head
    parting: Branches | None

    @property
    def point(self) -> str:
        return self.damage.place + OF_HEADS * (self.damage.kind == "heads")

    def __call__(self, states: torch.Tensor, now: Pass) -> torch.Tensor:
        damage = self.damage
        if damage.kind == "heads":
            return kinds.heads(damage, states, self.width)
        numbers = damage.numbers(now.prints)
        if damage.module == ANSWER:
            return damage.of_logits(states, now.read, numbers, self.parting, now.entering, now.head)
        places = [*range(len(states))] if damage.of_text else now.where(damage.place)
        return damage.of_states(states, places, numbers)


def damaged(loaded: LoadedModel, damage: Damage | None, parting: Branches | None = None) -> AbstractContextManager:
    """Damages the loaded model in the block, unless `damage` is None or of severity 0. `parting`: the `branches` of the
    options, for the semantic mapping. Goes around `extraction.capturing`, not inside it."""
    if damage is None or damage.severity == 0:
        return contextlib.nullcontext()
    width = loaded.family.heads(module_at(loaded, damage.place))[1] if damage.kind == "heads" else None
    return intervene(loaded, _Planted(damage, width, parting))
