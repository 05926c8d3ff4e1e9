"""The card of a planted fault: which module is damaged, and where in it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.evaluation.stations import COMPREHENSION, FIDELITY, MISALIGNMENT, QUALITY
from mlprobe_utils.pipeline.cards import Card, load_card, slugs

MODE_OF = {"V": QUALITY, "C": FIDELITY, "L": COMPREHENSION, ANSWER: MISALIGNMENT}  # module of a fault -> its mode
WITH_DEPTH = ("V", "L")  # the connector is damaged where it ends


class Fault(Card):
    """A fault that fits every model: its place is said in terms of modules; trials and the book say how strong."""

    folder, kind = "faults", "fault"
    name: str
    module: Literal["V", "C", "L", "output"] = Field(description="vision tower, connector, LLM, semantic mapping")
    depth: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="of vision tower or LLM: from which share of its points on, 0 the first, 1 the last"
    )
    seed: Annotated[int, Field(ge=0)] = Field(description="of the noise, of the directions kept, of the images hit")

    @model_validator(mode="after")
    def _depth_where_there_is_one(self):
        if (self.depth is None) == (self.module in WITH_DEPTH):
            mend = "give the depth, 0 to 1" if self.depth is None else "remove it: there is one place only"
            raise ValueError(f"depth of a fault in module {self.module!r}: {mend}")
        return self

    def place(self, points: list[str]) -> str | None:
        """The damaged one of a model's points (names in the order the data flows); None for the semantic mapping."""
        of_module = [point for point in points if point[0] == self.module]
        depth = 1.0 if self.depth is None else self.depth
        return of_module[int(depth * (len(of_module) - 1) + 0.5)] if self.module in MODULES else None


def load_fault(slug: str) -> Fault:
    """The card of a fault, by slug. Raises InputError as `cards.load_card` does."""
    return load_card(Fault, slug)


def all_faults() -> list[Fault]:
    """Every fault that has a card, in the order the data flows.

    Raises:
        InputError: a card is not valid.
    """
    order = [*MODULES, ANSWER]
    return sorted(map(load_fault, slugs(Fault)), key=lambda fault: (order.index(fault.module), fault.depth or 0))
