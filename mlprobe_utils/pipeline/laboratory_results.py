"""How strong planted faults are, by the reference measurement, and how often the diagnosis is correct. The table
of the last `make laboratory` and what it was run with come with the project, in data/diagnosis/; a checkout's own
run, in outputs/diagnosis/, takes their place. What undamaged models lose is measured on its undamaged cases."""

import itertools
from collections.abc import Iterable, Mapping
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
from mlprobe_utils.evaluation import diagnosis, used
from mlprobe_utils.evaluation.diagnosis import NAMES, STATEMENTS, Usual
from mlprobe_utils.evaluation.names import MODES
from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.evaluation.used import CONNECTOR, INCONCLUSIVE, Shares
from mlprobe_utils.evaluation.used import PARTS as PARTS_OF_MODELS
from mlprobe_utils.pipeline import artefacts, fault_card
from mlprobe_utils.pipeline.cards import Card, parse_card
from mlprobe_utils.pipeline.fault_card import DIAGNOSIS, FILES, all_faults, load_trial
from mlprobe_utils.pipeline.results import CALIBRATION, HITS, STRENGTHS, Selection
from mlprobe_utils.stats.intervals import LEVEL, intervals
from mlprobe_utils.stats.paired import ALPHA
from mlprobe_utils.stats.resampling import accuracy, resample

PARTS = ("module", "kind", "family", "dataset")
BOTH = ("intact", "damaged")
NOTHING = "nothing"  # planted, or detected
LEAST_LOST = 10.0  # pp: what costs less is not held against a diagnosis
PLACED_RIGHT = "class destroyed, loss of {strong:g} pp or more: located correctly"
FALSE_ALARMS = "undamaged: false alarm"
LOSS = ("value", "error")
PLANTED = ["fault", "kind", "module", "destroys", "wanted", "reached", "severity"]
ENDS = ("_lost", "_low", "_high")
MEASURES = ["lost", "lost_low", "lost_high", *(f"{name}{end}" for name in ("answer", "oracle") for end in ENDS)]
MEASURED = [*PLANTED, "point", "images", *BOTH, *MEASURES]
PLACED = ["model", "dataset", "family", "run", "collapsed", *PLANTED, "mode"]
HELPED = tuple(part for part in PARTS_OF_MODELS if part != CONNECTOR)  # which can be left out
EDITED = [*(f"{column}: {part}" for part in HELPED for column in ("change", "high", "p")), "decodable", "answered"]
EDITED += ["by twin", "part"]
SHARES = [Shares(a / 10, b / 10) for a in range(3, 9) for b in range(4, 11)]  # that are tried
MOST_MISPLACED = 10.0  # percent of the cases that a share is set on
LOST = [*MEASURES, *(f"{column}: {name}" for name in NAMES for column in LOSS)]  # points
CHANGED = "The cards of the faults or of the trial have changed since: run `make laboratory` again."


class LaboratoryRun(Card):
    folder, in_words = DIAGNOSIS, "benchmark run"
    date: Words = Field(description="ISO 8601")
    commit: Words
    command: Words
    cards: Words = Field(description="hash of the cards of faults and trial")
    table: str = Field(default="", description="SHA-256 of the table")


@dataclass(frozen=True)
class Laboratory:
    """A run of the fault-injection benchmark and its cases, each judged by undamaged cases of other families."""

    run: LaboratoryRun
    cases: pd.DataFrame

    @cached_property
    def rates(self) -> pd.DataFrame:
        """How often the diagnosis is correct, with exact intervals that treat the cases of a model as independent:
        what, of (all, or one module, kind, family or data set), cases, models, counted, share, low, high (percent)."""
        cases, rows, limit = self.cases, [], load_trial().strong
        damaged, destroyed = cases["module"].notna(), cases["destroys"].fillna(False).astype(bool)
        collapsed = cases["collapsed"].astype(bool)
        strong, costly = (damaged & (cases["lost"] >= least) for least in (limit, LEAST_LOST))
        detected, right = cases["diagnosed"].notna(), cases["diagnosed"] == cases["mode"]
        misplaced = cases["diagnosed"].isin(diagnosis.WITH_PLACE) & ~right
        counts = {
            PLACED_RIGHT: (strong & destroyed, right),
            "class destroyed, smaller loss: located correctly": (damaged & destroyed & ~strong, right),
            "class made unusable, loss of {strong:g} pp or more: detected": (strong & ~destroyed, detected),
            f"all faults with a loss of {LEAST_LOST:g} pp or more: located incorrectly": (costly, misplaced),
            FALSE_ALARMS: (~damaged & ~collapsed, detected),
            "undamaged, but collapsed in training: something detected": (~damaged & collapsed, detected),
        }
        for what, (chosen, counted) in counts.items():
            own = cases[chosen].assign(counted=counted[chosen])
            parts = [("all", own), *(part for column in PARTS for part in own.groupby(column, sort=False))]
            for of, part in parts if len(own) else ():
                hit = int(part["counted"].sum())
                shares = (100 * hit / len(part), *exact_interval(hit, len(part)))
                rows.append((what.format(strong=limit), of, len(part), part["model"].nunique(), hit, *shares))
        return pd.DataFrame(rows, columns=["what", "of", "cases", "models", "counted", "share", "low", "high"])

    def usual(self, families: Iterable[str]) -> dict[str, dict[str, Usual]]:
        """Family -> statement -> what undamaged cases of other families lose."""
        return by_family(self.cases, families)

    @cached_property
    def _places(self) -> dict[Shares, pd.Series]:
        """Where interventions place each case, without a twin."""
        return {shares: self.cases.apply(_placed, axis=1, shares=shares) for shares in SHARES}

    def share(self, family: str, kind: str | None = None) -> Shares:
        """The shares set on kept-but-unusable faults of other families, and of other kinds than `kind`: with them the
        most are placed right, and of as many the fewest wrong, of those that misplace few."""
        cases = self.cases
        used_for = _costly(cases, False) & (cases["family"] != family) & (cases["kind"] != kind)
        truth, rates = cases.loc[used_for, "part"], {}
        for shares, places in self._places.items():
            own = places[used_for]
            rates[shares] = (own == truth).mean(), 100 * (own.isin(PARTS_OF_MODELS) & (own != truth)).mean()
        limit = max(MOST_MISPLACED, min(wrong for _, wrong in rates.values()))
        few = [shares for shares, (_, wrong) in rates.items() if wrong <= limit]
        return max(few, key=lambda shares: (rates[shares][0], -rates[shares][1]))

    def shares(self, families: Mapping[str, str]) -> dict[str, Shares]:
        """Model -> `share` of its family, where `families` are model -> family."""
        return {model: self.share(family) for model, family in families.items()}

    def placements(self, twin: bool = False, destroys: bool = False) -> pd.DataFrame:
        """Cases of LEAST_LOST points or more, by where the fault is (rows) and where interventions place it (columns);
        without a twin by shares that were set on other families and kinds of fault."""
        own = self._judged(twin, destroys)
        columns = [*PARTS_OF_MODELS, INCONCLUSIVE, *([] if twin else [NOTHING])]
        counts = pd.crosstab(own["part"], own["placed"])
        counts = counts.reindex(index=PARTS_OF_MODELS, columns=columns, fill_value=0)
        return counts.rename_axis(index="planted in", columns=None).reset_index()

    def placement_words(self) -> str:
        """How often interventions locate faults correctly, in sentences."""
        sentences = []
        for twin, destroys in itertools.product((False, True), (False, True)):
            if (own := self._judged(twin, destroys)).empty:
                continue
            how = "with a twin" if twin else "without a twin"
            sort = "class destroyed" if destroys else "class made unusable"
            right, anywhere = own["placed"] == own["part"], own["placed"].isin(PARTS_OF_MODELS)
            counted = {"located correctly in": right, "incorrectly in": anywhere & ~right, "not at all in": ~anywhere}
            words = [_counted(name, int(hit.sum()), len(own)) for name, hit in counted.items()]
            sentences.append(f"{sort}, loss of {LEAST_LOST:g} pp or more, {how}: {', '.join(words)}")
        return f"In the fault-injection benchmark of {self.run.date}: {'; '.join(sentences)}."

    def _judged(self, twin: bool, destroys: bool) -> pd.DataFrame:
        """The cases of `placements`, with `placed`. Where the diagnosis detects nothing, nothing is located."""
        own = self.cases[_costly(self.cases, destroys)]
        if twin:
            return own.assign(placed=own["by twin"])
        folds = {fold: self.share(*fold) for fold in {*zip(own["family"], own["kind"], strict=True)}}
        shares = [folds[fold] for fold in zip(own["family"], own["kind"], strict=True)]
        placed = [self._places[one][case] for case, one in zip(own.index, shares, strict=True)]
        return own.assign(placed=pd.Series(placed, own.index).where(own["diagnosed"].notna(), NOTHING))

    def words(self) -> str:
        """How often the diagnosis is correct, in sentences."""
        run, cases, damaged = self.run, self.cases, int(self.cases["module"].notna().sum())
        text = f"Fault-injection benchmark of {run.date} (commit {run.commit}; {damaged} damaged and "
        text += f"{len(cases) - damaged} undamaged cases of {cases['model'].nunique()} miniatures): "
        rates = self.rates[self.rates["of"] == "all"].itertuples()
        text += "; ".join(_counted(f"{rate.what} in", rate.counted, rate.cases) for rate in rates)
        return f"{text}." if run.cards == cards_hash() else f"{text}. {CHANGED}"


def edited(rows: pd.DataFrame, probed: pd.DataFrame, point: str | None) -> dict[str, object]:
    """What edits do to one case, of the rows of its sweep and probes, as columns of a table of cases: EDITED. `point`:
    where its fault is, or null."""
    found = used.by_part(used.gains(rows)).set_index("part")
    columns = {f"{column}: {part}": found.at[part, column] for part in HELPED for column in ("change", "high", "p")}
    layers = 1 + max(int(name[2:]) for name in rows["point"] if name.startswith("L."))
    twin = used.place_by_twin(rows) if (rows["edit"] == used.TWIN).any() else None
    columns |= {"decodable": used.decodable(probed), "answered": used.answered(rows), "by twin": twin}
    return columns | {"part": None if pd.isna(point) else used.part_of(point, layers)}


def _placed(case: pd.Series, shares: Shares) -> str:
    columns, nothing = ("change", "high", "p"), {"point": None, "words": None}
    parts = [{c: case[f"{c}: {part}"] for c in columns} | nothing | {"part": part} for part in HELPED]
    return used.place(parts, case["decodable"] - case["answered"], shares)[0]


def _costly(cases: pd.DataFrame, destroys: bool) -> pd.Series:
    """Which cases lose enough by a fault that destroys the class, or keeps it."""
    return (cases["destroys"].astype("boolean") == destroys).fillna(False) & (cases["lost"] >= LEAST_LOST)


def _counted(name: str, hit: int, of: int) -> str:
    low, high = exact_interval(hit, of)
    return f"{name} {hit} of {of} ({100 * hit / of:.0f} %, exact 95 % interval {low:.0f} to {high:.0f})"


def by_family(cases: pd.DataFrame, families: Iterable[str]) -> dict[str, dict[str, Usual]]:
    """`Laboratory.usual`."""
    return {family: diagnosis.usual(cases[cases["family"] != family]) for family in families}


def judged(cases: pd.DataFrame, least: float) -> pd.DataFrame:
    """Cases with their diagnosis, by undamaged cases of other families, each corrected for its own statements alone
    (Bonferroni): detected (all modes, joined by "; ") and diagnosed (the first of `diagnosis.main_first`), or null."""
    frames = []
    for family, known in by_family(cases, cases["family"].unique()).items():
        own = cases[cases["family"] == family]
        for statement in STATEMENTS:
            lost = {column: own[f"{column}: {statement.name}"] for column in LOSS}
            lost = pd.DataFrame(lost | {"statement": statement.name, "mode": statement.mode})
            frames.append(diagnosis.against_usual(lost, known, least))
    table = pd.concat(frames).rename_axis("case").reset_index()
    named = table[table["p"] * len(STATEMENTS) < ALPHA]
    modes = named.groupby("case")["mode"].agg(lambda modes: "; ".join(dict.fromkeys(modes)))
    main = diagnosis.main_first(named).groupby("case")["mode"].first()
    return cases.assign(detected=modes.astype(object), diagnosed=main.astype(object))


def read() -> Laboratory:
    """The last run of the benchmark. Raises InputError where a file is missing or not valid."""
    (cases, run), mend = fault_card.laboratory_files(), "restore it, or run `make laboratory`"
    for path in (cases, run):
        if not path.is_file():
            raise InputError(f"{artefacts.relative(path)} does not exist: {mend}")
    card = parse_card(LaboratoryRun, run)
    if card.table and card.table != file_hash(cases):
        raise InputError(f"{artefacts.relative(cases)} was changed after it was written: {mend}")
    table = pd.read_csv(cases)
    if missing := [column for column in (*PLACED, *LOST, *EDITED) if column not in table]:
        raise InputError(f"{artefacts.relative(cases)} lacks the column '{missing[0]}': {mend}")
    return Laboratory(card, judged(table, load_trial().least_loss))


def write(cases: pd.DataFrame, date: str, commit: str, command: str) -> None:
    """Writes a table of cases, losses to 0.01 pp, and what it was run with to outputs/diagnosis/."""
    folder = artefacts.OUTPUTS / DIAGNOSIS
    shown = {name: 2 for name in (*LOST, *EDITED) if not name.startswith(("p: ", "by twin", "part"))}
    table = cases[[*PLACED, *LOST, *EDITED]].round(shown | {"severity": 6})
    atomic_write(folder / FILES[0], table.to_csv(index=False))
    run = {"date": date, "commit": commit, "command": command, "cards": cards_hash()}
    run["table"] = file_hash(folder / FILES[0])
    atomic_write(folder / FILES[1], "".join(f"{key}: '{value}'\n" for key, value in run.items()))


def cards_hash() -> str:
    return hash_of([card.model_dump(mode="json") for card in (*all_faults(), load_trial())])[:16]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each planted damage (rows: the module, and what is done to the class) were diagnosed as which
    mode (columns), or NOTHING."""
    sort = table["destroys"].map({True: "destroyed", False: "made unusable"})
    planted = (table["module"].map(MODULES | {ANSWER: ANSWER}) + ", " + sort).fillna(NOTHING).rename("planted")
    counts = pd.crosstab(planted, table["diagnosed"].fillna(NOTHING)).rename_axis(columns="diagnosed")
    rows = [f"{module}, {how}" for module in (*MODULES.values(), ANSWER) for how in ("destroyed", "made unusable")]
    counts = counts.reindex(index=[*rows, NOTHING], columns=[*MODES, NOTHING], fill_value=0)
    return counts[counts.sum(axis=1) > 0]


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
    how many the fault's own measure (`oracle` or answer) is correct (intact, damaged); lost (points) of that measure,
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
