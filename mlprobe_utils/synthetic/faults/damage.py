"""Damaging a loaded model while a `with` block lasts: hooks that change states or logits on their way.

- Vision tower and LLM: the states of an image's tokens are mixed with noise of the same mean and spread, at one layer.
  All that comes later reads only what is left there. What an image's tokens share is drowned in noise that they share,
  so that no mean over many tokens brings it back. In the LLM the text tokens are not touched.
- Connector: the outputs of its last Linear layer are projected on few directions around their mean. These are drawn
  among directions of equal variance: as they vary by themselves, the first one or two would hold nearly all.
- Semantic mapping: for a share of the images the logits of the options are swapped. Every state is as before.

A side path (deepstack) that leaves the vision tower before the damaged place, or goes around the connector, is intact.
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
from mlprobe_utils.synthetic.faults.mapping import Branches, swapped


@dataclass(frozen=True)
class Damage:
    """A fault in one model: at which of its points, and how severe.

    `severity` is from 0, intact, to 1: the share of a state's variance that is noise (V, L), of directions that are
    dropped (C), of images that are hit (output). `statistics` are those of the intact states at the place, as
    `calibration.statistics_of` gives them; the output needs none.
    """

    module: str
    seed: int
    point: str | None = None
    severity: float = 0.0
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)

    def at(self, severity: float) -> "Damage":
        return replace(self, severity=severity)

    def of_states(self, states: torch.Tensor, number: int | None = None) -> torch.Tensor:
        """Damaged states [tokens, width] of one image, `number` from its pixels; of the connector, of any tokens."""
        statistics = {name: value.to(states.device) for name, value in self.statistics.items()}
        mean = statistics["mean"]
        centred = states.float() - mean
        if self.module == "C":
            kept = _directions(self.seed, len(mean))[:, : self.rank(len(mean))].to(states.device)
            return (mean + centred @ (statistics["inverse"] @ kept) @ (kept.T @ statistics["root"])).to(states.dtype)
        generator = torch.Generator().manual_seed(number)
        shared = torch.randn(len(mean), generator=generator).to(states.device)
        own = torch.randn(states.shape, generator=generator).to(states.device)
        noise = statistics["between"] * shared + statistics["within"] * own
        return (mean + (1 - self.severity) ** 0.5 * centred + self.severity**0.5 * noise).to(states.dtype)

    def rank(self, width: int) -> int:
        """Of a damaged connector's outputs, of `width` numbers each."""
        return round((1 - self.severity) * width)

    def of_logits(
        self, logits: torch.Tensor, written: torch.Tensor, numbers: list[int], parting: Branches
    ) -> torch.Tensor:
        """Damaged logits; arguments as of `mapping.swapped`, `numbers` one an image from its pixels.

        An image that is hit at some severity is hit at all above.
        """
        hit = torch.tensor([uniform(number) < self.severity for number in numbers], device=logits.device)
        return swapped(logits, written.to(logits.device), hit, parting, self.seed)


# What is drawn for an image depends on the fault's seed and the image's own pixels: never on its place in a batch.


def digest(pixels: torch.Tensor, *stream) -> int:
    """63 bits that stand for an image, by its pixels as the processor made them, in one stream of random numbers."""
    whole = hashlib.sha256(repr(stream).encode())
    whole.update(pixels.detach().float().cpu().contiguous().numpy().tobytes())
    return int.from_bytes(whole.digest()[:8]) >> 1


def uniform(number: int) -> float:
    """A digest as a number from 0 to 1, 1 excluded."""
    return (number >> 10) / 2**53


@functools.cache
def _directions(seed: int, width: int) -> torch.Tensor:
    """Orthonormal directions, float32 [width, width], one a column, drawn evenly."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q.float()


def planted(fault: Fault, family: Family) -> Damage:
    """The damage that a fault means in a model, at severity 0 and without statistics.

    Raises:
        InputError: in the LLM, a layer before the last into which a side path pours image information.
    """
    points = [point.name for point in family.probe_points()]
    point = fault.place(points)
    entries = sum(on_side_path(name) for name in points)  # the n-th one's states are added after the n-th layer
    if point and point[0] == "L" and int(point[2:]) < entries:
        raise InputError(
            f"data/faults/{fault.slug}.yml: depth {fault.depth} is {point}, but up to L.{entries - 1:02d} the side "
            "path brings image tokens what the fault has taken: give a greater depth"
        )
    return Damage(fault.module, fault.seed, point)


def numbers_of(damage: Damage, family: Family, inputs: dict) -> list[int]:
    """What stands for each image of a batch in the random numbers of a damage."""
    return [digest(inputs["pixel_values"][place], damage.seed, damage.point) for place in family.vision_places(inputs)]


@contextlib.contextmanager
def pooled_states(
    loaded: LoadedModel, inputs: dict, changes: Mapping[str, tuple[str, Callable]]
) -> Iterator[dict[str, torch.Tensor]]:
    """While it lasts, a forward pass on `inputs` notes what each change would make of the states at a point.

    Args:
        changes: name -> (probe point, function of its states).

    Yields:
        Name -> means of each image's tokens, float32 [images, width], filled by the pass.
    """
    noted: dict[str, torch.Tensor] = {}
    poolers = loaded.family.poolers(inputs)
    modules = {point.name: point.module for point in loaded.family.probe_points()}

    def hook_of(name: str, point: str, change: Callable) -> Callable:
        def hook(module, arguments, output):
            states = output[0] if isinstance(output, tuple) else output
            noted[name] = poolers[f"{point[0]}/image_mean"](change(states)).cpu()

        return hook

    with contextlib.ExitStack() as stack:
        for name, (point, change) in changes.items():
            stack.callback(modules[point].register_forward_hook(hook_of(name, point, change)).remove)
        yield noted


def damage_noted(loaded: LoadedModel, damages: Mapping[str, Damage], inputs: dict) -> contextlib.AbstractContextManager:
    """`pooled_states` as each damage, by name, would leave them at its place."""
    places = {"V": loaded.family.vision_places(inputs), "L": loaded.family.text_places(inputs)}
    changes = {}
    for name, damage in damages.items():
        batch = places | {"numbers": numbers_of(damage, loaded.family, inputs)}
        changes[name] = damage.point, functools.partial(_damaged_states, batch, damage)
    return pooled_states(loaded, inputs, changes)


@contextlib.contextmanager
def damaged(loaded: LoadedModel, damage: Damage | None, parting: Branches | None = None) -> Iterator[None]:
    """While it lasts, the loaded model is damaged; None: it is not. Goes around `extraction.capturing`, not inside it.

    Args:
        parting: where the options part, for a damage of the semantic mapping (`mapping.branches`).
    """
    if damage is None or damage.severity == 0:
        yield
        return
    batch: dict = {}
    with contextlib.ExitStack() as stack:
        _note_images(stack, batch, damage, loaded)
        hooks = [loaded.model.register_forward_pre_hook(_note_text(batch, loaded.family), with_kwargs=True)]
        if damage.module == ANSWER:
            head = loaded.model.get_output_embeddings()
            hooks.append(head.register_forward_hook(_on_logits(batch, damage, parting)))
        else:
            modules = {point.name: point.module for point in loaded.family.probe_points()}
            hooks.append(modules[damage.point].register_forward_hook(_on_states(batch, damage)))
        for hook in hooks:
            stack.callback(hook.remove)
        yield


def _note_images(stack: contextlib.ExitStack, batch: dict, damage: Damage, loaded: LoadedModel) -> None:
    """Notes which images the vision tower is about to see.

    `generate` lets it see them before the model's own forward pass, which then knows nothing of pixels: what both call
    is the method that is wrapped here.
    """
    owner, name = loaded.model.base_model, "get_image_features"
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def noting(*arguments, **named):
        inputs = inspect.signature(method).bind(*arguments, **named).arguments
        batch["V"] = loaded.family.vision_places(inputs)
        batch["numbers"] = numbers_of(damage, loaded.family, inputs)
        return method(*arguments, **named)

    setattr(owner, name, noting)
    stack.callback(lambda: setattr(owner, name, own) if own else delattr(owner, name))


def _note_text(batch: dict, family: Family) -> Callable:
    """Notes where image tokens are, and what has been read; a later step of generation has none and reads on."""

    def hook(model, arguments, inputs):
        prompt = bool(family.image_mask(inputs).any())
        batch["L"] = family.text_places(inputs) if prompt else []
        read = inputs["input_ids"]
        if not prompt:
            before = inputs["past_key_values"].get_seq_length()  # less than was read, after the cache has gone back
            read = torch.cat([batch["written"][:, :before], read], dim=1)
        batch["written"] = read

    return hook


def _damaged_states(batch: dict, damage: Damage, states: torch.Tensor) -> torch.Tensor:
    if damage.module == "C":
        return damage.of_states(states)
    if places := batch[damage.module]:
        states = states.clone()
        for place, number in zip(places, batch["numbers"], strict=True):
            states[place] = damage.of_states(states[place], number)
    return states


def _on_states(batch: dict, damage: Damage) -> Callable:
    def hook(module, arguments, output):
        states, *rest = output if isinstance(output, tuple) else (output,)
        states = _damaged_states(batch, damage, states)
        return (states, *rest) if isinstance(output, tuple) else states

    return hook


def _on_logits(batch: dict, damage: Damage, parting: Branches) -> Callable:
    return lambda module, arguments, logits: damage.of_logits(logits, batch["written"], batch["numbers"], parting)
