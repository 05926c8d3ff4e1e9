"""What the last `make laboratory` found: how often the diagnosis is right about planted faults.

The table of its cases and what it was run with are part of the project, in data/diagnosis/; a checkout's own run lies
in outputs/diagnosis/ and is shown instead. The thresholds of every diagnosis come from its undamaged cases.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from pydantic import Field

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, hash_of
from mlprobe_utils.common.settings import Words
from mlprobe_utils.evaluation.diagnosis import LOSS, MODES, NAMES, judged, thresholds
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.card_files import parse_card
from mlprobe_utils.pipeline.cards import Card
from mlprobe_utils.pipeline.fault_card import DIAGNOSIS, FILES, all_faults, laboratory_files, load_trial
from mlprobe_utils.pipeline.fault_results import exact_interval

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
        return rates(self.cases)

    def thresholds(self, families: Iterable[str]) -> dict[str, dict[str, float]]:
        """Family -> statement -> the least loss that counts, in points, set on undamaged cases of other families.

        Raises InputError where all undamaged cases are of this family.
        """
        undamaged, least = self.cases[self.cases["mode"].isna()], load_trial().least_loss
        return {family: thresholds(undamaged[undamaged["family"] != family], least) for family in families}

    def words(self) -> str:
        """How often the diagnosis is right, in sentences: date and commit, cases, rates, and whether cards changed."""
        cases, damaged = self.cases, int(self.cases["mode"].notna().sum())
        text = f"In the laboratory run of {self.run.date} (commit {self.run.commit}), of {damaged} damaged and "
        text += f"{len(cases) - damaged} undamaged cases of {cases['model'].nunique()} miniatures: "
        whole = self.rates[self.rates["of"] == "all"].set_index("what")
        names = {STRONG: "strong faults diagnosed correctly", WEAK: "weaker faults", FALSE_ALARMS: "false alarms"}
        for r in whole.itertuples():
            text += f"{names[r.Index]} {r.correct} of {r.cases} "
            text += f"({r.share:.0f} %, exact 95 % interval {r.low:.0f} to {r.high:.0f}); "
        text = text.removesuffix("; ") + "."
        return f"{text} {CHANGED}" if self.changed else text


def read() -> Laboratory:
    """The last laboratory run. Raises InputError where a file is missing or not valid."""
    cases, run = laboratory_files()
    for path in (cases, run):
        if not path.is_file():
            raise InputError(f"{artefacts.relative(path)} is not there: restore it, or run `make laboratory`")
    table, trial = pd.read_csv(cases), load_trial()
    if missing := [column for column in (*PLACED, *LOST) if column not in table]:
        name = artefacts.relative(cases)
        raise InputError(f"{name} lacks the column '{missing[0]}': restore it, or run `make laboratory`")
    table = judged(table, trial.least_loss)
    strong = table["mode"].notna() & (table["lost"] >= trial.strong)
    return Laboratory(parse_card(LaboratoryRun, run), table.assign(strong=strong))


def write(cases: pd.DataFrame, date: str, commit: str, command: str) -> None:
    """Leaves a table of cases (`judging`) and what it was run with in outputs/diagnosis/; losses to 0.01 points."""
    folder = artefacts.OUTPUTS / DIAGNOSIS
    table = cases[[*PLACED, *LOST]].round(dict.fromkeys(LOST, 2) | {"severity": 6})
    atomic_write(folder / FILES[0], table.to_csv(index=False))
    run = {"date": date, "commit": commit, "command": command, "cards": cards_hash()}
    atomic_write(folder / FILES[1], "".join(f"{key}: '{value}'\n" for key, value in run.items()))


def cards_hash() -> str:
    """Of the cards of faults and trial."""
    return hash_of([card.model_dump(mode="json") for card in (*all_faults(), load_trial())])[:16]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each planted mode (rows) were diagnosed as which (columns); NOTHING where none was."""
    order = [*MODES, NOTHING]
    counts = pd.crosstab(table["mode"].fillna(NOTHING).rename("planted"), table["diagnosed"].fillna(NOTHING))
    return counts.reindex(index=order, columns=order, fill_value=0)


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """How often the diagnosis is right, with exact intervals.

    These are narrower than intervals over models would be, as the cases of one model are not independent of each other:
    count the models beside them.

    Returns:
        what, of (all, or one mode, family, data set, or the points that were to be lost), cases, models, right (of
        FALSE_ALARMS: how many named something), share, low and high (percent), others (share of the cases in which
        several modes are named, percent).
    """
    damaged = table["mode"].notna()
    groups = {STRONG: table[table["strong"]], WEAK: table[damaged & ~table["strong"]], FALSE_ALARMS: table[~damaged]}
    records = []
    for what, own in groups.items():
        parts = [("all", own)] if len(own) else []
        for column in ("mode", "family", "dataset", "wanted"):
            parts += own.groupby(column, sort=False)
        for of, cases in parts:
            counted = int((cases["diagnosed"].notna() if what == FALSE_ALARMS else cases["correct"]).sum())
            low, high = exact_interval(counted, len(cases))
            of = f"{of:g} points" if isinstance(of, float) else of
            counts = {"cases": len(cases), "models": cases["model"].nunique(), "correct": counted}
            shares = {"share": 100 * (counted / len(cases)), "low": low, "high": high}
            shares["others"] = 100 * cases["named"].str.contains(";").mean()
            records.append({"what": what, "of": of} | counts | shares)
    return pd.DataFrame(records)
