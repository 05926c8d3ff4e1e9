"""The paper's claims beside what this run finds: a verdict for each, by one rule."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from mlprobe_utils.analysis import comparisons
from mlprobe_utils.analysis.comparisons import ALL_HEALTH
from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.stats.paired import ALPHA

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "cannot be decided here"
MARGIN = 2.0  # pp; a smaller change counts as none


class Finding(NamedTuple):
    published: str  # what the paper's own numbers support
    found: str  # in this run
    verdict: str


NOT_RUN = Finding("", "not part of this run", OPEN)


def by_sign(low: float, high: float, sign: int) -> str:
    """The verdict on a change that is claimed to be above 0 (`sign` 1) or below it (-1), from its interval."""
    ends = sorted((sign * low, sign * high))
    return CONFIRMED if ends[0] > 0 else REFUTED if ends[1] < 0 else OPEN


def by_margin(low: float, high: float, margin: float = MARGIN) -> str:
    """The verdict on the claim that there is no change to speak of: its interval lies within the margin, or beyond."""
    return CONFIRMED if -margin < low and high < margin else REFUTED if low > margin or high < -margin else OPEN


def by_count(count: int) -> str:
    """The verdict on the claim that something occurs: significant somewhere, or not shown."""
    return CONFIRMED if count else OPEN


def of_comparisons(profiles: pd.DataFrame, sizes: pd.DataFrame) -> dict[str, str]:
    """The verdicts on section 4.3, of profiles as `comparisons` takes them; open with few models. The order of data
    sets stays open: phantoms are not the paper's."""
    if profiles["model"].nunique() < comparisons.LEAST:
        return dict.fromkeys(("steadiest", "health", "poor", "size", "order"), OPEN)
    ratios, ranks = comparisons.steadier(profiles), comparisons.correlations(profiles)
    poor = comparisons.extremes(profiles).query("P_final == 'lowest'")
    grown = comparisons.size_signs(comparisons.size_steps(profiles, sizes)).set_index("score").loc[ALL_HEALTH]
    return {
        "steadiest": by_count(((ratios["ratio"] < 1) & (ratios["p (Holm)"] < ALPHA)).sum()),
        "health": by_count(((ranks["Spearman"] > 0) & (ranks["p (Holm)"] < ALPHA)).sum()),
        "poor": CONFIRMED if poor["degraded"].sum() == poor["models"].sum() else REFUTED,
        "size": CONFIRMED if grown["up"] < grown["steps"] else OPEN,
        "order": OPEN,
    }


def table(findings: Mapping[str, Finding]) -> pd.DataFrame:
    """One row per claim of data/published/claims.csv, in its order, with its finding: NOT_RUN where there is none."""
    claims = pd.read_csv(PUBLISHED / "claims.csv")
    own = pd.DataFrame([findings.get(name, NOT_RUN) for name in claims["claim"]])
    own.columns = ["published numbers support", "this run finds", "verdict here"]
    return pd.concat([claims[["section", "the paper says"]], own, claims["what would settle it"]], axis=1)
