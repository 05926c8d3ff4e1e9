"""What a claim about a layer has to beat: scores of probes and answers beside those of their controls."""

import pandas as pd

from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.metrics import ENDS, LESS_IS_BETTER, best_without_model

TASK, SELECTIVITY = "task", "selectivity"
LINES = (TASK, names.CONTROL_TASK, SELECTIVITY, names.RANDOM_WEIGHTS, names.TEXT_ONLY, names.CLASSICAL)
LINES += (*reversed(names.WITHOUT_MODEL), names.MEMORISATION)


def selectivity(scores: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Probes' scores on the task and the control task (percent) of the same run and point, and their difference
    (percentage points), after fine-tuning."""
    own = scores[(scores["pooling"] == "image_mean") & (scores["run"] == names.CONTROL_RUN)]
    control = controls[controls["control"] == names.CONTROL_TASK]
    keys = ["model", "dataset", "stage", "point"]
    both = {TASK: own.set_index(keys)[metric], names.CONTROL_TASK: control.set_index(keys)[metric]}
    table = pd.concat(both, axis=1, join="inner")
    return table.assign(**{SELECTIVITY: table[TASK] - table[names.CONTROL_TASK]}).reset_index()


def no_better(outputs: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.Series:
    """By dataset and model, whether the fine-tuned final output (mean over runs) is no better than without a model."""
    answers = outputs[outputs["stage"] == "finetuned"].groupby(["dataset", "model"])[metric].mean()
    ahead = answers - best_without_model(controls, metric).reindex(answers.index, level="dataset")
    return (ahead >= 0) if metric in LESS_IS_BETTER else (ahead <= 0)


def to_beat(scores: pd.DataFrame, outputs: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Probes and answers of one fine-tuned run beside their controls (what: LINES) at ENDS, each module's last point
    and the final output: percent, mean over models. What needs no model has one value for all ends."""
    own = pd.concat([scores[scores["pooling"] == "image_mean"], outputs])
    rows = pd.concat([own[own["run"] == names.CONTROL_RUN].assign(control=TASK), controls], ignore_index=True)
    rows = rows[rows["stage"] != "pretrained"].assign(module=rows["point"].str[0] + " end")
    of_image_set = rows["control"].isin((*names.WITHOUT_MODEL, names.CLASSICAL))
    ends = rows.sort_values("point").groupby(["control", "dataset", "model", "module"]).tail(1)
    found = [ends.assign(site=ends["module"]), rows[rows["point"].isna() & ~of_image_set].assign(site=names.OUTPUT)]
    found += [rows[of_image_set].assign(site=site) for site in ENDS]
    table = pd.concat(found).pivot_table(metric, ["control", "dataset"], "site")[[*ENDS]]
    lines = {name: table.loc[name] for name in table.index.unique("control")}
    lines[SELECTIVITY] = lines[TASK] - lines[names.CONTROL_TASK]
    whole = pd.concat({name: lines[name] for name in LINES}, names=["what"]).reset_index().rename_axis(columns=None)
    return whole.sort_values("dataset", kind="stable")[["dataset", "what", *ENDS]].reset_index(drop=True)
