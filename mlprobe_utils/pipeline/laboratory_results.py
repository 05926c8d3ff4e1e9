"""What the last `make laboratory` found: how often the diagnosis is right about planted faults.

The table of its cases and what it was run with are part of the project, in data/diagnosis/; a checkout's own run lies
in outputs/diagnosis/ and is shown instead. The thresholds of every diagnosis come from its undamaged cases.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from pydantic import Field
from scipy.stats import binomtest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of
from mlprobe_utils.common.settings import Words
from mlprobe_utils.evaluation.diagnosis import LOSS, MODES, NAMES, judged, thresholds
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.card_files import parse_card
from mlprobe_utils.pipeline.cards import Card
from mlprobe_utils.pipeline.fault_card import all_faults
from mlprobe_utils.pipeline.trial_card import DIAGNOSIS, LABORATORY, laboratory_files, load_trial
from mlprobe_utils.stats.intervals import LEVEL

NOTHING = "nothing"  # planted, or detected
STRONG, WEAK, FALSE_ALARMS = "strong cases", "weaker cases", "false alarms"
PLACED = ["model", "dataset", "family", "run", "fault", "mode", "wanted", "reached", "severity"]
LOST = ["lost", "lost_low", "lost_high", *(f"{column}: {name}" for name in NAMES for column in LOSS)]  # points
CHANGED = (
    "The cards of faults or trial have changed since: what follows is of the earlier ones, and `make laboratory` makes "
    "it anew."
)


class LaboratoryRun(Card):
    """With what a laboratory was run."""

    folder, kind = DIAGNOSIS, "laboratory run"
    date: Words = Field(description="ISO 8601")
    commit: Words
    command: Words
    cards: Words = Field(description="hash of the cards of faults and trial")


@dataclass(frozen=True)
class Laboratory:
    """A laboratory run and the table of its cases, judged by thresholds that have not seen a case's family."""

    run: LaboratoryRun
    cases: pd.DataFrame

    @property
    def changed(self) -> bool:
        """Whether the cards of faults or trial are others now."""
        return self.run.cards != cards_hash()

    @cached_property
    def rates(self) -> pd.DataFrame:
        """`rates` of the cases."""
        return rates(self.cases)

    def thresholds(self, families: Iterable[str]) -> dict[str, dict[str, float]]:
        """Family -> statement -> the least loss that counts, in points, set on undamaged cases of other families.

        Raises:
            InputError: all undamaged cases are of this family.
        """
        undamaged, least = self.cases[self.cases["mode"].isna()], load_trial().least_loss
        return {family: thresholds(undamaged[undamaged["family"] != family], least) for family in families}

    def words(self) -> str:
        """How often the diagnosis is right, in sentences: date and commit, cases, rates, and whether cards changed."""
        cases, damaged = self.cases, int(self.cases["mode"].notna().sum())
        said = f"In the laboratory run of {self.run.date} (commit {self.run.commit}), of {damaged} damaged and "
        said += f"{len(cases) - damaged} undamaged cases of {cases['model'].nunique()} miniatures: "
        said += f"{rate_words(self.rates)}."
        return f"{said} {CHANGED}" if self.changed else said


def read() -> Laboratory:
    """The last laboratory run. Raises InputError where a file is missing or not valid."""
    cases, run = laboratory_files()
    for path in (cases, run):
        if not path.is_file():
            raise InputError(f"{artefacts.relative(path)} is not there: restore it, or run `make laboratory`")
    table, trial = pd.read_csv(cases), load_trial()
    if missing := [column for column in (*PLACED, *LOST) if column not in table]:
        raise InputError(
            f"{artefacts.relative(cases)} lacks the column '{missing[0]}': restore it, or run `make laboratory`"
        )
    table = judged(table, trial.least_loss)
    strong = table["mode"].notna() & (table["lost"] >= trial.strong)
    return Laboratory(parse_card(LaboratoryRun, run), table.assign(strong=strong))


def write(cases: pd.DataFrame, date: str, commit: str, command: str) -> None:
    """Leaves a table of cases (`judging`) and what it was run with in outputs/diagnosis/; losses to 0.01 points."""
    folder = artefacts.OUTPUTS / DIAGNOSIS
    table = cases[[*PLACED, *LOST]].round(dict.fromkeys(LOST, 2) | {"severity": 6})
    atomic_write(folder / LABORATORY[0], table.to_csv(index=False))
    told = {"date": date, "commit": commit, "command": command, "cards": cards_hash()}
    atomic_write(folder / LABORATORY[1], "".join(f"{key}: '{value}'\n" for key, value in told.items()))


def cards_hash() -> str:
    """Of the cards of faults and trial."""
    return hash_of([card.model_dump(mode="json") for card in (*all_faults(), load_trial())])[:16]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each planted mode (rows) were diagnosed as which (columns); NOTHING where none was."""
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


def rate_words(rates: pd.DataFrame) -> str:
    """The rates over all cases in a sentence's words, from `rates`."""
    whole = rates[rates["of"] == "all"].set_index("what")
    words = {STRONG: "strong faults diagnosed correctly", WEAK: "weaker faults", FALSE_ALARMS: "false alarms"}
    said = [(words[what], whole.loc[what]) for what in words if what in whole.index]
    return "; ".join(
        f"{name} {r.right} of {r.cases} ({r.share:.0f} %, exact 95 % interval {r.low:.0f} to {r.high:.0f})"
        for name, r in said
    )
