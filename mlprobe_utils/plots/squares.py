"""Matrices of shaded squares, each with its number: answers against truth, probes at other layers than their own."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.points import POOLING_NAMES
from mlprobe_utils.plots.drawing import COLOURS, HEIGHT, LARGE, WIDTH, channel, description, layer, panel
from mlprobe_utils.plots.figures import JOINT, MOST_PANELS, Figure, columns_of, in_words

SHADES = (0.03, 0.45)  # of a square: text on the fullest is legible in both themes


def confusion(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Answers against truth on the test images of one stage, summed over runs: a row per model, column per data set."""
    tested = in_words(rows[rows["split"] == "test"], names, STATE)
    tested["answer"] = tested["parsed"].fillna("unparsed")
    counts = {}
    for place, own in tested.groupby(["model", "dataset"], sort=False):
        table = pd.crosstab(own["label"], own["answer"])
        counts[place] = table.reindex(columns=[*table.index, "unparsed"], fill_value=0).stack()
    cells = pd.concat(counts, names=["model", "dataset", "truth", "answer"]).rename("images").reset_index()
    cells["shade"] = cells["images"] / cells.groupby(["model", "dataset", "truth"])["images"].transform("sum")
    words = "{0.truth} answered as {0.answer}: {0.images} images, {1:.0f} % of {0.truth}"
    cells["words"] = [words.format(cell, 100 * cell.shade) for cell in cells.itertuples()]
    title = f"Answers against the truth, test images, {tested['stage'].iloc[0]}, summed over runs"
    return squares(cells, ("model", "dataset"), ("truth", "answer", "images"), title, 13)


def transfer_squares(scores: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Accuracy of probes fitted at one LLM layer (row) and applied at another (column), from `transfer_scores` of one
    model and stage; one panel per pooling and data set."""
    cells = in_words(scores, names, STATE).replace({"pooling": POOLING_NAMES})
    words = "fitted at {}, applied at {}: {:.1f} %"
    cells["words"] = [words.format(*cell) for cell in cells[["fitted at", "applied at", "accuracy"]].to_numpy(object)]
    low, high = cells["accuracy"].min(), cells["accuracy"].max()
    cells["shade"] = (cells["accuracy"] - low) / max(high - low, 1)
    model, stage = cells["model"].iloc[0], cells["stage"].iloc[0]
    title = f"Probes applied at layers they were not fitted at: {model}, {stage} (accuracy, %; darker: higher)"
    shown = ("fitted at", "applied at", "accuracy")
    return squares(cells.drop(columns="stage"), ("pooling", "dataset"), shown, title, 12)


def squares(
    cells: pd.DataFrame, by: tuple[str, str], shown: tuple[str, str, str], title: str, text_size: int
) -> Figure:
    """Small multiples of matrices, of `cells`: the columns of `by` (rows and columns of panels) and `shown` (rows and
    columns of squares, and their number, of `text_size` pixels), model, shade (0 to 1) and words."""
    panels, parts = [], cells.groupby([*by], sort=False)
    facets, size = (by, LARGE) if parts.ngroups > MOST_PANELS else ((), (WIDTH, HEIGHT))
    shade = channel("shade:Q", scale={"domain": [0, 1], "range": SHADES}, legend=None)
    for place, own in parts:
        tips = [description([model], words) for model, words in zip(own["model"], own["words"], strict=True)]
        own = own.rename(columns=dict(zip(shown, ("row", "column", "number"), strict=True))).assign(tip=tips)
        x = channel("column:N", sort=[*own["column"].unique()], title=None, axis={"labelAngle": -40})
        y = channel("row:N", sort=[*own["row"].unique()], title=None)
        number = channel("number:Q", format=".0f")
        layers = [
            layer("cells", "rect", {"fill": COLOURS[1]}, x=x, y=y, opacity=shade, description="tip:N"),
            layer("cells", "text", {"fontSize": text_size}, x=x, y=y, text=number),
        ]
        panels.append(panel(JOINT.join(place), layers, size, {"cells": own}, own["words"]))
    numbers = cells.drop(columns=["shade", "words"])
    return Figure(panels, title, columns_of(cells, *by), facets, (), shown[:2], numbers)
