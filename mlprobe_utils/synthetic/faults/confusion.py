"""The losses of every case of the models' trials, and how often the diagnosis is correct: outputs/diagnosis/.

`python -m mlprobe_utils laboratory MODEL ... --datasets D ... --protocol P`
"""

import datetime
from dataclasses import replace

import pandas as pd

from mlprobe_utils.common.progress import step
from mlprobe_utils.evaluation.diagnosis import flat, losses
from mlprobe_utils.evaluation.outcomes import site_outcomes
from mlprobe_utils.pipeline import artefacts, laboratory_results
from mlprobe_utils.pipeline.fault_card import CASES, FOLDER, MODE_OF, ROWS
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.laboratory_results import measured
from mlprobe_utils.pipeline.results import DAMAGED_RUN, Selection, reference_rows
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.intervals import RECIPE


def write_confusion(selection: Selection) -> None:
    """Leaves the losses of every selected case, and prints how often the diagnosis is correct. Raises InputError for a
    model and data set without its trial, and for models of one family alone."""
    cases = []
    with step("laboratory", "diagnosis of the cases"):
        for dataset in selection.datasets:
            drawn, images = resamples_of_tested(load_image_set(dataset, selection.protocol), selection.split_rule)
            reference = reference_rows(replace(selection, datasets=(dataset,)))
            for model in selection.models:
                own = replace(selection, models=(model,), datasets=(dataset,))
                rows, planted = _trial(own)
                for case in planted.to_dict("records"):
                    correct = site_outcomes(*_of_case(rows, case), reference, images)
                    cases.append(case | {"mode": MODE_OF.get(case["module"])} | flat(losses(correct, drawn, RECIPE)))
    table = pd.DataFrame(cases).drop(columns=["case", "module"])
    damaged = " ".join(table.loc[table["fault"].notna(), "model"].unique())  # the others are their bases
    command = f'make laboratory MODELS="{damaged}" DATASETS="{" ".join(selection.datasets)}" '
    command += f"PROTOCOL={selection.protocol} SPLIT={selection.split_rule}"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    laboratory_results.write(table, date, artefacts.commit(), command)
    found = laboratory_results.read()
    whole = found.rates[found.rates["of"] == "all"].drop(columns="of").round(1)
    print(f"{laboratory_results.confusion(found.cases).to_string()}\n\n{whole.to_string()}\n\n{found.words()}")


def _trial(own: Selection) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows and the cases of one model on one data set, with what the oracle loses in each damaged case."""
    ((model, dataset, place),) = own.folders()
    folder = place / FOLDER
    artefacts.read_made_from(folder, own.command(model, dataset, "trial"))
    rows, planted = pd.read_parquet(folder / ROWS), pd.read_parquet(folder / CASES)
    if planted["fault"].notna().any():
        numbers = measured(own)[["fault", "wanted", "reached", "lost", "lost_low", "lost_high"]]
        planted = planted.merge(numbers, "left", on=["fault", "wanted"])
    return rows, planted


def _of_case(rows: pd.DataFrame, case: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The probes' rows and the answers' of a case: sites before a damage are those of the intact model."""
    undamaged = pd.isna(case["case"])
    planted = rows["fault"].isna() if undamaged else rows["fault"] == case["case"]
    own = rows[(rows["run"] == case["run"]) & planted]
    if not undamaged:
        intact = rows[(rows["run"] == DAMAGED_RUN) & rows["fault"].isna() & rows["point"].notna()]
        places = [pd.MultiIndex.from_frame(part[["point", "pooling"]]) for part in (intact, own)]
        own = pd.concat([intact[~places[0].isin(places[1])], own])
    return own[own["point"].notna()], own[own["point"].isna()]
