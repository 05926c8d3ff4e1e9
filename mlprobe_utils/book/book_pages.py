"""The pages of a book that notebooks make: the numbered are the chapters, `index` the front page, `claims` the paper's
claims in one table, `models` the table of models (paper, Table S1), `explore` follows single images, and `model` is a
template, run once for each model (paper, figures S4 to S17).

A notebook tags the cell with the heading of a section that not every model can fill `needs-<need>`: a discussion's
slug, or `planted-faults`. The section ends before the next heading of the same level or a higher one.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.files import damage, hash_of, read_record
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.baseline_card import BaselineCard, baseline_folder
from mlprobe_utils.pipeline.cards import CARDS, PUBLISHED, DataCard, ModelCard, Protocol, card_path, slugs
from mlprobe_utils.pipeline.code import code_files, files_hash
from mlprobe_utils.pipeline.configuration import Run, load_book
from mlprobe_utils.pipeline.fault_card import damaged_models, damaged_selection, laboratory_files
from mlprobe_utils.pipeline.results import results_below
from mlprobe_utils.pipeline.variants import Discussion, discussions, taking_part

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = ROOT / "notebooks"
BASELINES = "08_baselines"
USED = "07_is_it_used"
CLAIMS, EXPLORE = "claims", "explore"
OF_A_MODEL = "model"  # the notebook of models' pages
DIAGNOSED = ("index", EXPLORE, "03_probing", "05_feature_health", "06_diagnosis", "04_planted_faults", USED, OF_A_MODEL)
NEEDS = "needs-"  # how the tag begins
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\(#([\w-]+)\)")


@dataclass(frozen=True)
class Page:
    name: str  # where it lies in the book, without suffix: `03_probing`, `models/lingshu-7b-miniature`
    notebook: str  # its source, as `script_of` takes it
    parameters: dict  # what the notebook is executed with
    files: tuple[Path, ...] = ()  # the cards and tables that it reads beside the results of its models


def book_pages(run: Run) -> list[Page]:
    """Every page of a run's book that a notebook makes, in the order of the book."""
    shown = [card_path(Protocol, run.protocol), *(card_path(DataCard, slug) for slug in run.datasets)]
    cards = [card_path(ModelCard, slug) for slug in slugs(ModelCard)]
    table1 = [*cards, PUBLISHED / "table1.csv"]  # the paper's own, which some chapters print
    laboratory = [*laboratory_files(), CARDS / "book.yml", *sorted((CARDS / "faults").glob("*.yml"))]
    classifiers = [card_path(BaselineCard, slug) for slug in slugs(BaselineCard)]
    discussed = sorted((CARDS / "discussions").glob("*.yml"))
    files = dict.fromkeys(DIAGNOSED, laboratory) | {
        "05_feature_health": [*table1, *laboratory],
        BASELINES: classifiers,
        CLAIMS: [*table1, *laboratory, *discussed, *classifiers, PUBLISHED / "claims.csv"],
        "10_vision_tower": [*table1, PUBLISHED / "table2.csv", PUBLISHED / "table3.csv", *discussed],
        "06_diagnosis": [*laboratory, *discussed],
        "11_comprehension_utilization": discussed,
        USED: [*laboratory, *discussed],
        OF_A_MODEL: [*laboratory, *discussed],
        "12_comparisons": table1,
        "models": [*cards, PUBLISHED / "table_s1.csv"],
    }

    def page(name: str, notebook: str, models: tuple[str, ...] = run.models) -> Page:
        read = (*shown, *(card_path(ModelCard, slug) for slug in models), *files.get(notebook, ()))
        return Page(name, notebook, run.parameters() | {"models": [*models]}, read)

    of_all = [page(name, name) for name in ("index", CLAIMS, *chapters(), "models")]
    return [*of_all, *(page(model_page(slug), OF_A_MODEL, (slug,)) for slug in run.models), page(EXPLORE, EXPLORE)]


def executed(name: str) -> Path:
    """Where a page's notebook lies as papermill leaves it."""
    return artefacts.OUTPUTS / "chapters" / f"{name}.ipynb"


def record_of(name: str) -> Path:
    """What the executed notebook of a page was made from, and its inventory."""
    return (notebook := executed(name)).with_name(f".{notebook.stem}.json")


def damage_of(name: str, every_byte: bool = False) -> str:
    """As `files.damage`, of a page's executed notebook."""
    return damage(executed(name).parent, (read_record(record_of(name)) or {}).get("files"), every_byte)


def page_made_from(page: Page, run: Run) -> str:
    """A hash of all that a page shows: its notebook and the code that this imports, cards, tables, and results."""
    script, models = script_of(page.notebook), page.parameters["models"]
    planted = damaged_selection(run).datasets if damaged_models(models) else ()
    folders = [run.folder(model, dataset) for model in models for dataset in {*run.datasets, *planted}]
    if page.name in (BASELINES, CLAIMS):
        folders += [baseline_folder(run.protocol, dataset, run.split_rule) for dataset in run.datasets]
    return hash_of(
        {
            "notebook": script.read_text(),
            "code": files_hash({*code_files(script), *code_files("mlprobe_utils.book.run_chapter")}),
            "parameters": page.parameters,
            "published": os.environ.get("MLPROBE_PUBLISH", ""),
            "files": [hash_of(path.read_bytes()) for path in page.files],
            "results": results_below(folders),
        }
    )


def stale_pages(run: Run) -> list[Page]:
    """The pages of a run's book that were never executed, or that were made from something else."""
    made_from = lambda page: read_record(record_of(page.name))["made_from"]  # noqa: E731
    return [p for p in book_pages(run) if damage_of(p.name) or made_from(p) != page_made_from(p, run)]


def chapters() -> list[str]:
    return [name for name in notebooks() if name[0].isdigit()]


def notebooks() -> list[str]:
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def model_page(slug: str) -> str:
    return f"models/{slug}"


def notebook_of(page: str) -> str | None:
    """The notebook that makes a page; None for a page that is written as text."""
    name = OF_A_MODEL if page.startswith("models/") else page
    return name if name in notebooks() else None


def script_of(notebook: str) -> Path:
    """The percent script of a notebook. Raises InputError if there is none of that name."""
    if notebook not in notebooks():
        raise unknown("notebook", notebook, notebooks())
    return NOTEBOOKS / f"{notebook}.py"


def without_models(card: Discussion) -> str:
    return (
        f"No model of this run belongs to the discussion '{card.slug}' ({card.title}), which covers "
        f"{', '.join(card.models)} and their miniatures: add one of these to MODELS, or one of this run to `models` "
        f"in data/{Discussion.folder}/{card.slug}.yml."
    )


def without_faults() -> str:
    return (
        f"Faults are planted in {load_book().planted_faults.model}, which is not in this run: add it to MODELS, or "
        "name a model of this run as planted_faults.model in data/book.yml."
    )


def leave_out(notebook: "NotebookNode", models: Iterable[str]) -> None:
    """Puts its heading and a sentence in the place of a section that these models cannot fill; unlinks what is gone."""
    needs = {card.slug: without_models(card) for card in discussions() if not taking_part(card, models)}
    if not damaged_models(models):
        needs["planted-faults"] = without_faults()
    whole, kept, before = headings(notebook.cells), [], []
    level = 0  # of the heading whose section is being left out; 0: none is
    for cell in notebook.cells:
        heading = re.match(r"(#+) .*", cell.source) if cell.cell_type == "markdown" else None
        if level and not (heading and len(heading[1]) <= level):
            continue
        tags = [tag.removeprefix(NEEDS) for tag in cell.metadata.get("tags", []) if heading and tag.startswith(NEEDS)]
        sentences = [needs[need] for need in tags if need in needs]
        level = len(heading[1]) if sentences else 0
        if not sentences or sentences != before:  # else the sentence is right above
            cell.source = "\n\n".join([heading[0], *sentences]) if sentences else cell.source
            kept.append(cell)
        before = sentences
    gone = whole - headings(kept)
    for cell in kept:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda link: link[1] if link[2] in gone else link[0], cell.source)
    notebook.cells = kept


def headings(cells: Iterable["NotebookNode"]) -> set[str]:
    """The targets of links within the page: the heading "Cell by cell" is `cell-by-cell`."""
    texts = [text for cell in cells if cell.cell_type == "markdown" for text in HEADING.findall(cell.source)]
    return {"-".join(re.sub(r"[^\w\s-]", "", text.lower()).split()) for text in texts}
