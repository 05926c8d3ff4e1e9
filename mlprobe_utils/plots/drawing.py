"""How panels are drawn: by Altair and Vega, in one theme, as SVG that fits a page. Colours are CSS variables with the
light ones as values: a panel follows the switch between light and dark."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import pandas as pd
import vl_convert

from mlprobe_utils.plots.figures import BETWEEN, LIGHT, SERIES_END, Figure, Panel, single

COLOURS = tuple(f"var(--chart-{number}, {light})" for number, light in enumerate(LIGHT, 1))
WIDTH, HEIGHT = 240, 190  # pixels; a page scales them
LARGE = (420, 180)  # width and height of a panel that is shown alone
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
THEME = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**_TEXT, "domainColor": "gray", "tickColor": "gray", "gridColor": "gray", "gridOpacity": 0.25},
    "axisX": {"labelFontSize": 12},
    "axisY": {"labelFontSize": 12, "ticks": False, "domain": False},
    "header": _TEXT,
    "legend": _TEXT,
    "text": {"color": "currentColor"},
    "title": {"color": "currentColor"},
    "line": {"strokeCap": "round"},
}
_NEEDLESS = {"class", "pointer-events", "font-family", "version", "role", "stroke-miterlimit"}
_DEFAULTS = {("opacity", "1"), ("stroke-dasharray", "1,0"), ("transform", "translate(0,0)"), ("x2", "0"), ("y2", "0")}
_INHERITED = ("fill", "font-size", "text-anchor", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap")


def enable() -> None:
    """Makes a chart that a reader draws with Altair come out in the book's form as well."""

    def render(spec: dict, **_) -> dict:
        words = spec.pop("description", "a chart without a description")
        return Figure([Panel("", *drawing(spec), words)], words)._repr_mimebundle_()

    alt.renderers.register("inline_svg", render)
    alt.renderers.enable("inline_svg")
    alt.data_transformers.disable_max_rows()


def drawing(spec: dict, tables: Mapping[str, pd.DataFrame] | None = None) -> tuple[str, dict]:
    """Inline SVG of a Vega-Lite specification in the theme of the book, whose data are `tables`; and what was drawn."""
    records = {name: table.to_json(orient="records", double_precision=15) for name, table in (tables or {}).items()}
    whole = spec | {"config": THEME}
    whole |= {"datasets": {name: json.loads(text) for name, text in records.items()}} if records else {}
    return inline(vl_convert.vegalite_to_svg(whole)), whole


def panel(
    title: str,
    layers: Sequence[dict],
    size: tuple[float, float],
    tables: Mapping[str, pd.DataFrame],
    words: Iterable[str],
) -> Panel:
    """Layers over each other, of `tables`, which show `words`; `size`: width and height in pixels."""
    size = {"width": size[0], "height": size[1], "autosize": {"type": "fit", "contains": "padding"}}
    on_phones = "large" if size["width"] > WIDTH else ""
    return Panel(title, *drawing({"layer": layers} | size, tables), "; ".join(words), on_phones=on_phones)


def layer(table: str, mark: str, look: Mapping, **channels: str | dict | list) -> dict:
    """Marks of the table with this name; a channel may be as for `channel`, without options."""
    encoding = {name: channel(own) if isinstance(own, str) else own for name, own in channels.items()}
    return {"data": {"name": table}, "mark": {"type": mark, **look}, "encoding": encoding}


def channel(shorthand: str, **options) -> dict:
    """A channel that shows a column: "x:Q" its numbers, "x:N" its names, "x" the end of what x2 or y2 belongs to."""
    field, _, kind = shorthand.partition(":")
    return {"field": field} | ({"type": {"Q": "quantitative", "N": "nominal"}[kind]} if kind else {}) | options


def description(names: Iterable[str], tooltip: str = "") -> str:
    """A mark's `description` for Altair, which `inline` turns into data-series and data-told."""
    return BETWEEN.join(dict.fromkeys(map(single, names))) + SERIES_END + tooltip


def inline(svg: str) -> str:
    """The drawing that `vl_convert.vegalite_to_svg` made, in about half as many characters; marks keep their names."""
    root = ET.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg))
    _clean(root)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")


def _clean(element: ET.Element) -> None:
    names, found, tooltip = element.attrib.pop("aria-label", "").partition(SERIES_END)
    for name, value in list(element.attrib.items()):
        if name in _NEEDLESS or name.startswith("aria-") or (name, value) in _DEFAULTS:
            del element.attrib[name]
        elif name in ("d", "transform"):  # a hundredth of a pixel is enough
            element.set(name, re.sub(r"-?\d+\.\d+", lambda number: f"{round(float(number[0]), 2):g}", value))
    if found:
        element.attrib |= {f"data-{key}": value for key, value in (("series", names), ("told", tooltip)) if value}
    children = []
    for child in element:
        if child.get("class") in ("background", "foreground"):
            continue
        _clean(child)
        if child.tag != "g":
            children.append(child)
        elif len(child):
            children += [child] if child.attrib else list(child)
    element[:] = children
    for name in _INHERITED if len(children) > 1 and element.tag == "g" else ():
        values = {child.get(name) for child in children}
        if len(values) == 1 and None not in values:
            element.set(name, values.pop())
            for child in children:
                del child.attrib[name]
