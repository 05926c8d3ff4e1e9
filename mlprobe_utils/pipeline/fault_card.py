"""The cards of planted faults: which module is damaged and where in it; and what a trial plants."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.evaluation.sites import COMPREHENSION, FIDELITY, MISALIGNMENT, QUALITY
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import CARDS, Card, load_card, slugs

MODE_OF = {"V": QUALITY, "C": FIDELITY, "L": COMPREHENSION, ANSWER: MISALIGNMENT}  # module of a fault -> its mode
WITH_DEPTH = ("V", "L")  # the connector is damaged where it ends
FOLDER, CASES, ROWS = "trial", "cases.parquet", "rows.parquet"  # what a trial leaves of a model on a data set
DIAGNOSIS, FILES = "diagnosis", ("laboratory.csv", "laboratory.yml")  # of all trials judged: cases, run
STEPS = ("fine-tuning", "answers", "features", "controls of the images", "cases")  # of a trial


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


class Trial(Card):
    """Every fault that has a card is planted at several strengths in every model, on every data set."""

    folder, kind = "trials", "trial"
    points_lost: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        min_length=1, description="percentage points that the oracle is to lose; of each, one case a fault"
    )
    images: Annotated[int, Field(ge=50)] = Field(description="fresh phantoms that each strength is measured on")
    strong: Annotated[float, Field(gt=0, le=100)] = Field(
        description="points that the oracle measured lost from which on a case is strong"
    )
    least_loss: Annotated[float, Field(ge=0, le=100)] = Field(
        description="points: a smaller loss is no failure mode, however clear it is"
    )


def all_faults() -> list[Fault]:
    """Every fault that has a card, in the order the data flows. Raises InputError where a card is not valid."""
    faults, order = [load_card(Fault, slug) for slug in slugs(Fault)], [*MODULES, ANSWER]
    return sorted(faults, key=lambda fault: (order.index(fault.module), fault.depth or 0))


def load_trial() -> Trial:
    """The trial of `make laboratory`. Raises InputError where its card is not valid."""
    return load_card(Trial, "planted-faults")


def laboratory_files() -> list[Path]:
    """The two files of the last laboratory run: that of outputs/ where there was one, else the project's own."""
    own = artefacts.OUTPUTS / DIAGNOSIS
    folder = own if (own / FILES[1]).is_file() else CARDS / DIAGNOSIS
    return [folder / name for name in FILES]
