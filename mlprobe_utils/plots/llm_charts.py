"""Charts of what happens along the LLM: comprehension and utilization, the logit lens, probes read at other layers."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.evaluation.points import POOLINGS
from mlprobe_utils.evaluation.profiles import STAGE_NAMES, in_words
from mlprobe_utils.plots.charts import STAGES, lines, model_keys
from mlprobe_utils.plots.figures import Figure, Key, Panel, figure
from mlprobe_utils.plots.line_panels import Values
from mlprobe_utils.plots.panels import COLOURS, square_panel

LAYERS = "LLM layer"
DIFFERENCE = "utilization less comprehension"
ORDER = ("model", "dataset", "stage")
POOLING_NAMES = {"image_mean": "image tokens", "last_token": "last token"}


def both_curves(told: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Figure 5: comprehension and utilization at every LLM layer, before and after; one row a model.

    Args:
        told: from `comprehension.differences`.
        names: slug -> name of models and data sets, in the order of rows and columns.
    """
    long = told.drop(columns="value").melt([*ORDER, "point"], [*POOLINGS], var_name="reading")
    long = in_words(long, names, ORDER).rename(columns={"point": "x"})
    long["series"] = long["reading"] + ", " + long["stage"]
    keys = [
        Key(f"{reading}, {stage}", "reading", COLOURS[colour], dashed=early)
        for colour, reading in enumerate(POOLINGS)
        for stage, early in zip(STAGE_NAMES.values(), (True, False), strict=True)
    ]
    title = "Comprehension (image tokens) and utilization (last token) along the LLM"
    return lines(long, ("model", "dataset"), [*keys, *model_keys(long)], Values("accuracy (%)"), title, LAYERS)


def difference_curves(told: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Utilization less comprehension at every LLM layer, in points, with simultaneous bands; before and after.

    Args: as of `both_curves`.
    """
    long = in_words(told, names, ORDER).rename(columns={"point": "x"})
    long["series"] = long["stage"]
    values = Values(f"{DIFFERENCE} (points)", " points")
    title = f"{DIFFERENCE.capitalize()}, with 95 % bands of new seeds and images"
    return lines(long, ("model", "dataset"), [*STAGES, *model_keys(long)], values, title, LAYERS)


def lens_curves(table: pd.DataFrame, names: Mapping[str, str], meaning: str, title: str) -> Figure:
    """A quantity of the logit lens at every LLM layer, before and after; one row a model, one column a data set.

    Args:
        table: model, dataset, stage, run, point, value (percent), from `lens_paths`.
        names: as in `both_curves`.
        meaning: of the value.
        title: the caption.
    """
    long = in_words(table, names, ORDER).rename(columns={"point": "x"})
    long["series"], long["run"] = long["stage"], long["run"].astype("Int64").fillna(0)
    return lines(long, ("model", "dataset"), [*STAGES, *model_keys(long)], Values(f"{meaning} (%)"), title, LAYERS)


def transfer_squares(scores: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Accuracy of probes fitted at one LLM layer (row) and read at another (column); one panel a pooling and data set.

    Args:
        scores: from `probe_recipes.transfer_scores`, of one model and stage.
        names: as in `both_curves`.
    """
    long = in_words(scores, names, ORDER).replace({"pooling": POOLING_NAMES})
    cells = long.rename(columns={"fitted at": "row", "read at": "column", "accuracy": "number"})
    cells["words"] = [f"fitted at {c.row}, read at {c.column}: {c.number:.1f} %" for c in cells.itertuples()]
    low, high = cells["number"].min(), cells["number"].max()
    cells["shade"] = (cells["number"] - low) / max(high - low, 1)
    panels = []
    for (pooling, dataset), own in cells.groupby(["pooling", "dataset"], sort=False):
        text = f"{pooling}, {dataset}: {'; '.join(own['words'])}."
        panels.append(Panel(f"{pooling} · {dataset}", square_panel(own, 10), text))
    model, stage = long["model"].iloc[0], long["stage"].iloc[0]
    title = f"Probes read at other layers than their own: {model}, {stage} (accuracy, %; fuller colour: higher)"
    numbers = long.drop(columns=["stage"]).rename(columns={"dataset": "data set"})
    return figure(panels, title, long["dataset"].nunique(), (), ("fitted at", "read at"), numbers)
