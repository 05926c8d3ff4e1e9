"""Losses between stations as intervals: a block a statement, a line a model, one panel a data set."""

from collections.abc import Mapping, Sequence
from math import ceil, floor

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, UNTOLD
from mlprobe_utils.evaluation.health import in_words
from mlprobe_utils.plots.figures import Drawing, Figure, Key, Panel, figure
from mlprobe_utils.plots.inline_svg import description
from mlprobe_utils.plots.panels import COLOURS, drawing

VERDICTS = (NAMED, RULED_OUT, UNTOLD)
SHAPES = ("diamond", "circle", "square")
WIDTH = 240  # pixels; a page scales them
LINE, FEW_LINE = 8, 14  # pixels from model to model: of many, of at most FEW
FEW = 6
COLUMNS = 3
STEP = 5  # points that the axis ends at a multiple of
TITLE_LINES = 3  # of a block, for what it is called; with the gap above it


def loss_chart(told: pd.DataFrame, names: Mapping[str, str], title: str, verdicts: Sequence[str] = VERDICTS) -> Figure:
    """What is lost between stations, with simultaneous intervals, and a tick at the threshold where there is one.

    Args:
        told: from `diagnosis_tables.diagnoses` or `misalignment.mapping_losses`, of one stage and question: model,
            dataset, statement, value, band_low, band_high (points), verdict, and threshold where there is one.
        names: slug -> name of models and data sets, in the order of the page.
        title: the caption; what a tick is, is added.
        verdicts: the three there can be: a loss, none, and what cannot be told.

    Returns:
        One panel a data set.
    """
    long = in_words(told, names, ("dataset", "model"))
    keys = [Key(word, "verdict", COLOURS[number]) for word, number in zip(verdicts, (0, 1, 3), strict=True)]
    if long["model"].nunique() > 1:
        keys += [Key(model, "model") for model in long["model"].unique()]
    ends = STEP * floor(min(long["band_low"].min() / STEP, -1)), STEP * ceil(max(long["band_high"].max() / STEP, 1))
    panels = []
    for dataset, own in long.groupby("dataset", sort=False):
        words = "; ".join(f"{s.model}, {s.statement}: {_told(s)}" for s in own.itertuples())
        panels.append(Panel(dataset, _panel(own, keys[:3], ends), f"{dataset}: {words}."))
    columns = ["dataset", "model", "statement", "value", "band_low", "band_high", "verdict"]
    columns += ["threshold"] if "threshold" in long else []
    numbers = long[columns].rename(columns={"dataset": "data set", "value": "change", "band_low": "low"})
    numbers = numbers.rename(columns={"band_high": "high"})
    title += "; upright ticks: thresholds" if "threshold" in long else ""
    axes = ("a block a statement, a line a model", "change in accuracy (points); a loss lies to the left of 0")
    return figure(panels, title, min(COLUMNS, len(panels)), keys, axes, numbers)


def _told(row) -> str:
    return f"{row.value:+.1f} ({row.band_low:+.1f} to {row.band_high:+.1f}) points, {row.verdict}"


def _panel(own: pd.DataFrame, verdicts: Sequence[Key], ends: tuple[int, int]) -> Drawing:
    """One panel."""
    statements, models = list(own["statement"].unique()), list(own["model"].unique())
    block = len(models) + TITLE_LINES
    tops = pd.Series(range(len(statements)), index=statements) * block
    line = own["model"].map(models.index) + TITLE_LINES - 0.5
    marks = own.assign(
        place=own["statement"].map(tops) + line,
        told=[
            description([row.model, row.verdict], f"{row.model}, {row.statement}: {_told(row)}")
            for row in own.itertuples()
        ],
    )
    y = alt.Y("place:Q", axis=None).scale(domain=[0, block * len(statements)], reverse=True, nice=False)
    x = alt.X("value:Q", title=None).scale(domain=list(ends), nice=False).axis(tickCount=4)
    words = [key.name for key in verdicts]
    colour = alt.Color("verdict:N", legend=None).scale(domain=words, range=[key.colour for key in verdicts])
    shape = alt.Shape("verdict:N", legend=None).scale(domain=words, range=list(SHAPES))
    blocks = pd.DataFrame({"statement": statements, "top": tops.to_numpy()})
    blocks = blocks.assign(title=blocks["top"] + 0.45 * TITLE_LINES)
    layers = [alt.Chart(pd.DataFrame({"value": [0]})).mark_rule(color="gray").encode(x=x)]
    if "threshold" in own:
        limits = marks.assign(value=-marks["threshold"], first=marks["place"] - 0.5, last=marks["place"] + 0.5)
        ticks = alt.Chart(limits).mark_rule(color="gray", strokeWidth=1.5)
        layers.append(ticks.encode(x=x, y=alt.Y("first:Q", axis=None), y2="last:Q"))
    titles = alt.Chart(blocks).mark_text(align="left", fontSize=11)
    layers.append(titles.encode(x=alt.value(0), y=alt.Y("title:Q", axis=None), text="statement:N"))
    spans = alt.Chart(marks.assign(value=marks["band_low"])).mark_rule(strokeWidth=1.5)
    layers.append(spans.encode(x=x, x2="band_high:Q", y=y, color=colour, description="told:N"))
    points = alt.Chart(marks).mark_point(filled=True, size=40, opacity=1)
    layers.append(points.encode(x=x, y=y, color=colour, shape=shape, description="told:N"))
    height = block * len(statements) * (FEW_LINE if len(models) <= FEW else LINE)
    size = {"width": WIDTH, "height": height, "autosize": {"type": "fit", "contains": "padding"}}
    return drawing(alt.layer(*layers).properties(**size).to_dict(validate=False))
