"""Feature health scores (paper section 3.3, equations 1 to 3), and profiles FHS_V, FHS_C, FHS_L, P_final (Table 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.metrics import LESS_IS_BETTER
from mlprobe_utils.evaluation.points import MODULES, PROBED
from mlprobe_utils.evaluation.rows import STAGES

STAGE_NAMES = {"pretrained": "before fine-tuning", "finetuned": "after fine-tuning"}
STATE = ["model", "dataset", "stage"]
HEALTH = [f"FHS_{module}" for module in MODULES]
SCORES = (*HEALTH, "P_final")  # of a profile, as the information flows


def health_score(performance: Sequence[float], penalty: float) -> float:
    """FHS (equation 3) of one module, in the units of `performance`: at its points in order, each above 0 (else
    ValueError).

    A module with one point has GF 0 and VP 1: its score is the plain performance (audit, point 3).
    """
    values = np.asarray(performance, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError("a health score needs the performance at one point or more")
    if not (values > 0).all():
        raise ValueError(f"a health score needs positive performances, found {values.min()}")
    return float(health_scores(values, penalty))


def health_scores(performances: np.ndarray, penalty: float) -> np.ndarray:
    """As `health_score`, of many curves at once and without its checks: float [..., points], all > 0, to [...]."""
    growth, volatility = health_factors(performances, penalty)
    return performances[..., -1] * (1 + growth) * volatility


def health_factors(performances: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """GF = ln(P_end / sqrt(P_start P_min)) and VP = exp(-lambda sum |P_(i+1) - P_i| / P_end), equations 1 and 2."""
    start, end = performances[..., 0], performances[..., -1]
    growth = np.log(end / np.sqrt(start * performances.min(axis=-1)))
    variation = np.abs(np.diff(performances)).sum(axis=-1)
    return growth, np.exp(-penalty * variation / end)


def in_words(table: pd.DataFrame, names: Mapping[str, str], by: Sequence[str]) -> pd.DataFrame:
    """A table for the page, models and data sets by name (`names`: slug -> name, in the order of the page), stages in
    words; sorted by what it has of `by`: model, dataset, stage, module.
    """
    order = {"model": names, "dataset": names, "stage": STAGES, "module": PROBED}
    places = {key: {value: place for place, value in enumerate(order[key])} for key in by if key in table}
    if places:
        table = table.sort_values([*places], key=lambda column: column.map(places[column.name]), kind="stable")
    return table.replace({"model": names, "dataset": names, "stage": STAGE_NAMES})


def health_by_run(probe_scores: pd.DataFrame, penalty: float, metric: str = "accuracy") -> pd.DataFrame:
    """Health score of every module's `image_mean` curve: STATE, run, module, points, end, growth, volatility, health
    (`end` and `health` in percent). InputError for a metric of which less is better, or that is not positive at a
    point.
    """
    if metric in LESS_IS_BETTER:
        raise InputError(f"metric '{metric}' has no health score: choose one of which more is better, such as accuracy")
    curves = probe_scores.assign(module=probe_scores["point"].str[0]).sort_values("point")
    curves = curves[(curves["pooling"] == "image_mean") & curves["module"].isin(MODULES)]
    keys, records = [*STATE, "run", "module"], []
    for key, curve in curves.groupby(keys):
        values = curve[metric].to_numpy(float)
        try:
            health = health_score(values, penalty)
        except ValueError as error:
            place = " ".join(map(str, key))
            raise InputError(f"metric '{metric}' of {place}: {error}; choose another, such as accuracy") from error
        records.append([*key, len(values), values[-1], *health_factors(values, penalty), health])
    return pd.DataFrame(records, columns=[*keys, "points", "end", "growth", "volatility", "health"])


def profile(health: pd.DataFrame, output_scores: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One row a model, data set and stage: FHS_V, FHS_C, FHS_L and P_final, each the mean over runs."""
    wide = health.pivot_table(index=STATE, columns="module", values="health", aggfunc="mean")
    final = output_scores.groupby(STATE)[metric].mean().rename("P_final")
    table = wide[list(MODULES)].add_prefix("FHS_").join(final).reset_index()
    return table.sort_values(
        ["dataset", "model", "stage"], key=lambda c: c.map(STAGES.index) if c.name == "stage" else c
    )


def of_stage(profiles: pd.DataFrame, stage: str) -> pd.DataFrame:
    """The profiles of one stage, from `profile`. Raises InputError for a stage that is none of STAGES."""
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    return profiles[profiles["stage"] == stage]


def lowest_module(profiles: pd.DataFrame) -> str:
    """The module, by its letter, with the lowest mean health score."""
    return profiles[HEALTH].mean().idxmin().removeprefix("FHS_")


def health_changes(profiles: pd.DataFrame) -> pd.DataFrame:
    """Health scores after fine-tuning less those before, percentage points; one row a model and data set."""
    health = profiles.set_index(STATE)[HEALTH]
    return health.xs("finetuned", level="stage") - health.xs("pretrained", level="stage")
