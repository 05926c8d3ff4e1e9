"""Accuracies of traditional classifiers and MLLMs: a block a category, a line a model, a panel a data set."""

from collections.abc import Mapping
from math import ceil, floor

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.categories import CATEGORIES, MLLM, TRADITIONAL
from mlprobe_utils.evaluation.health import in_words
from mlprobe_utils.plots.figures import Drawing, Figure, Key, Panel, figure
from mlprobe_utils.plots.inline_svg import description
from mlprobe_utils.plots.panels import COLOURS, drawing

GROUPS = (*CATEGORIES, MLLM)
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross")
WIDTH = 240  # pixels; a page scales them
LINE, TITLE_LINES = 10, 2  # pixels from model to model; lines of a block for what it is called
STEP = 10  # percent that the axis ends at a multiple of
COLUMNS = 3
REFERENCES = {TRADITIONAL: [3, 2], "majority class": [1, 2]}  # lines across all blocks, and their dashes


def accuracy_chart(
    accuracies: pd.DataFrame, means: pd.DataFrame, majority: Mapping[str, float], names: Mapping[str, str], title: str
) -> Figure:
    """Every model's accuracy with its interval, by category, beside the mean of all baselines and the majority class.

    Args:
        accuracies: from `baselines.accuracies`.
        means: from `baselines.group_means`; of the groups, ticks in their blocks.
        majority: data set (slug) -> accuracy in percent of who always names the most frequent class.
        names: slug -> name of models, baselines and data sets, in the order of the page.
        title: the caption; what the lines are is added.

    Returns:
        One panel a data set.
    """
    lines = means.loc[means["group"] == TRADITIONAL, ["dataset", "value"]].assign(line=TRADITIONAL)
    of_majority = pd.DataFrame({"dataset": [*majority], "value": [*majority.values()]}).assign(line="majority class")
    lines = in_words(pd.concat([lines, of_majority]), names, ("dataset",))
    every = in_words(accuracies, names, ("dataset",))
    of_groups = in_words(means[means["group"] != TRADITIONAL], names, ("dataset",))
    groups = [group for group in GROUPS if group in set(every["group"])]
    keys = [Key(group, "category", COLOURS[GROUPS.index(group)]) for group in groups]
    reached = [every["low"].min(), lines["value"].min(), every["high"].max()]
    ends = STEP * floor(min(reached) / STEP), STEP * ceil(max(reached) / STEP)
    panels = []
    for dataset, own in every.groupby("dataset", sort=False):
        across, within = (table[table["dataset"] == dataset] for table in (lines, of_groups))
        words = "; ".join(_told(row) for row in own.itertuples())
        words += "; ".join(["", *(f"{row.line}: {row.value:.1f} %" for row in across.itertuples())])
        panels.append(Panel(dataset, _panel(own, within, across, keys, ends), f"{dataset}: {words}."))
    numbers = every[["dataset", "group", "model", "value", "low", "high"]]
    numbers = numbers.rename(columns={"dataset": "data set", "group": "category", "value": "accuracy"})
    title += "; ticks: means of a category; dashed: mean of all traditional; dotted: majority class"
    axes = ("a block a category, a line a model", "accuracy on the test images (%)")
    return figure(panels, title, min(COLUMNS, len(panels)), keys, axes, numbers)


def _told(row) -> str:
    return f"{row.model} ({row.group}): {row.value:.1f} % ({row.low:.1f} to {row.high:.1f})"


def _panel(own: pd.DataFrame, means: pd.DataFrame, across: pd.DataFrame, keys: list[Key], ends: tuple) -> Drawing:
    """One panel."""
    marks, blocks, place = [], [], 0.0
    for key in keys:
        members = own[own["group"] == key.name]
        mean = means.loc[means["group"] == key.name, "value"].iloc[0]
        first = place + TITLE_LINES
        marks.append(members.assign(place=[first + line + 0.5 for line in range(len(members))]))
        place = first + len(members)
        blocks.append({"group": key.name, "title": first - 0.6, "value": mean, "first": first, "last": place})
    drawn, titles = pd.concat(marks), pd.DataFrame(blocks)
    drawn["told"] = [description([row.model, row.group], _told(row)) for row in drawn.itertuples()]
    of_groups = zip(titles["group"], titles["value"], strict=True)
    titles["told"] = [description([group], f"mean of {group}: {value:.1f} %") for group, value in of_groups]
    y = alt.Y("place:Q", axis=None).scale(domain=[0, place], reverse=True, nice=False)
    x = alt.X("value:Q", title=None).scale(domain=list(ends), nice=False, zero=False).axis(tickCount=4)
    words = [key.name for key in keys]
    colour = alt.Color("group:N", legend=None).scale(domain=words, range=[key.colour for key in keys])
    shapes = [SHAPES[GROUPS.index(word)] for word in words]
    shape = alt.Shape("group:N", legend=None).scale(domain=words, range=shapes)
    layers = [
        alt.Chart(across[across["line"] == line]).mark_rule(color="gray", strokeDash=dash, strokeWidth=1.5).encode(x=x)
        for line, dash in REFERENCES.items()
    ]
    heads = alt.Chart(titles).mark_text(align="left", fontSize=11)
    layers.append(heads.encode(x=alt.value(0), y=alt.Y("title:Q", axis=None), text="group:N"))
    ticks = alt.Chart(titles).mark_rule(strokeWidth=2.5, opacity=0.8)
    layers.append(ticks.encode(x=x, y=alt.Y("first:Q", axis=None), y2="last:Q", color=colour, description="told:N"))
    spans = alt.Chart(drawn.assign(value=drawn["low"])).mark_rule(strokeWidth=1.5)
    layers.append(spans.encode(x=x, x2="high:Q", y=y, color=colour, description="told:N"))
    points = alt.Chart(drawn).mark_point(filled=True, size=36, opacity=1)
    layers.append(points.encode(x=x, y=y, color=colour, shape=shape, description="told:N"))
    size = {"width": WIDTH, "height": place * LINE, "autosize": {"type": "fit", "contains": "padding"}}
    return drawing(alt.layer(*layers).properties(**size).to_dict(validate=False))
