"""How strong planted faults are, by the oracle on fresh phantoms, and how often the diagnosis of them is correct. The
table of the last `make laboratory` and what it was run with come with the project, in data/diagnosis/; a checkout's own
run, in outputs/diagnosis/, takes their place. The thresholds of every diagnosis come from its undamaged cases."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import binomtest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import atomic_write, file_hash, hash_of
from mlprobe_utils.common.settings import Words
from mlprobe_utils.evaluation.diagnosis import MODES, NAMES, STATEMENTS, thresholds
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.pipeline import artefacts, fault_card
from mlprobe_utils.pipeline.cards import Card, parse_card
from mlprobe_utils.pipeline.fault_card import DIAGNOSIS, FILES, all_faults, load_trial
from mlprobe_utils.pipeline.results import CALIBRATION, HITS, STRENGTHS, Selection
from mlprobe_utils.stats.intervals import LEVEL, intervals
from mlprobe_utils.stats.resampling import accuracy, resample

RATES = ["what", "of", "cases", "models", "correct", "share", "low", "high", "others"]
BOTH = ("intact", "damaged")
NOTHING = "nothing"  # planted, or detected
STRONG, WEAK, FALSE_ALARMS = "strong cases", "weaker cases", "false alarms"
LOSS = ("value", "band_low", "band_high")
PLANTED = ["fault", "kind", "module", "destroys", "wanted", "reached", "severity"]
ENDS = ("_lost", "_low", "_high")
MEASURES = ["lost", "lost_low", "lost_high", *(f"{name}{end}" for name in ("answer", "oracle") for end in ENDS)]
MEASURED = [*PLANTED, "point", "images", *BOTH, *MEASURES]
PLACED = ["model", "dataset", "family", "run", *PLANTED, "mode"]
LOST = [*MEASURES, *(f"{column}: {name}" for name in NAMES for column in LOSS)]  # points
CHANGED = "The cards of faults or trial have changed since: run `make laboratory` again."


class LaboratoryRun(Card):
    folder, in_words = DIAGNOSIS, "laboratory run"
    date: Words = Field(description="ISO 8601")
    commit: Words
    command: Words
    cards: Words = Field(description="hash of the cards of faults and trial")
    table: str = Field(default="", description="SHA-256 of the table")


@dataclass(frozen=True)
class Laboratory:
    """A laboratory run and the table of its cases, judged by thresholds that have not seen a case's family."""

    run: LaboratoryRun
    cases: pd.DataFrame

    @cached_property
    def rates(self) -> pd.DataFrame:
        """How often the diagnosis is correct, with exact intervals, for which the cases of a model count as
        independent: what, of (all, or one mode, family, data set, or number of points to be lost), cases, models,
        correct (of FALSE_ALARMS: how many named a mode), share, low and high (percent), others (several modes named,
        percent)."""
        damaged, strong, rows = self.cases["mode"].notna(), self.cases["strong"], []
        for what, chosen in ((STRONG, strong), (WEAK, damaged & ~strong), (FALSE_ALARMS, ~damaged)):
            own = self.cases[chosen]
            columns = ("mode", "family", "dataset", "wanted")
            parts = [part for column in columns for part in own.groupby(column, sort=False)]
            for of, cases in ([("all", own)] if len(own) else []) + parts:
                counted = int((cases["diagnosed"].notna() if what == FALSE_ALARMS else cases["correct"]).sum())
                of, many = f"{of:g} points" if isinstance(of, float) else of, len(cases)
                shares = (100 * (counted / many), *exact_interval(counted, many))
                others = 100 * cases["named"].str.contains(";").mean()
                rows.append((what, of, many, cases["model"].nunique(), counted, *shares, others))
        return pd.DataFrame(rows, columns=RATES)

    def thresholds(self, families: Iterable[str]) -> dict[str, dict[str, float]]:
        """Family -> statement -> the least loss that counts (pp), set on undamaged cases of other families."""
        return by_family(self.cases, families, load_trial().least_loss)

    def words(self) -> str:
        """How often the diagnosis is correct, in sentences."""
        cases, damaged = self.cases, int(self.cases["mode"].notna().sum())
        text = f"In the laboratory run of {self.run.date} (commit {self.run.commit}), of {damaged} damaged and "
        text += f"{len(cases) - damaged} undamaged cases of {cases['model'].nunique()} miniatures: "
        names = {STRONG: "strong faults diagnosed correctly", WEAK: "weaker faults", FALSE_ALARMS: "false alarms"}
        words = "{0} {1.correct} of {1.cases} ({1.share:.0f} %, exact 95 % interval {1.low:.0f} to {1.high:.0f})"
        whole = self.rates[self.rates["of"] == "all"].itertuples()
        text += "; ".join(words.format(names[row.what], row) for row in whole)
        return f"{text}." if self.run.cards == cards_hash() else f"{text}. {CHANGED}"


def flat(lost: pd.DataFrame) -> dict[str, float]:
    """The `diagnosis.losses` of one case as columns of a table of cases, `value: <statement>` and so on."""
    return {f"{column}: {row['statement']}": row[column] for _, row in lost.iterrows() for column in LOSS}


def by_family(cases: pd.DataFrame, families: Iterable[str], least: float) -> dict[str, dict[str, float]]:
    """`Laboratory.thresholds`; cases of null mode are undamaged."""
    undamaged = cases[cases["mode"].isna()]
    return {family: thresholds(undamaged[undamaged["family"] != family], least) for family in families}


def judged(cases: pd.DataFrame, least: float) -> pd.DataFrame:
    """Cases with their diagnosis, by thresholds from other families: named (all modes, joined by "; "), diagnosed (the
    first of them, or null) and correct (of an undamaged case: nothing is diagnosed)."""
    limits, named = by_family(cases, cases["family"].unique(), least), []
    for case in cases.to_dict("records"):
        own = limits[case["family"]]
        named.append([s.mode for s in STATEMENTS if -case[f"band_high: {s.name}"] > own[s.name]])
    found = cases.assign(named=["; ".join(dict.fromkeys(modes)) for modes in named])
    found["diagnosed"] = [next(iter(modes), None) for modes in named]
    nothing = found[["diagnosed", "mode"]].isna().all(axis=1)
    return found.assign(correct=(found["diagnosed"] == found["mode"]) | nothing)


def read() -> Laboratory:
    """The last laboratory run. Raises InputError where a file is missing or not valid."""
    (cases, run), mend = fault_card.laboratory_files(), "restore it, or run `make laboratory`"
    for path in (cases, run):
        if not path.is_file():
            raise InputError(f"{artefacts.relative(path)} is not there: {mend}")
    card, trial = parse_card(LaboratoryRun, run), load_trial()
    if card.table and card.table != file_hash(cases):
        raise InputError(f"{artefacts.relative(cases)} is not as it was written: {mend}")
    table = pd.read_csv(cases)
    if missing := [column for column in (*PLACED, *LOST) if column not in table]:
        raise InputError(f"{artefacts.relative(cases)} lacks the column '{missing[0]}': {mend}")
    table = judged(table, trial.least_loss)
    strong = table["mode"].notna() & (table["lost"] >= trial.strong)
    return Laboratory(card, table.assign(strong=strong))


def write(cases: pd.DataFrame, date: str, commit: str, command: str) -> None:
    """Writes a table of cases, losses to 0.01 pp, and what it was run with to outputs/diagnosis/."""
    folder = artefacts.OUTPUTS / DIAGNOSIS
    table = cases[[*PLACED, *LOST]].round(dict.fromkeys(LOST, 2) | {"severity": 6})
    atomic_write(folder / FILES[0], table.to_csv(index=False))
    run = {"date": date, "commit": commit, "command": command, "cards": cards_hash()}
    run["table"] = file_hash(folder / FILES[0])
    atomic_write(folder / FILES[1], "".join(f"{key}: '{value}'\n" for key, value in run.items()))


def cards_hash() -> str:
    return hash_of([card.model_dump(mode="json") for card in (*all_faults(), load_trial())])[:16]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each planted mode (rows) were diagnosed as which mode (columns), or NOTHING."""
    order = [*MODES, NOTHING]
    counts = pd.crosstab(table["mode"].fillna(NOTHING).rename("planted"), table["diagnosed"].fillna(NOTHING))
    return counts.reindex(index=order, columns=order, fill_value=0)


def measured(selection: Selection) -> pd.DataFrame:
    """`measured_in` of the book's faults in the selected models: model, dataset, MEASURED. Raises InputError where
    faults were not calibrated."""
    tables = []
    for model, dataset, folder in selection.folders():
        command = f"{selection.command(model, dataset)} --planted {dataset}"
        artefacts.read_made_from(folder / CALIBRATION, command)
        tables.append(measured_in(folder / CALIBRATION).assign(model=model, dataset=dataset))
    return pd.concat(tables, ignore_index=True)


def measured_in(folder: Path) -> pd.DataFrame:
    """The measured strength of every fault of a calibration, MEASURED: as it was planted; images measured on, and for
    how many the fault's own measure, oracle or answer, is correct (intact, damaged); lost (points) of that measure,
    answer_lost and oracle_lost, with 95 % intervals (lost_low, lost_high and so on)."""
    strengths, hits, rows = artefacts.read_rows(folder / STRENGTHS), artefacts.read_rows(folder / HITS), []
    for planted in strengths.to_dict("records"):
        own = hits[(hits["fault"] == planted["fault"]) & (hits["wanted"] == planted["wanted"])]
        drawn, row = resample(np.arange(len(own))), planted | {"images": len(own)}
        by_oracle = planted["destroys"] and planted["module"] != ANSWER
        for name in ("answer", "oracle"):
            sides = [own[f"{name}_{side}"] for side in BOTH]
            if sides[0].isna().any():  # of the semantic mapping, where no state changes
                continue
            before, after = (accuracy(side.to_numpy(bool)[None], drawn) for side in sides)
            lost = -intervals(after - before).iloc[0][["value", "high", "low"]]
            row |= dict(zip([f"{name}{end}" for end in ENDS], lost, strict=True))
            if by_oracle == (name == "oracle"):
                row |= dict(zip([f"lost{end}" for end in ("", *ENDS[1:])], lost, strict=True))
                row |= {side: int(column.sum()) for side, column in zip(BOTH, sides, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=MEASURED)


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """The ends of the 95 % interval of a proportion, in percent (Clopper and Pearson 1934)."""
    bounds = binomtest(int(successes), int(trials)).proportion_ci(LEVEL, method="exact")
    return 100 * bounds.low, 100 * bounds.high
