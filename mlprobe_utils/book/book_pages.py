"""The pages of a book that notebooks make: which notebook, run with what, on which models' results.

Numbered notebooks are the chapters; `index` is the front page and `models` the table of models (paper, Table S1). The
notebook `model` is a template: run once for each model of the book (paper, figures S4 to S17).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.cards import CARDS, PUBLISHED, ModelCard, card_path, slugs
from mlprobe_utils.pipeline.trial_card import laboratory_files

if TYPE_CHECKING:  # every notebook is run by a process that needs nothing of what a run's configuration imports
    from mlprobe_utils.pipeline.configuration import Run

NOTEBOOKS = ROOT / "notebooks"
PAPER_TABLE = ("04_feature_health", "10_comparisons")  # chapters that print the paper's own Table 1
BASELINES = "06_baselines"
TOWERS = "08_vision_tower"
DIAGNOSED = ("index", "03_probing", "04_feature_health", "05_diagnosis", "11_planted_faults")  # and faults, and models
NEEDS = "needs-"  # tag of a section's first cell: what a run has to have to fill it (`left_out`)
OF_A_MODEL = "model"  # the notebook of models' pages
_OF_MODELS = "models/"  # where they lie in the book


@dataclass(frozen=True)
class Page:
    """A page that a notebook makes."""

    name: str  # where it lies in the book, without suffix: `03_probing`, `models/lingshu-7b-miniature`
    notebook: str  # its source, as `script_of` takes it
    parameters: dict  # what the notebook is executed with
    files: tuple[Path, ...] = ()  # what it reads beside the results of its models
    baselines: bool = False  # whether it reads those of the traditional classifiers

    @property
    def models(self) -> tuple[str, ...]:
        """The models, by slug, whose results the page waits for."""
        return tuple(self.parameters["models"])


def book_pages(run: "Run") -> list[Page]:
    """Every page of a run's book that a notebook makes, in the order of the book."""
    parameters = run.parameters()
    cards = tuple(card_path(ModelCard, slug) for slug in slugs(ModelCard))
    table1 = (*cards, PUBLISHED / "table1.csv")
    laboratory = (*laboratory_files(), CARDS / "book.yml", *sorted((CARDS / "faults").glob("*.yml")))
    discussions = tuple(sorted((CARDS / "discussions").glob("*.yml")))
    files = dict.fromkeys(PAPER_TABLE, table1)
    for name in DIAGNOSED:
        files[name] = (*files.get(name, ()), *laboratory)
    files[BASELINES] = tuple(card_path(BaselineCard, slug) for slug in slugs(BaselineCard))
    files[TOWERS] = (*table1, *(PUBLISHED / name for name in ("table2.csv", "table3.csv")), *discussions)
    files["09_comprehension_utilization"] = discussions

    def chapter(name: str) -> Page:
        return Page(name, name, parameters, files.get(name, ()), name == BASELINES)

    return [
        *map(chapter, ("index", *chapters())),
        Page("models", "models", parameters, (*cards, PUBLISHED / "table_s1.csv")),
        *(Page(model_page(slug), OF_A_MODEL, parameters | {"models": [slug]}, laboratory) for slug in run.models),
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
    name = OF_A_MODEL if page.startswith(_OF_MODELS) else page
    return name if name in notebooks() else None


def script_of(notebook: str) -> Path:
    """The percent script of a notebook. Raises InputError if there is none of that name."""
    if notebook not in notebooks():
        raise unknown("notebook", notebook, notebooks())
    return NOTEBOOKS / f"{notebook}.py"
