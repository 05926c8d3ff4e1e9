"""Classification metrics (paper section 3.3) of probes and final output, from the rows. Does not import torch."""

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from mlprobe_utils.rows import OPTION, options_of

METRICS = ("accuracy", "f1", "precision", "recall", "auc")
KEYS = ["model", "dataset", "stage", "run", "probe", "pooling", "point"]


def probe_scores(rows: pd.DataFrame, positives: dict[str, str | None], part: str = "test") -> pd.DataFrame:
    """Metrics in percent of every probe: one row a model, data set, stage, run, recipe, pooling and point.

    Args:
        rows: probe rows of any number of models and data sets.
        positives: data set -> the option counted as positive (None: macro averages, data cards).
        part: `test` or `validation`.
    """
    rows = rows[rows["part"] == part]
    return _scored(rows, positives, KEYS, predicted_option)


def output_scores(rows: pd.DataFrame, positives: dict[str, str | None], part: str = "test") -> pd.DataFrame:
    """Metrics in percent of the final output: one row a model, data set, stage and run, with `unparsed` in percent.

    An unparsed answer is wrong: it counts against the recall of its class and towards no option's precision. AUC comes
    from the options' probabilities, which every image has.
    """
    rows = rows[rows["part"] == part]
    keys = ["model", "dataset", "stage", "run"]
    scores = _scored(rows, positives, keys, lambda group: group["parsed"].fillna(""))
    unparsed = rows.groupby(keys, dropna=False)["parsed"].agg(lambda parsed: 100 * parsed.isna().mean())
    return scores.merge(unparsed.rename("unparsed").reset_index(), on=keys)


def predicted_option(rows: pd.DataFrame) -> pd.Series:
    """The most probable option of each row of one data set."""
    options = options_of(rows)
    probabilities = rows[[OPTION + option for option in options]].to_numpy()
    return pd.Series(np.array(options)[probabilities.argmax(axis=1)], index=rows.index)


def _scored(rows, positives, keys, predict) -> pd.DataFrame:
    records = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        options = options_of(of_dataset)
        predicted = predict(of_dataset)
        for key, group in of_dataset.groupby(keys, dropna=False, sort=False):
            probabilities = group[[OPTION + option for option in options]].to_numpy()
            scores = score(group["label"], predicted[group.index], probabilities, options, positives[dataset])
            records.append(dict(zip(keys, key, strict=True)) | {"images": len(group)} | scores)
    return pd.DataFrame(records)


def score(labels, predicted, probabilities, options: list[str], positive: str | None) -> dict[str, float]:
    """The paper's five metrics in percent: of the positive option, or macro averages where there is none.

    Args:
        labels: true option of each image.
        predicted: predicted option of each image; anything else is a wrong answer.
        probabilities: float [images, options].
    """
    average = dict(labels=options, average="macro") if positive is None else dict(labels=[positive], average="macro")
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, zero_division=0, **average)
    values = {
        "accuracy": accuracy_score(labels, predicted),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "auc": area_under_curve(np.asarray(labels), probabilities, options, positive),
    }
    return {name: 100 * float(value) for name, value in values.items()}


def area_under_curve(labels: np.ndarray, probabilities: np.ndarray, options: list[str], positive: str | None) -> float:
    """AUC of the positive option, or the mean of each option against the rest; nan if a class has no image."""
    areas = []
    for column, option in enumerate(options):
        if positive in (None, option):
            truth = labels == option
            areas.append(roc_auc_score(truth, probabilities[:, column]) if 0 < truth.sum() < len(truth) else np.nan)
    return float(np.mean(areas))
