"""Panels of lines over named stations.

Panels of a figure differ in their data alone: what Altair makes of the layers is made once, and each panel fills it.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.points import SIDE_PATHS, flow_order, is_point
from mlprobe_utils.plots.figures import BETWEEN, Drawing, Key
from mlprobe_utils.plots.inline_svg import description
from mlprobe_utils.plots.panels import drawing, layered

BAND = ("band_low", "band_high")
BAND_OPACITY = 0.2
MOST_LABELS = 20  # stations that can all be written under a panel
MOST_LETTERS = 36  # beside each other under a panel
_LINE = ["model", "series"]  # what makes marks one line


@dataclass(frozen=True)
class Values:
    """What the lines of a figure show."""

    meaning: str  # of the vertical axis
    unit: str = " %"
    decimals: int = 1
    logarithmic: bool = False
    whole: bool = False  # an axis from 0 to 100; else it begins a little below the probes


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
) -> Drawing:
    """One panel: means over runs as strong lines, single runs as faint ones, answers as diamonds.

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
    runs = _marks(own[[*_LINE, "x", "value", "run"]], [*_LINE, "run"], order, domain[0])
    means = _marks(own.groupby([*_LINE, "x"], sort=False)["value"].mean().reset_index(), _LINE, order, domain[0])
    there = means["value"].notna()
    told = means["x"] + " " + means["value"].map(f"{{:.{values.decimals}f}}{values.unit}".format)
    together = told[there].groupby([means[column] for column in _LINE]).transform(BETWEEN.join)
    means["told"] = means["silent"] + together  # of a path Vega takes the first vertex's description
    several = runs.groupby(_LINE)["run"].transform("nunique") > 1
    apart = runs["x"].isin(answers) & any(map(is_point, order))  # no line leads from a probe to an answer
    answer = means["x"].isin(answers) & there
    alone = means.groupby([*_LINE, "part"])["value"].transform("count").eq(1) & there & ~answer
    low = means[means["value"] < domain[0]]
    tables = {
        "marked": pd.DataFrame({"x": [] if marked is None else [marked]}),
        **_bands(own, order, domain),
        "runs": runs[several & ~apart],
        "means": means,
        "answers": means[answer],
        "alone": means[alone],
        "side paths": _side_paths(order),
        "low": low.assign(text=low["value"].map("▼ {:.0f}".format)),
    }
    tables = {name: table for name, table in tables.items() if len(table)}
    return drawing(_template(tuple(tables), tuple(order), tuple(keys), values, domain, compact), tables)


def _bands(own: pd.DataFrame, order: Sequence[str], domain: tuple[float, float]) -> dict[str, pd.DataFrame]:
    """Bands as light areas, one a module, and as a light bar where a module has one point; cut at the axis."""
    if BAND[0] not in own:
        return {}
    ends = own.dropna(subset=[*BAND]).drop_duplicates([*_LINE, "x"])[[*_LINE, "x", *BAND]].assign(value=0.0)
    ends = _marks(ends, _LINE, order, domain[0]).dropna(subset="value")
    ends[[*BAND]] = ends[[*BAND]].clip(*domain)
    alone = ends.groupby([*_LINE, "part"])["x"].transform("count") == 1
    return {"areas": ends[~alone], "bars": ends[alone]}


def _side_paths(order: Sequence[str]) -> pd.DataFrame:
    """Where the name of a side path is written, and the name."""
    places = {title: [x for x in order if is_point(x) and x[0] == letter] for letter, title in SIDE_PATHS.items()}
    return pd.DataFrame([(own[len(own) // 2], title) for title, own in places.items() if own], columns=["x", "text"])


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


@functools.lru_cache(maxsize=64)
def _template(
    layers: tuple[str, ...],
    order: tuple[str, ...],
    keys: tuple[Key, ...],
    values: Values,
    domain: tuple[float, float],
    compact: bool,
) -> dict:
    """The specification of a panel without its data; `layers` names its tables, the lowest first."""
    place = _encodings(order, keys, values, domain, compact)
    style = {name: place.pop(name) for name in ("strokeDash", "strokeWidth")}
    low, silent = place["y"].copy(), {"description": "silent:N"}
    low.shorthand = f"{BAND[0]}:Q"
    band = {"x": place["x"], "y": low, "y2": alt.Y2(f"{BAND[1]}:Q"), "color": place["color"]} | silent
    line, point = {**place, "order": "place:Q"}, {"filled": True, "opacity": 1}
    made = {
        "marked": lambda it: it.mark_rule(color="gray", strokeDash=[1, 2], strokeWidth=1.5).encode(x=place["x"]),
        "areas": lambda it: it.mark_area(opacity=BAND_OPACITY).encode(**band, detail=["model:N", "part:N"]),
        "bars": lambda it: it.mark_rule(opacity=BAND_OPACITY, strokeWidth=6).encode(**band),
        "runs": lambda it: it.mark_line(strokeWidth=0.8, opacity=0.5).encode(
            **line, **silent, detail=["model:N", "run:N"]
        ),
        "means": lambda it: it.mark_line().encode(**line, **style, detail="model:N", description="told:N"),
        "answers": lambda it: it.mark_point(shape="diamond", size=60, **point).encode(**place, **silent),
        "alone": lambda it: it.mark_point(shape="circle", size=30, **point).encode(**place, **silent),
        "side paths": lambda it: it.mark_text(dy=-7, fontSize=10).encode(x=place["x"], y=alt.value(0), text="text:N"),
        "low": lambda it: it.mark_text(align="right", dx=-6, dy=-6).encode(**place, **silent, text="text:N"),
    }
    return layered([made[name](alt.Chart(alt.NamedData(name))) for name in layers], compact)


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
