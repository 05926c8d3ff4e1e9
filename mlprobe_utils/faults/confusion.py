"""The diagnosis of every case that the models' trials hold, judged: outputs/diagnosis_confusion.parquet. No torch.

`python -m mlprobe_utils.faults.confusion MODEL ... --datasets D ... --protocol P`
"""

import argparse
import datetime
import math
from dataclasses import replace

import pandas as pd

from mlprobe_utils import artefacts, laboratory_results
from mlprobe_utils.datasets.image_set import SPLITS, load_image_set
from mlprobe_utils.diagnosis import losses
from mlprobe_utils.diagnosis_card import LABORATORY, DiagnosisCard
from mlprobe_utils.errors import run_command
from mlprobe_utils.faults.judging import PLANTED, flat, judged
from mlprobe_utils.faults.trial_card import CASES, CONFUSION, FOLDER, ROWS, load_trial
from mlprobe_utils.intervals import RECIPE
from mlprobe_utils.progress import step
from mlprobe_utils.results import DAMAGED_RUN, Selection, reference_rows
from mlprobe_utils.station_outcomes import station_outcomes
from mlprobe_utils.tested import resamples_of_tested


def write_confusion(selection: Selection) -> None:
    """Judges every case of the selected models and data sets.

    Raises:
        InputError: a model and data set without its trial.
    """
    trial = load_trial()
    with step("laboratory", "diagnosis of the cases"):
        table = judged(all_cases(selection), trial.least_loss)
    strong = (table["strength"] >= trial.strong).where(table["mode"].notna(), False)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = table.assign(strong=strong.astype(bool), date=date)
    artefacts.write_parquet(table, artefacts.OUTPUTS / CONFUSION)
    print(summary(table))


def summary(table: pd.DataFrame) -> str:
    """What a laboratory found, as text: confusion, rates over all cases, and the thresholds for the diagnosis' card."""
    rates = laboratory_results.rates(table)
    counted = laboratory_results.thresholds(table)
    thresholds = "\n".join(f"  {name}: {math.ceil(10 * value) / 10:g}" for name, value in counted.items())
    parts = [laboratory_results.confusion(table), rates[rates["of"] == "all"].drop(columns="of").round(1)]
    card = f"for data/{DiagnosisCard.folder}/{LABORATORY}.yml, rounded up:\nthresholds:\n{thresholds}"
    return "\n\n".join([*(part.to_string() for part in parts), card])


def all_cases(selection: Selection) -> pd.DataFrame:
    """A table of cases (`judging`) of the selected models and data sets. Raises InputError as `write_confusion`."""
    cases = []
    for dataset in selection.datasets:
        drawn, images = resamples_of_tested(load_image_set(dataset, selection.protocol), selection.split)
        reference = reference_rows(replace(selection, datasets=(dataset,)))
        for model in selection.models:
            folder = selection.folder(model, dataset) / FOLDER
            command = f"python -m mlprobe_utils.faults.trial {model} --datasets {dataset}"
            artefacts.read_made_from(folder, f"{command} --protocol {selection.protocol} --split {selection.split}")
            rows = pd.read_parquet(folder / ROWS)
            for case in pd.read_parquet(folder / CASES).to_dict("records"):
                right = station_outcomes(*_of_case(rows, case), reference, images)
                mode = PLANTED.get(case["module"])
                cases.append(case | {"mode": mode} | flat(losses(right, drawn, RECIPE)))
    return pd.DataFrame(cases).drop(columns=["case", "module"])


def _of_case(rows: pd.DataFrame, case: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The probes' rows and the answers' of a case: stations before a damage are those of the intact model."""
    undamaged = pd.isna(case["case"])
    planted = rows["fault"].isna() if undamaged else rows["fault"] == case["case"]
    own = rows[(rows["run"] == case["run"]) & planted]
    if not undamaged:
        intact = rows[(rows["run"] == DAMAGED_RUN) & rows["fault"].isna() & rows["point"].notna()]
        have = set(zip(own["point"], own["pooling"], strict=True))
        before = [place not in have for place in zip(intact["point"], intact["pooling"], strict=True)]
        own = pd.concat([intact[before], own])
    return own[own["point"].notna()], own[own["point"].isna()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.faults.confusion", description=__doc__)
    parser.add_argument("models", nargs="+", help="slugs of model cards in data/models")
    parser.add_argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets")
    parser.add_argument("--protocol", default="miniature", help="slug of a protocol in data/protocols")
    parser.add_argument("--split", default="paper", choices=SPLITS)
    given = parser.parse_args()
    write_confusion(Selection(tuple(given.models), tuple(given.datasets), given.protocol, given.split))


if __name__ == "__main__":
    run_command(main)
