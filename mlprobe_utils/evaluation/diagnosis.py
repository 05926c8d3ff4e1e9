"""The four failure modes (paper, section 4.2) as measurable statements: what is lost between fixed sites.

What a module has truly lost, nothing behind it can have (data processing inequality: Cover and Thomas 2006, section
2.8), but a probe may decode a site badly that later sites show to be rich. So a quality limitation is claimed only
where every later site, too, is below: its loss is the least of these.

A mode is named where the whole simultaneous interval of its loss lies beyond a threshold (set on undamaged models),
ruled out where all of it lies short of it, and is not distinguishable otherwise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.names import MODES, SITES
from mlprobe_utils.stats.intervals import RECIPE, intervals
from mlprobe_utils.stats.resampling import Resamples, accuracy

REFERENCE, VISION_TOWER, CONNECTOR, IMAGE_TOKENS, LAST_TOKEN, OUTPUT = SITES
QUALITY, FIDELITY, COMPREHENSION, MISALIGNMENT = MODES
NAMED, RULED_OUT, UNDECIDED = "named", "ruled out", "not distinguishable on this many images"


class Statement(NamedTuple):
    """Something is lost: none of the sites `after` shows what can be decoded at `before`."""

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

NAMES = [statement.name for statement in STATEMENTS]


def losses(
    correct: Mapping[str, np.ndarray],
    resamples: Resamples,
    scope: str = RECIPE,
    statements: Sequence[Statement] = STATEMENTS,
) -> pd.DataFrame:
    """What is lost between the sites of each statement, with intervals that hold for all of them at once: statement,
    mode, before, after (the site where least is lost), value (the change up to there in percentage points), band_low
    and band_high (of the least loss). Errors as `intervals`. `correct` is site -> whether each image of `resamples` is
    correct, bool [seeds, images], or [images] without seeds."""
    pairs = [(statement, after) for statement in statements for after in statement.after]
    sites = [*dict.fromkeys(site for statement, after in pairs for site in (statement.before, after))]
    of_sites = np.broadcast_arrays(*(np.atleast_2d(correct[site]) for site in sites))
    known = accuracy(np.stack(of_sites, axis=1), resamples)
    before = known.at([sites.index(statement.before) for statement, _ in pairs])
    after = known.at([sites.index(site) for _, site in pairs])
    columns = ["statement", "mode", "before", "after"]
    changes = pd.DataFrame([[*statement[:3], site] for statement, site in pairs], columns=columns)
    changes = changes.join(intervals(after - before, scope))
    by_statement = changes.groupby("statement", sort=False)
    least = changes.loc[by_statement["value"].idxmax(), [*columns, "value"]]
    # of several changes the largest lies between the largest of the lower and the largest of the upper ends
    ends = by_statement[["band_low", "band_high"]].max()
    return least.join(ends, on="statement").reset_index(drop=True)


def verdicts(lost: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """`losses` with threshold, beyond (percentage points of loss beyond it at the interval's end nearer to 0: positive
    where the mode is named) and verdict."""
    threshold = lost["statement"].map(lambda name: float(thresholds[name]))
    beyond, short = -lost["band_high"] - threshold, lost["band_low"] + threshold
    verdict = np.select([beyond > 0, short > 0], [NAMED, RULED_OUT], UNDECIDED)
    return lost.assign(threshold=threshold, beyond=beyond, verdict=verdict)


def thresholds(undamaged: pd.DataFrame, least: float) -> dict[str, float]:
    """Statement -> the loss that counts, percentage points: `least`, or the most that an undamaged case, a row with
    `band_high: <statement>` for each, loses for certain. InputError where there are none."""
    if undamaged.empty:
        raise InputError("thresholds are set on undamaged cases, found none: run models of another family, too")
    return {name: max(least, float(-undamaged[f"band_high: {name}"].min())) for name in NAMES}
