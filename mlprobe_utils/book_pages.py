"""The pages of a book that notebooks make: which notebook, run with what, on which models' results. Imports no torch.

Numbered notebooks are the chapters; `index` is the front page and `models` the table of models (paper, Table S1). The
notebook `model` is a template: run once for each model of the book (paper, figures S4 to S17).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlprobe_utils import artefacts
from mlprobe_utils.artefacts import ROOT
from mlprobe_utils.baselines.card import BaselineCard
from mlprobe_utils.cards import CARDS, PUBLISHED, ModelCard, card_path, slugs
from mlprobe_utils.errors import unknown
from mlprobe_utils.faults.trial_card import CONFUSION

if TYPE_CHECKING:  # every notebook is run by a process that needs nothing of what a run's configuration imports
    from mlprobe_utils.configuration import Run

NOTEBOOKS = ROOT / "notebooks"
PAPER_TABLE = ("04_feature_health", "10_comparisons")  # chapters that print the paper's own Table 1
BASELINES = "06_baselines"
FAULTS = "11_planted_faults"
TOWERS = "08_vision_tower"
DISCUSSIONS = {  # chapters that show what `discussions` makes
    TOWERS: ("frozen-vision-tower", "training-paradigms"),
    "09_comprehension_utilization": ("question-first",),
}
DIAGNOSIS = "05_diagnosis"  # shows what the last laboratory found, where there was one
THRESHOLDS = CARDS / "diagnosis" / "laboratory.yml"  # of every page that diagnoses
_OF_MODELS = "models/"  # where the pages of single models lie in the book


@dataclass(frozen=True)
class Page:
    """A page that a notebook makes."""

    name: str  # where it lies in the book, without suffix: `03_probing`, `models/lingshu-7b-miniature`
    notebook: str  # its source, as `script_of` takes it
    parameters: dict  # what the notebook is executed with
    files: tuple[Path, ...] = ()  # what it reads beside the results of its models
    faults: bool = False  # whether it reads those of the laboratory's damaged models
    baselines: bool = False  # whether it reads those of the traditional classifiers
    discussions: tuple[str, ...] = ()  # cards of the discussions that it shows

    @property
    def models(self) -> tuple[str, ...]:
        """The models, by slug, whose results the page waits for."""
        return tuple(self.parameters["models"])


def book_pages(run: "Run") -> list[Page]:
    """Every page of a run's book that a notebook makes, in the order of the book."""
    parameters = run.parameters()
    cards = tuple(card_path(ModelCard, slug) for slug in slugs(ModelCard))
    table1 = (*cards, PUBLISHED / "table1.csv")

    laboratory = [file for file in [artefacts.OUTPUTS / CONFUSION] if file.is_file()]
    files = dict.fromkeys(PAPER_TABLE, table1) | {"index": (THRESHOLDS,), DIAGNOSIS: (THRESHOLDS, *laboratory)}
    files[BASELINES] = tuple(card_path(BaselineCard, slug) for slug in slugs(BaselineCard))
    files[TOWERS] = (*table1, *(PUBLISHED / name for name in ("table2.csv", "table3.csv")))

    def chapter(name: str) -> Page:
        shown = DISCUSSIONS.get(name, ())
        cards = tuple(CARDS / "discussions" / f"{slug}.yml" for slug in shown)
        return Page(name, name, parameters, (*files.get(name, ()), *cards), name == FAULTS, name == BASELINES, shown)

    return [
        *map(chapter, ("index", *chapters())),
        Page("models", "models", parameters, (*cards, PUBLISHED / "table_s1.csv")),
        *(Page(model_page(slug), "model", parameters | {"models": [slug]}, (THRESHOLDS,)) for slug in run.models),
    ]


def chapters() -> list[str]:
    """The chapters' names, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.py"))


def notebooks() -> list[str]:
    """The names of all notebooks."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def model_page(slug: str) -> str:
    """The name of a model's page."""
    return f"{_OF_MODELS}{slug}"


def notebook_of(page: str) -> str | None:
    """The notebook that makes a page, by the page's name; None for a page that is written as text."""
    name = "model" if page.startswith(_OF_MODELS) else page
    return name if name in notebooks() else None


def script_of(notebook: str) -> Path:
    """The percent script of a notebook. Raises InputError if there is none of that name."""
    if notebook not in notebooks():
        raise unknown("notebook", notebook, notebooks())
    return NOTEBOOKS / f"{notebook}.py"
