"""Classification metrics (paper section 3.3) of probes and final output, from the rows. Does not import torch."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

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
        columns = [OPTION + option for option in options]
        coded = of_dataset.assign(truth=_codes(of_dataset["label"], options))
        coded["said"] = _codes(predict(of_dataset), options)
        for key, group in coded.groupby(keys, dropna=False, sort=False):
            truth, said, probabilities = (group[wanted].to_numpy() for wanted in ("truth", "said", columns))
            scores = score(truth, said, probabilities, options, positives[dataset])
            records.append(dict(zip(keys, key, strict=True)) | {"images": len(group)} | scores)
    return pd.DataFrame(records)


def _codes(names: pd.Series, options: list[str]) -> np.ndarray:
    """Place of each name among the options; -1 of anything else."""
    return pd.Categorical(names, options).codes


def score(
    truth: np.ndarray, said: np.ndarray, probabilities: np.ndarray, options: list[str], positive: str | None
) -> dict[str, float]:
    """The paper's five metrics in percent: of the positive option, or macro averages where there is none.

    In plain numpy: of a library call nine tenths would be checks of its arguments, and there is a call for every probe
    (tests hold both equal). A quotient of nothing by nothing counts as 0.

    Args:
        truth: place of each image's true option among `options`.
        said: place of its predicted option; -1 is a wrong answer.
        probabilities: float [images, options].
    """
    chosen = slice(None) if positive is None else [options.index(positive)]
    right, true, named = (
        np.bincount(values, minlength=len(options))[chosen] for values in (truth[truth == said], truth, said[said >= 0])
    )
    values = {
        "accuracy": np.mean(truth == said),
        "f1": np.mean(2 * right / np.maximum(true + named, 1)),
        "precision": np.mean(right / np.maximum(named, 1)),
        "recall": np.mean(right / np.maximum(true, 1)),
        "auc": np.mean(areas_under_curve(truth, probabilities)[chosen]),
    }
    return {name: 100 * float(value) for name, value in values.items()}


def areas_under_curve(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """AUC of each option against the rest, float [options]; nan if one of the two has no image.

    The share of pairs of images that a probability ranks rightly, ties counted half (Mann and Whitney 1947).
    """
    is_option = truth[:, None] == np.arange(probabilities.shape[1])
    inside, ranks = is_option.sum(axis=0), rankdata(probabilities, axis=0)
    pairs = inside * (len(truth) - inside)
    lowest = inside * (inside + 1) / 2  # the sum of ranks of an option whose images are all ranked last
    return ((ranks * is_option).sum(axis=0) - lowest) / np.where(pairs, pairs, np.nan)
