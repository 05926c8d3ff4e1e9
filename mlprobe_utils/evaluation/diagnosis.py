"""The failure modes (paper, section 4.2) as testable statements: what is lost between fixed measurement points.

Information that a module has lost cannot reappear downstream (data processing inequality: Cover and Thomas 2006,
section 2.8), but one pooling, the mean of the image tokens or that by position, may miss what the other finds, and a
probe may decode one point badly although later points are decodable. So a statement compares the best accuracy
upstream, by either pooling, with the best accuracy downstream.

The first three modes have a location: the class was decodable there and no longer is. A read-out gap is a symptom
without a location: the class is decodable but does not reach the last token or the answer. Damage that leaves the class
decodable but unusable shows up there, wherever it lies.

Undamaged models also lose something between the points. A mode is detected where a loss exceeds what they lose
(Higgins, Thompson and Spiegelhalter 2009: the predictive distribution of a random-effects model), corrected for the
number of statements."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import ENDS_OF, LAST_TOKEN, MODES, OUTPUT, REFERENCE, TOWER_START, placed
from mlprobe_utils.stats.intervals import RECIPE, intervals
from mlprobe_utils.stats.paired import ALPHA, POWER, holm
from mlprobe_utils.stats.resampling import Resamples, accuracy

QUALITY, FIDELITY, COMPREHENSION, READ_OUT_GAP = MODES
WITH_PLACE = (QUALITY, FIDELITY, COMPREHENSION)  # modes with a location
NAMED, RULED_OUT, UNDECIDED = "detected", "ruled out", "inconclusive"
TOWER, CONNECTOR, LLM = ((site, placed(site)) for site in ENDS_OF.values())  # by either pooling


class Statement(NamedTuple):
    """Something is lost: what can be decoded at one of the points `before` cannot be decoded at any point `after`."""

    name: str
    mode: str
    before: tuple[str, ...]
    after: tuple[str, ...]


STATEMENTS = (
    Statement(QUALITY, QUALITY, (REFERENCE, TOWER_START), (*TOWER, *CONNECTOR, *LLM, LAST_TOKEN, OUTPUT)),
    Statement(FIDELITY, FIDELITY, TOWER, (*CONNECTOR, *LLM, LAST_TOKEN, OUTPUT)),
    Statement(COMPREHENSION, COMPREHENSION, CONNECTOR, LLM),
    Statement(f"{READ_OUT_GAP}, last token", READ_OUT_GAP, LLM, (LAST_TOKEN, OUTPUT)),
    Statement(f"{READ_OUT_GAP}, answer", READ_OUT_GAP, (LAST_TOKEN,), (OUTPUT,)),
)

NAMES = [statement.name for statement in STATEMENTS]


class Usual(NamedTuple):
    """What undamaged models lose, in percentage points: mean, its standard error, deviation between cases beyond the
    error of each, and how many models that is known from."""

    mean: float
    error: float
    between: float
    models: int


def losses(
    correct: Mapping[str, np.ndarray],
    resamples: Resamples,
    scope: str = RECIPE,
    statements: Sequence[Statement] = STATEMENTS,
) -> pd.DataFrame:
    """Loss between the points of each statement: statement, mode, before (the point of most loss), after (the one
    where least of it is lost), value (the change between these two in percentage points), error (its standard error),
    band_low and band_high (of the loss, simultaneous for all pairs of points). A point that is not in `correct` is left
    out before a loss, and so is a statement without others. Errors as `intervals`. `correct` is point -> whether each
    image of `resamples` is correct, bool [seeds, images], or [images] without seeds."""
    pairs = [(s, b, a) for s in statements for b in s.before if b in correct for a in s.after]
    sites = [*dict.fromkeys(site for _, *both in pairs for site in both)]
    of_sites = np.broadcast_arrays(*(np.atleast_2d(correct[site]) for site in sites))
    known = accuracy(np.stack(of_sites, axis=1), resamples)
    before, after = (known.at([sites.index(pair[side]) for pair in pairs]) for side in (1, 2))
    places = pd.DataFrame([[*s[:2], *both] for s, *both in pairs], columns=["statement", "mode", "before", "after"])
    changes = places.join(intervals(after - before, scope)[["value", "error", "band_low", "band_high"]])
    by_site = changes.groupby(["statement", "before"], sort=False)
    least = changes.loc[by_site["value"].idxmax()]
    most = least.loc[least.groupby("statement", sort=False)["value"].idxmin()].drop(columns=["band_low", "band_high"])
    # of several changes the largest lies between the largest of the lower and the largest of the upper ends; likewise
    # the smallest of these
    ends = by_site[["band_low", "band_high"]].max().groupby("statement", sort=False).min()
    return most.join(ends, on="statement").reset_index(drop=True)


def usual(cases: pd.DataFrame) -> dict[str, Usual]:
    """Statement -> what undamaged cases lose, which have no `module`; a row for each case, with `model`, and `value:
    <statement>` and `error: <statement>` as of `losses`. Cases of one model are not independent, so that models count.
    Runs that `collapsed` in training, to one answer or to all but one option, do not: they have a read-out gap of their
    own. InputError for fewer than two undamaged cases."""
    undamaged = cases[cases["module"].isna() & ~cases["collapsed"].astype(bool)]
    if len(undamaged) < 2:
        found = f"the loss without damage is estimated from two undamaged cases or more, found {len(undamaged)}"
        raise InputError(f"{found}: run models of another family, too")
    models, found = undamaged["model"].nunique(), {}
    for name in NAMES:
        lost, errors = -undamaged[f"value: {name}"], undamaged[f"error: {name}"]
        between = max(lost.var() - (errors**2).median(), 0.0) ** 0.5
        found[name] = Usual(lost.mean(), lost.std() / models**0.5, between, models)
    return found


def against_usual(lost: pd.DataFrame, known: Mapping[str, Usual], least: float) -> pd.DataFrame:
    """`losses` with usual (mean loss of undamaged cases), deviation (standard, of the loss to be expected of an
    undamaged model on these images), freedom (its degrees of freedom) and p (one-sided; 1 for a loss below `least`
    percentage points)."""
    mean, error, between, models = (lost["statement"].map(lambda s, i=i: known[s][i]).astype(float) for i in range(4))
    deviation = np.sqrt(between**2 + error**2 + lost["error"] ** 2)
    freedom = np.maximum(models - 1, 1)
    p = t.sf((-lost["value"] - mean) / deviation, freedom)
    p = np.where(-lost["value"] < least, 1.0, p)
    return lost.assign(usual=mean, deviation=deviation, freedom=freedom, p=p)


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """`against_usual` of all states of one table with p (Holm), over all rows; verdict (NAMED where it is below 5 %;
    RULED_OUT where the whole band lies short of the threshold); threshold (the loss from which on a single row of so
    many is detected) and detectable (the true loss that is detected in 80 % of cases), pp."""
    critical = t.isf(ALPHA / max(len(table), 1), table["freedom"])
    threshold = table["usual"] + critical * table["deviation"]
    table = table.assign(threshold=threshold, detectable=threshold + norm.isf(1 - POWER) * table["error"])
    table["p (Holm)"] = holm(table["p"])
    short = table["band_low"] + threshold > 0
    return table.assign(verdict=np.select([table["p (Holm)"] < ALPHA, short], [NAMED, RULED_OUT], UNDECIDED))


def main_first(named: pd.DataFrame) -> pd.DataFrame:
    """The detected rows of `verdicts`, the main one of each state first: modes with a location before
    symptoms, and then by how much the loss exceeds the usual one."""
    order = named.assign(symptom=~named["mode"].isin(WITH_PLACE), excess=named["value"] + named["usual"])
    return named.loc[order.sort_values(["symptom", "excess"], kind="stable").index]
