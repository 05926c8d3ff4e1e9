"""What a claim about a layer has to beat: the controls' scores beside the probes'."""

import pandas as pd

from mlprobe_utils.evaluation.metrics import KEYS, LESS_IS_BETTER, scores_by
from mlprobe_utils.evaluation.names import (
    CLASSICAL,
    CONTROL_RUN,
    CONTROL_TASK,
    MEMORISATION,
    OUTPUT,
    RANDOM_WEIGHTS,
    TEXT_ONLY,
    WITHOUT_MODEL,
)
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import predicted_option

TASK, SELECTIVITY = "task", "selectivity"
ENDS = (*(f"{module} end" for module in MODULES), OUTPUT)
LINES = (TASK, CONTROL_TASK, SELECTIVITY, RANDOM_WEIGHTS, TEXT_ONLY, CLASSICAL, *reversed(WITHOUT_MODEL), MEMORISATION)
_KEYS = ["model", "dataset", "stage", "point"]


def control_scores(rows: pd.DataFrame, positives: dict[str, str | None]) -> pd.DataFrame:
    """Metrics in percent of every control: one row a model, data set, stage, run, point and control; as `probe_scores`.

    Memorisation is scored on train images, and with text alone the generated answer counts.
    """

    def predicted(own: pd.DataFrame) -> pd.Series:
        likeliest = predicted_option(own)
        return own["parsed"].fillna("").where(own["control"] == TEXT_ONLY, likeliest) if "parsed" in own else likeliest

    return scores_by(rows, positives, [*KEYS, "control"], predicted)


def selectivity(scores: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Score on the task less that on the control task (probed after fine-tuning only), of the same run and point.

    From `metrics.probe_scores` and `control_scores`: model, dataset, stage, point, task, control task (percent) and
    selectivity (percentage points).
    """
    own = scores[(scores["pooling"] == "image_mean") & (scores["run"] == CONTROL_RUN)]
    control = controls[controls["control"] == CONTROL_TASK]
    both = {TASK: own.set_index(_KEYS)[metric], CONTROL_TASK: control.set_index(_KEYS)[metric]}
    table = pd.concat(both, axis=1, join="inner")
    return table.assign(**{SELECTIVITY: table[TASK] - table[CONTROL_TASK]}).reset_index()


def best_without_model(controls: pd.DataFrame, metric: str) -> pd.Series:
    """The best score that needs no model, percent, by data set; `controls` are from `control_scores`."""
    values = controls[controls["control"].isin(WITHOUT_MODEL)].groupby("dataset")[metric]
    return values.min() if metric in LESS_IS_BETTER else values.max()


def no_better(outputs: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.Series:
    """Whether the final output after fine-tuning, mean over runs, is no better than `best_without_model`; by dataset
    and model.
    """
    answers = outputs[outputs["stage"] == "finetuned"].groupby(["dataset", "model"])[metric].mean()
    ahead = answers - best_without_model(controls, metric).reindex(answers.index, level="dataset")
    return (ahead >= 0) if metric in LESS_IS_BETTER else (ahead <= 0)


def to_beat(scores: pd.DataFrame, outputs: pd.DataFrame, controls: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Probes and answers of one fine-tuned run beside their controls, mean over models; arguments as above.

    Returns:
        dataset, what (one of LINES) and ENDS: the last point of each module and the final output, percent. What needs
        no model has one value for all; what does not apply is nan.
    """
    own = pd.concat([scores[scores["pooling"] == "image_mean"], outputs])
    rows = pd.concat([own[own["run"] == CONTROL_RUN].assign(control=TASK), controls], ignore_index=True)
    rows = rows[rows["stage"] != "pretrained"].assign(module=rows["point"].str[0] + " end")
    of_image_set = rows["control"].isin((*WITHOUT_MODEL, CLASSICAL))
    ends = rows.sort_values("point").groupby(["control", "dataset", "model", "module"]).tail(1)
    found = [ends.assign(site=ends["module"]), rows[rows["point"].isna() & ~of_image_set].assign(site=OUTPUT)]
    found += [rows[of_image_set].assign(site=site) for site in ENDS]
    table = pd.concat(found).pivot_table(metric, ["control", "dataset"], "site")[[*ENDS]]
    lines = {name: table.loc[name] for name in table.index.unique("control")}
    lines[SELECTIVITY] = lines[TASK] - lines[CONTROL_TASK]
    whole = pd.concat({name: lines[name] for name in LINES}, names=["what"]).reset_index().rename_axis(columns=None)
    return whole.sort_values("dataset", kind="stable")[["dataset", "what", *ENDS]].reset_index(drop=True)
