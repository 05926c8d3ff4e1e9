"""Sections of a page that a run's models cannot fill: they are left out, and a sentence says what they need.

A notebook tags the cell that begins such a section, with its heading, `needs-<need>`: a discussion's slug, or
`planted-faults`. The section ends before the next heading of the same level or a higher one.
"""

import re
from collections.abc import Iterable

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.fault_card import damaged_models
from mlprobe_utils.pipeline.variants import Discussion, discussions, taking_part

NEEDS = "needs-"  # how the tag begins
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\(#([\w-]+)\)")


def without_models(card: Discussion) -> str:
    return (
        f"None of the models of this run takes part in the discussion '{card.slug}' ({card.title}). It is about "
        f"{', '.join(card.models)} and miniatures of them: add one to MODELS, or one of the run's to `models` in "
        f"data/{Discussion.folder}/{card.slug}.yml."
    )


def without_faults() -> str:
    return (
        f"Faults are planted in {load_book().planted_faults.model}, which is not among the models of this run: add it "
        "to MODELS, or name one of the run's as planted_faults.model in data/book.yml."
    )


def leave_out(notebook: NotebookNode, models: Iterable[str]) -> None:
    """Puts its heading and a sentence in the place of every section that these models cannot fill.

    A link to a heading that is gone becomes its text.
    """
    needs = {card.slug: without_models(card) for card in discussions() if not taking_part(card, models)}
    if not damaged_models(models):
        needs["planted-faults"] = without_faults()
    kept, level, before = [], 0, None  # level of the heading whose section is being left out, 0: none is
    for cell in notebook.cells:
        heading = re.match(r"(#+) .*", cell.source) if cell.cell_type == "markdown" else None
        if level and not (heading and len(heading[1]) <= level):
            continue
        tags = [tag.removeprefix(NEEDS) for tag in cell.metadata.get("tags", []) if heading and tag.startswith(NEEDS)]
        sentences = [needs[need] for need in tags if need in needs]
        level = len(heading[1]) if sentences else 0
        if not sentences or sentences != before:  # else the sentence is right above
            kept.append(new_markdown_cell("\n\n".join([heading[0], *sentences])) if sentences else cell)
        before = sentences
    gone = headings(notebook.cells) - headings(kept)
    for cell in kept:
        if cell.cell_type == "markdown":
            cell["source"] = LINK.sub(lambda link: link[1] if link[2] in gone else link[0], cell.source)
    notebook.cells = kept


def headings(cells: Iterable[NotebookNode]) -> set[str]:
    """The targets of links within the page: the heading "Cell by cell" is `cell-by-cell`."""
    texts = [text for cell in cells if cell.cell_type == "markdown" for text in HEADING.findall(cell.source)]
    return {"-".join(re.sub(r"[^\w\s-]", "", text.lower()).split()) for text in texts}
