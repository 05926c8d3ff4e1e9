"""The four failure modes (paper, section 4.2) as measurable statements: what is lost between fixed sites.

Sites (`sites`) are fixed before anything is seen: the best of many points, picked on the test images, would find
losses where there are none.

What a module has truly lost, nothing behind it can have (the data processing inequality: Cover and Thomas 2006, section
2.8). A probe may read a place badly that later places show to be rich. So quality limitation and fidelity loss are
claimed only where every later site, too, tells less than what lies before: their loss is the least of these.

A mode is named where the whole simultaneous interval of its loss lies beyond a threshold, ruled out where the whole of
it lies short of it, and is not distinguishable otherwise. Thresholds are set on undamaged models.

A table of cases has one row a case: what was planted (fault, mode, strength), and what is lost at each statement, in
the columns `value: <statement>`, `band_low: …` and `band_high: …` (`losses`). Cases of one model are not independent of
each other: they share its weights and its images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.sites import (
    COMPREHENSION,
    CONNECTOR,
    FIDELITY,
    IMAGE_TOKENS,
    LAST_TOKEN,
    MISALIGNMENT,
    MODES,
    OUTPUT,
    QUALITY,
    REFERENCE,
    VISION_TOWER,
)
from mlprobe_utils.stats.intervals import RECIPE, intervals
from mlprobe_utils.stats.resampling import Resamples, accuracy

NAMED, RULED_OUT, UNTOLD = "named", "ruled out", "not distinguishable on this many images"


@dataclass(frozen=True)
class Statement:
    """Something is lost: at none of the sites `after` can be decoded what can be decoded at `before`."""

    name: str
    mode: str
    before: str
    after: tuple[str, ...]


STATEMENTS = (
    Statement(QUALITY, QUALITY, REFERENCE, (VISION_TOWER, CONNECTOR, IMAGE_TOKENS, LAST_TOKEN, OUTPUT)),
    Statement(FIDELITY, FIDELITY, VISION_TOWER, (CONNECTOR,)),
    Statement(f"{COMPREHENSION}, image tokens", COMPREHENSION, CONNECTOR, (IMAGE_TOKENS,)),
    Statement(f"{COMPREHENSION}, last token", COMPREHENSION, CONNECTOR, (LAST_TOKEN,)),
    Statement(MISALIGNMENT, MISALIGNMENT, LAST_TOKEN, (OUTPUT,)),
)

LOSS = ("value", "band_low", "band_high")
NAMES = [statement.name for statement in STATEMENTS]


def losses(
    correct: Mapping[str, np.ndarray],
    resamples: Resamples,
    question: str = RECIPE,
    statements: Sequence[Statement] = STATEMENTS,
) -> pd.DataFrame:
    """What is lost between the sites of each statement, with simultaneous intervals.

    Args:
        correct: site -> whether each image is right, bool [seeds, images], or [images] of what has no seeds; every
            site of the statements, the images in the order of `resamples`.
        question: of `intervals.QUESTIONS`.
        statements: what is asked together.

    Returns:
        One row a statement: statement, mode, before, after (of the sites behind it the one where least is lost),
        value (the change up to there in points, a loss negative), band_low and band_high, which hold for all of them at
        once, and of several sites for the least of their losses.

    Raises:
        InputError: a site is missing, or sites have different numbers of seeds or images; as `intervals`.
    """
    pairs = [(statement, after) for statement in statements for after in statement.after]
    needed = dict.fromkeys(site for statement, after in pairs for site in (statement.before, after))
    if missing := [site for site in needed if site not in correct]:
        raise InputError(f"a diagnosis needs every site, found no {missing[0]}: {', '.join(needed)}")
    seeds = max([1, *(len(own) for own in correct.values() if own.ndim == 2)])
    images = resamples.counts.shape[1]
    for site, own in correct.items():
        if own.shape not in ((images,), (seeds, images)):
            raise InputError(f"site '{site}' has outcomes {own.shape}, expected ({seeds} seeds, {images} images)")
    sites = [*needed]
    known = accuracy(np.stack([np.broadcast_to(correct[s], (seeds, images)) for s in sites], axis=1), resamples)
    before = known.at([sites.index(statement.before) for statement, _ in pairs])
    after = known.at([sites.index(site) for _, site in pairs])
    changes = intervals(after - before, question)
    changes = changes.assign(statement=[s.name for s, _ in pairs], mode=[s.mode for s, _ in pairs])
    changes = changes.assign(before=[s.before for s, _ in pairs], after=[site for _, site in pairs])
    by_statement = changes.groupby("statement", sort=False)
    least = changes.loc[by_statement["value"].idxmax(), ["statement", "mode", "before", "after", "value"]]
    # of several changes the largest lies between the largest of the lower and the largest of the upper ends
    ends = by_statement[["band_low", "band_high"]].max()
    return least.join(ends, on="statement").reset_index(drop=True)


def verdicts(lost: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Which statements hold: `lost`, from `losses`, with the columns threshold, beyond and verdict.

    `beyond` is the loss beyond the threshold in points, at the end of the interval that is nearer to none: positive
    where the mode is named, and the larger the clearer.

    Args:
        thresholds: statement -> the least loss that counts, points.

    Raises:
        InputError: a statement without a threshold.
    """
    if missing := [name for name in lost["statement"] if name not in thresholds]:
        raise InputError(f"no threshold for '{missing[0]}': give one for each of {', '.join(lost['statement'])}")
    threshold = lost["statement"].map(dict(thresholds)).astype(float)
    beyond, short = -lost["band_high"] - threshold, lost["band_low"] + threshold
    verdict = np.select([beyond > 0, short > 0], [NAMED, RULED_OUT], UNTOLD)
    return lost.assign(threshold=threshold, beyond=beyond, verdict=verdict)


def main_mode(judged: pd.DataFrame) -> str | None:
    """The first mode named, as the information flows, of one model on one data set; None where none is named.

    A loss has consequences behind it, never before it: what comes after the first one may be its doing.

    Args:
        judged: from `verdicts`.
    """
    named = judged.loc[judged["verdict"] == NAMED, "mode"]
    return next((mode for mode in MODES if mode in named.to_numpy()), None)


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
    """The diagnosis of each case, by thresholds that have not seen its family.

    Args:
        cases: a table of cases with a column family; mode is null of undamaged ones.
        least: as of `thresholds`.

    Returns:
        `cases` with `threshold: <statement>`, diagnosed (mode or null), named (all modes named, joined by "; ") and
        correct (of an undamaged case: nothing is diagnosed).

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
        found.append(own.assign(**columns, diagnosed=main, named=named.str.join("; ").fillna("")))
    judged = pd.concat(found).loc[cases.index]
    same = (judged["diagnosed"] == judged["mode"]) | (judged["diagnosed"].isna() & judged["mode"].isna())
    return judged.assign(correct=same)
