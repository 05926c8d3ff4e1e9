"""Thresholds of the diagnosis from undamaged models, and whether it is right about damaged ones.

A table of cases has one row a case: what was planted (fault, mode, strength), and what is lost at each statement, in
the columns `value: <statement>`, `band_low: …` and `band_high: …` (`diagnosis.losses`). Cases of one model are not
independent of each other: they share its weights and its images.
"""

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import (
    MODES,
    NAMED,
    STATEMENTS,
    verdicts,
)

LOSS = ("value", "band_low", "band_high")
NAMES = [statement.name for statement in STATEMENTS]


def flat(lost: pd.DataFrame) -> dict[str, float]:
    """What `diagnosis.losses` gives of one case, as the columns of a table of cases."""
    return {f"{column}: {row['statement']}": row[column] for _, row in lost.iterrows() for column in LOSS}


def unflat(cases: pd.DataFrame) -> pd.DataFrame:
    """The losses of a table of cases, as `diagnosis.losses` gives them, with the index of the case they are of."""
    columns = {"case": cases.index.repeat(len(NAMES)), "statement": NAMES * len(cases)}
    columns |= {"mode": [statement.mode for statement in STATEMENTS] * len(cases)}
    values = {column: cases[[f"{column}: {name}" for name in NAMES]].to_numpy().ravel() for column in LOSS}
    return pd.DataFrame(columns | values)


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
    undamaged, found = cases[cases["mode"].isna()], []
    for family, own in cases.groupby("family", sort=False):
        counted = thresholds(undamaged[undamaged["family"] != family], least)
        verdict = verdicts(unflat(own), counted)
        named = verdict[verdict["verdict"] == NAMED].groupby("case")["mode"].unique().reindex(own.index)
        main = named.map(lambda modes: min(modes, key=MODES.index), na_action="ignore")
        columns = {f"threshold: {name}": points for name, points in counted.items()}
        found.append(own.assign(**columns, told=main, named=named.str.join("; ").fillna("")))
    judged = pd.concat(found).loc[cases.index]
    same = (judged["told"] == judged["mode"]) | (judged["told"].isna() & judged["mode"].isna())
    return judged.assign(right=same)
