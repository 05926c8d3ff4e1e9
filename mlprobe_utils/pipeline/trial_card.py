"""The card of a trial: what is planted to judge the diagnosis by, and what counts as right."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import CARDS, Card, load_card

TRIAL = "planted-faults"  # the card that `make laboratory` reads
FOLDER, CASES, ROWS = "trial", "cases.parquet", "rows.parquet"  # what it leaves of a model on a data set
DIAGNOSIS, LABORATORY = "diagnosis", ("laboratory.csv", "laboratory.yml")  # what a laboratory run leaves: cases, run
STEPS = ("fine-tuning", "answers", "features", "controls of the images", "cases")


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


def load_trial() -> Trial:
    """The trial of `make laboratory`. Raises InputError as `cards.load_card` does."""
    return load_card(Trial, TRIAL)


def laboratory_files() -> list[Path]:
    """The two files of the last laboratory run: that of outputs/ where there was one, else the project's own."""
    own = artefacts.OUTPUTS / DIAGNOSIS
    folder = own if (own / LABORATORY[1]).is_file() else CARDS / DIAGNOSIS
    return [folder / name for name in LABORATORY]
