"""What the last `make laboratory` found: how often the diagnosis was right about planted faults. No torch."""

import pandas as pd
from scipy.stats import binomtest

from mlprobe_utils import artefacts
from mlprobe_utils.diagnosis import MODES
from mlprobe_utils.faults import judging
from mlprobe_utils.faults.trial_card import CONFUSION, load_trial
from mlprobe_utils.intervals import LEVEL

NOTHING = "nothing"  # planted, or told
STRONG, WEAK, FALSE_ALARMS = "strong cases", "weaker cases", "false alarms"


def read() -> pd.DataFrame | None:
    """The table of cases, judged (`judging.judged`), with strong and date; None where no laboratory was run."""
    file = artefacts.OUTPUTS / CONFUSION
    return pd.read_parquet(file) if file.is_file() else None


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each planted mode (rows) were told as which (columns); NOTHING where none was."""
    order = [*MODES, NOTHING]
    counts = pd.crosstab(table["mode"].fillna(NOTHING).rename("planted"), table["told"].fillna(NOTHING))
    return counts.reindex(index=order, columns=order, fill_value=0)


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """How often the diagnosis is right, with exact intervals (Clopper and Pearson 1934).

    The cases of one model are not independent of each other, so that the intervals are narrower than those over models
    would be: beside the cases, count the models.

    Returns:
        what, of (all, or one mode, family, data set, or the points that were to be lost), cases, models, right (of
        FALSE_ALARMS: how many named something), share, low and high (percent), others (share of the cases in which
        several modes are named, percent).
    """
    damaged = table["mode"].notna()
    groups = {STRONG: table[table["strong"]], WEAK: table[damaged & ~table["strong"]], FALSE_ALARMS: table[~damaged]}
    records = []
    for what, own in groups.items():
        parts = [("all", own)]
        for column in ("mode", "family", "dataset", "wanted"):
            parts += own.groupby(column, sort=False)
        records += [_rate(what, of, part) for of, part in parts if len(part)]
    return pd.DataFrame(records)


def _rate(what: str, of: object, cases: pd.DataFrame) -> dict:
    counted = int((cases["told"].notna() if what == FALSE_ALARMS else cases["right"]).sum())
    bounds = binomtest(counted, len(cases)).proportion_ci(LEVEL, method="exact")
    shares = {"share": counted / len(cases), "low": bounds.low, "high": bounds.high}
    shares["others"] = cases["named"].str.contains(";").mean()
    counts = {"cases": len(cases), "models": cases["model"].nunique(), "right": counted}
    of = f"{of:g} points" if isinstance(of, float) else of
    return {"what": what, "of": of} | counts | {name: 100 * share for name, share in shares.items()}


def thresholds(table: pd.DataFrame) -> dict[str, float]:
    """The least losses that count, set on the undamaged cases of all families: statement -> points."""
    return judging.thresholds(table[table["mode"].isna()], load_trial().least_loss)
