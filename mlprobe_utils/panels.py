"""Panels of figures, drawn by Altair in one theme: lines over named stations, and squares of a confusion matrix.

Colours are CSS variables of book/_static/book.css, so that a panel follows the book's switch between light and dark;
the values behind the commas are for pages without that style sheet. Dashes say the same as colours.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd
import vl_convert

from mlprobe_utils.figures import BETWEEN, Key, Panel, figure
from mlprobe_utils.inline_svg import description, inline
from mlprobe_utils.points import SIDE_PATHS, flow_order, is_point

COLOURS = tuple(
    f"var(--chart-{number}, {light})"
    for number, light in enumerate(("#b34700", "#0072b2", "#6e00e6", "#806060", "#000020", "#3c0000"), 1)
)
BAND_OPACITY = 0.2
HEIGHT, COMPACT_HEIGHT = 190, 120  # pixels; a page scales them
MOST_LABELS = 20  # stations that can all be written under a panel
MOST_LETTERS = 36  # beside each other under a panel
BAND = ("band_low", "band_high")
_LINE = ["model", "series"]  # what makes marks one line


@dataclass(frozen=True)
class Values:
    """What the lines of a figure show."""

    meaning: str  # of the vertical axis
    unit: str = " %"
    decimals: int = 1
    logarithmic: bool = False
    whole: bool = False  # an axis from 0 to 100; else it begins a little below the probes


def enable() -> None:
    """Makes a chart that a reader draws with Altair come out in the book's form as well."""
    alt.renderers.register("inline_svg", _render)
    alt.renderers.enable("inline_svg")
    alt.data_transformers.disable_max_rows()


def _render(spec: dict, **_) -> dict:
    words = spec.get("description", "a chart without a description")
    title = spec.get("title", words)
    title = title if isinstance(title, str) else " ".join(title["text"])
    svg = drawing({key: value for key, value in spec.items() if key != "title"})
    return figure([Panel("", svg, words)], title)._repr_mimebundle_()


def drawing(spec: dict) -> str:
    """A Vega-Lite specification as inline SVG, in the theme of the book."""
    return inline(vl_convert.vegalite_to_svg(spec | {"config": _theme()}))


def _theme() -> dict:
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
    return {
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {**text, "domainColor": "gray", "tickColor": "gray", "gridColor": "gray", "gridOpacity": 0.25},
        "axisX": {"labelFontSize": 10},
        "axisY": {"labelFontSize": 11, "ticks": False, "domain": False},
        "header": text,
        "legend": text,
        "text": {"color": "currentColor"},
        "line": {"strokeCap": "round"},
    }


def stations(x: pd.Series, last: Sequence[str]) -> list[str]:
    """Probe points in the order the data flows, other stations as they come, and `last` at the end."""
    found = [station for station in x.unique() if station not in last]
    points = sorted(filter(is_point, found), key=flow_order)
    return [*points, *(s for s in found if not is_point(s)), *(s for s in last if s in set(x))]


def domain_of(long: pd.DataFrame, values: Values, answers: Sequence[str]) -> tuple[float, float]:
    """The vertical axis that all panels share: from a little below the lowest value that is no answer's."""
    low, high = float(long["value"].min()), float(long[[*({"value", BAND[1]} & {*long})]].max(axis=None))
    if values.whole:
        return 0.0, 100.0
    if values.logarithmic:
        return low, high
    lowest = long.loc[~long["x"].isin(answers), "value"].min()
    low = max(min(0.0, lowest), 10 * ((lowest - 5) // 10))  # below 0 only what is
    return low, max(high, low + 10)


def line_panel(
    own: pd.DataFrame,
    order: Sequence[str],
    keys: Sequence[Key],
    values: Values,
    domain: tuple[float, float],
    answers: Sequence[str],
    compact: bool = False,
    marked: str | None = None,
) -> str:
    """One panel as SVG: means over runs as strong lines, single runs as faint ones, answers as diamonds.

    A value below the axis is drawn at the lower edge and written there: one such value would flatten all curves.

    Args:
        own: columns x (a station), value, series (the name that has a colour), model, and run; those of BAND where
            an area is to stand behind a line, nan where it is not.
        order: the stations.
        keys: name -> colour and dash.
        values, domain: of the vertical axis.
        answers: the stations that are no probe's.
        compact: one of many: lower, and of a module's points only its letter is written.
        marked: a station at which a vertical line stands.
    """
    runs = _marks(own, [*_LINE, "run"], order, domain[0])
    means = _marks(own.groupby([*_LINE, "x"], sort=False)["value"].mean().reset_index(), _LINE, order, domain[0])
    told = means["x"] + " " + means["value"].map(f"{{:.{values.decimals}f}}{values.unit}".format)
    together = told[means["value"].notna()].groupby([means[column] for column in _LINE]).transform(BETWEEN.join)
    means["told"] = means["silent"] + together  # of a path Vega takes the first vertex's description
    place = _encodings(order, keys, values, domain, compact)
    style = {name: place.pop(name) for name in ("strokeDash", "strokeWidth")}
    in_order = {"order": "place:Q"}
    layers = [alt.Chart(means).mark_line().encode(**place, **in_order, **style, detail="model:N", description="told:N")]
    several = runs.groupby(_LINE)["run"].transform("nunique") > 1
    if several.any():
        apart = runs["x"].isin(answers) & any(map(is_point, order))  # no line leads from a probe to an answer
        faint = alt.Chart(runs[several & ~apart]).mark_line(strokeWidth=0.8, opacity=0.5)
        layers.insert(0, faint.encode(**place, **in_order, detail=["model:N", "run:N"], description="silent:N"))
    if BAND[0] in own:
        layers[:0] = _areas(own, order, place, domain)
    if marked is not None:
        rule = alt.Chart(pd.DataFrame({"x": [marked]})).mark_rule(color="gray", strokeDash=[1, 2], strokeWidth=1.5)
        layers.insert(0, rule.encode(x=place["x"]))
    answer = means["x"].isin(answers) & means["value"].notna()
    alone = means.groupby([*_LINE, "part"])["value"].transform("count").eq(1) & means["value"].notna() & ~answer
    for shape, size, chosen in (("diamond", 60, answer), ("circle", 30, alone)):
        if chosen.any():
            point = alt.Chart(means[chosen]).mark_point(shape=shape, size=size, filled=True, opacity=1)
            layers.append(point.encode(**place, description="silent:N"))
    for letter, title in SIDE_PATHS.items():
        if side := [station for station in order if is_point(station) and station[0] == letter]:
            above = alt.Chart(pd.DataFrame({"x": [side[len(side) // 2]], "text": [title]}))
            above = above.mark_text(dy=-7, fontSize=10)
            layers.append(above.encode(x=place["x"], y=alt.value(0), text="text:N"))
    low = means[means["value"] < domain[0]]
    if len(low):
        written = alt.Chart(low.assign(text="▼ " + low["value"].map("{:.0f}".format)))
        written = written.mark_text(align="right", dx=-6, dy=-6)
        layers.append(written.encode(**place, text="text:N", description="silent:N"))
    return _drawn(layers, compact)


def _areas(own: pd.DataFrame, order: Sequence[str], place: dict, domain: tuple[float, float]) -> list[alt.Chart]:
    """Bands as light areas, one a module, and as a light bar where a module has one point; cut at the axis."""
    ends = own.dropna(subset=[*BAND]).drop_duplicates([*_LINE, "x"]).assign(value=0.0)
    ends = _marks(ends, _LINE, order, domain[0]).dropna(subset="value")
    ends[[*BAND]] = ends[[*BAND]].clip(*domain)
    alone = ends.groupby([*_LINE, "part"])["x"].transform("count") == 1
    low, high = place["y"].copy(), alt.Y2(f"{BAND[1]}:Q")
    low.shorthand = f"{BAND[0]}:Q"
    where = {"x": place["x"], "y": low, "y2": high, "color": place["color"], "description": "silent:N"}
    area = alt.Chart(ends[~alone]).mark_area(opacity=BAND_OPACITY).encode(**where, detail=["model:N", "part:N"])
    bar = alt.Chart(ends[alone]).mark_rule(opacity=BAND_OPACITY, strokeWidth=6).encode(**where)
    return [chart for chart, there in ((area, ~alone), (bar, alone)) if there.any()]


def _drawn(layers: Sequence[alt.Chart], compact: bool) -> str:
    size = {"width": 240, "height": COMPACT_HEIGHT if compact else HEIGHT}
    whole = alt.layer(*layers).properties(**size, autosize={"type": "fit", "contains": "padding"})
    return drawing(whole.to_dict(validate=False))


def _marks(table: pd.DataFrame, line: list[str], order: Sequence[str], floor: float) -> pd.DataFrame:
    """Vertices of lines in the stations' order; a line is interrupted, by a row without value, where a module ends."""
    table = table.assign(
        place=table["x"].map({station: float(place) for place, station in enumerate(order)}),
        part=[x[0] if is_point(x) else "" for x in table["x"]],
        drawn=table["value"].clip(lower=floor),
        silent=[description(pair) for pair in zip(table["model"], table["series"], strict=True)],
    ).sort_values([*line, "place"])
    after = table.groupby(line)["part"].shift(-1)
    ends = table[after.notna() & (after != table["part"])]
    gaps = ends.assign(place=ends["place"] + 0.5, drawn=None, value=None)
    return pd.concat([table, gaps.astype(table.dtypes)], ignore_index=True).sort_values([*line, "place"])


def _encodings(
    order: Sequence[str], keys: Sequence[Key], values: Values, domain: tuple[float, float], compact: bool
) -> dict:
    labels = _labels(order, compact)
    axis = {"values": labels, "labelAngle": _angle(labels), "labelOverlap": True, "ticks": False, "labelPadding": 4}
    if compact:
        axis["labelExpr"] = "test(/^[A-Z][.]\\d\\d$/, datum.value) ? slice(datum.value, 0, 1) : datum.value"
    coloured = [key for key in keys if key.colour]
    names = [key.name for key in coloured]
    dashes = [[4, 3] if key.dashed else [1, 0] for key in coloured]
    widths = [1 if key.thin else 2 for key in coloured]
    kind = "log" if values.logarithmic else "linear"
    return {
        "x": alt.X("x:N", sort=list(order), scale=alt.Scale(domain=list(order)), title=None).axis(**axis),
        "y": alt.Y("drawn:Q", title=None)
        .scale(domain=list(domain), type=kind, nice=not values.logarithmic)
        .axis(tickCount=3 if compact else 5),
        "color": alt.Color("series:N", legend=None).scale(domain=names, range=[key.colour for key in coloured]),
        "strokeWidth": alt.StrokeWidth("series:N", legend=None).scale(type="ordinal", domain=names, range=widths),
        "strokeDash": alt.StrokeDash("series:N", legend=None).scale(domain=names, range=dashes),
    }


def _labels(order: Sequence[str], compact: bool) -> list[str]:
    """The stations that are written: all that fit, or of a compact panel's points the middle one of each module."""
    if compact:
        modules = [[*own] for _, own in itertools.groupby(order, lambda x: x[0] if is_point(x) else x)]
        return [own[len(own) // 2] for own in modules]
    return list(order if len(order) <= MOST_LABELS else [x for x in order if x.endswith("0") or not is_point(x)])


def _angle(labels: Sequence[str]) -> int:
    """Labels lie flat where they fit, and stand where there are many."""
    if len(labels) * max(map(len, labels)) < MOST_LETTERS:
        return 0
    return -25 if len(labels) < 8 else -90


def line_words(own: pd.DataFrame) -> str:
    """What a panel of lines shows, in words."""
    parts = []
    means = own.groupby(["model", "series", "x"], sort=False)["value"].mean()
    for (model, series), values in means.groupby(level=[0, 1], sort=False):
        values = values.droplevel([0, 1])
        name = series if own["model"].nunique() == 1 else " ".join(dict.fromkeys([model, series]))
        parts.append(f"{name} from {values.min():.3g} at {values.idxmin()} to {values.max():.3g} at {values.idxmax()}")
    return "; ".join(parts)


def square_panel(cells: pd.DataFrame, compact: bool = False) -> str:
    """A confusion matrix as SVG; `cells` has truth, answer, images, share (of the truth) and model."""
    told = [
        description([c.model], f"{c.truth} answered {c.answer}: {c.images} images, {100 * c.share:.0f} % of {c.truth}")
        for c in cells.itertuples()
    ]
    order = list(dict.fromkeys(cells["answer"]))
    x = alt.X("answer:N", sort=order, title=None).axis(labelAngle=-40)
    base = alt.Chart(cells.assign(told=told)).encode(x=x, y=alt.Y("truth:N", title=None))
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 0.45]), legend=None)
    squares = base.mark_rect(fill=COLOURS[1]).encode(opacity=shade, description="told:N")
    return _drawn([squares, base.mark_text(fontSize=11 if compact else 13).encode(text="images:Q")], compact)
