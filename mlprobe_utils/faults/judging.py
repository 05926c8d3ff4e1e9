"""Thresholds of the diagnosis from undamaged models, and whether it is right about damaged ones. No torch.

A table of cases has one row a case: what was planted (fault, mode, strength), and what is lost at each statement, in
the columns `value: <statement>`, `band_low: …` and `band_high: …` (`diagnosis.losses`). Cases of one model are not
independent of each other: they share its weights and its images.
"""

from collections.abc import Iterable

import pandas as pd

from mlprobe_utils.diagnosis import (
    NAMED,
    STATEMENTS,
    main_mode,
    verdicts,
)
from mlprobe_utils.errors import InputError

LOSS = ("value", "band_low", "band_high")
NAMES = [statement.name for statement in STATEMENTS]


def flat(lost: pd.DataFrame) -> dict[str, float]:
    """What `diagnosis.losses` gives of one case, as the columns of a table of cases."""
    return {f"{column}: {row['statement']}": row[column] for _, row in lost.iterrows() for column in LOSS}


def unflat(case: pd.Series) -> pd.DataFrame:
    """The losses of one row of a table of cases, as `diagnosis.losses` gives them."""
    rows = [(s.name, s.mode, *(case[f"{column}: {s.name}"] for column in LOSS)) for s in STATEMENTS]
    return pd.DataFrame(rows, columns=["statement", "mode", *LOSS])


def thresholds(undamaged: pd.DataFrame, least: float) -> dict[str, float]:
    """The losses that count: statement -> points.

    More than any undamaged case loses for certain, so that none of them has a mode named, and `least` at least.

    Args:
        undamaged: a table of undamaged cases.
        least: points: a smaller loss is no failure mode, however clear it is.

    Raises:
        InputError: no cases.
    """
    if undamaged.empty:
        raise InputError("thresholds are set on undamaged cases, found none: run models of another family, too")
    return {name: max(least, float(-undamaged[f"band_high: {name}"].min())) for name in NAMES}


def judged(cases: pd.DataFrame, least: float) -> pd.DataFrame:
    """What is told of each case, by thresholds that have not seen its family.

    Args:
        cases: a table of cases with a column family; mode is null of undamaged ones.
        least: as of `thresholds`.

    Returns:
        `cases` with `threshold: <statement>`, told (mode or null), named (all modes named, joined by "; ") and right
        (of an undamaged case: nothing is told).

    Raises:
        InputError: cases of one family alone.
    """
    undamaged = cases[cases["mode"].isna()]
    told = []
    for family, own in cases.groupby("family", sort=False):
        counted = thresholds(undamaged[undamaged["family"] != family], least)
        told += [(index, *_told(case, counted)) for index, case in own.iterrows()]
    columns = ["index", *(f"threshold: {name}" for name in NAMES), "told", "named"]
    found = pd.DataFrame(told, columns=columns).set_index("index").reindex(cases.index)
    same = (found["told"] == cases["mode"]) | (found["told"].isna() & cases["mode"].isna())
    return cases.assign(**found, right=same)


def _told(case: pd.Series, counted: dict[str, float]) -> Iterable:
    verdict = verdicts(unflat(case), counted)
    named = verdict.loc[verdict["verdict"] == NAMED, "mode"].unique()
    return *counted.values(), main_mode(verdict), "; ".join(named)
