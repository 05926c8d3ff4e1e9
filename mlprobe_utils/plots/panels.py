"""How panels of figures are drawn: by Altair, in one theme; and matrices of shaded squares.

Colours are CSS variables, so that a panel follows the switch between light and dark, of the book or of a notebook; the
values behind the commas are the light ones. Dashes say the same as colours.
"""

import functools
import json
from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd
import vl_convert

from mlprobe_utils.plots.figures import LIGHT, Drawing, Panel, figure
from mlprobe_utils.plots.inline_svg import description, inline

COLOURS = tuple(f"var(--chart-{number}, {light})" for number, light in enumerate(LIGHT, 1))
SHADES = (0.03, 0.45)  # of a square: text on the fullest is legible in both themes
HEIGHT, COMPACT_HEIGHT = 190, 120  # pixels; a page scales them


def enable() -> None:
    """Makes a chart that a reader draws with Altair come out in the book's form as well."""
    alt.renderers.register("inline_svg", _render)
    alt.renderers.enable("inline_svg")
    alt.data_transformers.disable_max_rows()


def _render(spec: dict, **_) -> dict:
    words = spec.get("description", "a chart without a description")
    title = spec.get("title", words)
    title = title["text"] if isinstance(title, dict) else title
    title = title if isinstance(title, str) else " ".join(title)
    drawn = drawing({key: value for key, value in spec.items() if key != "title"})
    return figure([Panel("", drawn, words)], title)._repr_mimebundle_()


def drawing(spec: dict, tables: Mapping[str, pd.DataFrame] | None = None) -> Drawing:
    """Draws a Vega-Lite specification as inline SVG, in the theme of the book; `tables` are the data that it names."""
    records = {name: table.to_json(orient="records", double_precision=15) for name, table in (tables or {}).items()}
    named = {"datasets": {name: json.loads(text) for name, text in records.items()}} if tables else {}
    whole = spec | {"config": _theme()} | named
    return Drawing(inline(vl_convert.vegalite_to_svg(whole)), whole)


def layered(layers: Sequence[alt.Chart], compact: bool) -> dict:
    """The specification of a panel of the book's size; types are named, so that Altair need not look at any data."""
    size = {"width": 240, "height": COMPACT_HEIGHT if compact else HEIGHT}
    whole = alt.layer(*layers).properties(**size, autosize={"type": "fit", "contains": "padding"})
    return whole.to_dict(validate=False)


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


def square_panel(cells: pd.DataFrame, text_size: int, compact: bool = False) -> Drawing:
    """A matrix of shaded squares, each with its number.

    Args:
        cells: row and column (texts, in the order of their first cells), number (shown without decimals), shade (0 to
            1), words (what a square says) and model.
        text_size: of the numbers, pixels.
    """
    rows, columns = tuple(cells["row"].unique()), tuple(cells["column"].unique())
    told = [description([c.model], c.words) for c in cells.itertuples()]
    return drawing(_squares(rows, columns, text_size, compact), {"cells": cells.assign(told=told)})


@functools.lru_cache(maxsize=64)
def _squares(rows: tuple[str, ...], columns: tuple[str, ...], text_size: int, compact: bool) -> dict:
    """The specification of such a matrix without its data."""
    x = alt.X("column:N", sort=list(columns), title=None).axis(labelAngle=-40)
    base = alt.Chart(alt.NamedData("cells")).encode(x=x, y=alt.Y("row:N", sort=list(rows), title=None))
    shade = alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=list(SHADES)), legend=None)
    squares = base.mark_rect(fill=COLOURS[1]).encode(opacity=shade, description="told:N")
    text = base.mark_text(fontSize=text_size).encode(text=alt.Text("number:Q", format=".0f"))
    return layered([squares, text], compact)
