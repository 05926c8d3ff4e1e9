"""Tables of the traditional classifiers: which there are, which a run has trained, how large they are."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mlprobe_utils.analysis.baseline_results import Trained
from mlprobe_utils.evaluation.categories import CATEGORIES
from mlprobe_utils.pipeline.baseline_card import STATUSES, BaselineCard
from mlprobe_utils.pipeline.published import short


def trained_table(cards: Sequence[BaselineCard], trained: Mapping[str, Sequence[Trained]], which: str) -> pd.DataFrame:
    """The baselines of a run: baseline, category, status, built as, parameters, trained at.

    Parameters are those of the first data set's network: another number of classes changes its last layer alone.

    Args:
        which: the variant that was trained.
    """
    sizes = {one.slug: one for one in next(iter(trained.values()))}
    rows = [
        {
            "baseline": card.name,
            "category": card.category,
            "status": card.status,
            "built as": _built(card, which),
            "parameters": short(sizes[card.slug].parameters),
            "trained at": f"{sizes[card.slug].side} px",
        }
        for card in cards
    ]
    return pd.DataFrame(rows)


def list_table(cards: Sequence[BaselineCard]) -> pd.DataFrame:
    """All baselines in the size of their originals: baseline, category, status, built as, described by, note."""
    rows = [
        {
            "baseline": card.name,
            "category": card.category,
            "status": card.status,
            "built as": _built(card, "full"),
            "described by": card.source,
            "note": card.note or "",
        }
        for card in cards
    ]
    return pd.DataFrame(rows)


def status_table(cards: Sequence[BaselineCard]) -> pd.DataFrame:
    """How many baselines have each status, and what it means: status, meaning, a column a category, all."""
    counts = pd.crosstab([card.status for card in cards], [card.category for card in cards])
    counts = counts.reindex(index=[*STATUSES], columns=[*CATEGORIES], fill_value=0)
    table = counts.assign(all=counts.sum(axis=1)).rename_axis(index="status", columns=None).reset_index()
    table.insert(1, "meaning", [STATUSES[status] for status in table["status"]])
    return table


def _built(card: BaselineCard, which: str) -> str:
    variant = card.variant(which)
    changed = ", made smaller" if which == "small" and variant.arguments and variant.library != "own" else ""
    own = "this project" if variant.library == "own" else variant.library
    return f"{own}: {variant.name}{changed}"
