"""Figures of the pages: inline SVG with a caption, keys, and the numbers in a fold. Complete without JavaScript.

book/_static/charts.js adds tooltips, highlighting and enlargement to what is here. It reads three attributes: marks
carry `data-series` (names they belong to, separated by |) and `data-told` (what the tooltip says: one text, or one a
vertex, separated by |), keys carry `data-highlight` (the name that they single out).
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pandas as pd

BETWEEN = "|"
SERIES_END = "‖"  # in a mark's description for Altair: names that it belongs to, then what a tooltip says of it
MOST_ROWS = 40  # of numbers that a page shows; more are only in the file
ENLARGE = '<button type="button" class="chart-zoom" hidden>Enlarge</button>'


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure."""

    title: str  # empty where the figure's caption says all
    svg: str
    description: str  # in words, for those who cannot see it
    wide: bool = False  # cannot be read on a phone unless it scrolls


@dataclass(frozen=True)
class Key:
    """A name in a chart's legend; with JavaScript it singles out what belongs to that name."""

    name: str
    kind: str  # names of a kind exclude each other: "model", "stage"
    colour: str = ""  # CSS; empty: the name has no colour of its own
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure for a notebook: HTML on a page, a description in words where there is only text."""

    html: str
    description: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.description}


def figure(
    panels: Sequence[Panel],
    title: str,
    columns: int = 1,
    keys: Iterable[Key] = (),
    axes: tuple[str, str] = ("", ""),
    numbers: pd.DataFrame | None = None,
    decimals: int = 1,
) -> Figure:
    """Panels beside each other, as many a row as fit and at most `columns`, with a caption.

    Args:
        panels: in the order of reading.
        title: the caption.
        keys: the legend.
        axes: what the vertical and the horizontal axis of all panels mean.
        numbers: everything that the panels draw, as CSV and, up to MOST_ROWS rows, as a table, in a fold.
        decimals: of the numbers in the table; the CSV has six digits.
    """
    vertical, horizontal = (html.escape(axis) for axis in axes)
    parts = [
        f'<figure class="chart" style="--columns:{columns}"><div class="chart-body">',
        _legend(keys),
        f'<p class="chart-axis">↑ {vertical}</p>' if vertical else "",
        f'<div class="chart-panels">{"".join(_panel(panel, title) for panel in panels)}</div>',
        f'<p class="chart-axis chart-axis-below">→ {horizontal}</p>' if horizontal else "",
        f"</div><figcaption>{html.escape(title)} {ENLARGE}</figcaption>",
        _numbers(numbers, title, decimals) if numbers is not None else "",
        "</figure>",
    ]
    description = " ".join([f"{title}.", *(panel.description for panel in panels)])
    return Figure("".join(parts), description)


def single(name: str) -> str:
    """A name that can stand among others in data-series."""
    return name.translate({ord(BETWEEN): "¦", ord(SERIES_END): "¦"})


def download(table: pd.DataFrame, title: str) -> str:
    """A link that gives a table as a CSV file named after its title; the file is in the page itself."""
    file = re.sub(r"\W+", "-", title.lower()).strip("-")
    csv = quote(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"), safe=" ,.:;/()-_")
    return f'<a download="{file}.csv" href="data:text/csv;charset=utf-8,{csv}">Download as CSV</a> ({len(table)} rows)'


def scrolling_table(table: pd.DataFrame, decimals: int) -> str:
    """A table as HTML, every text escaped and no zero negative, in a box of its own that scrolls if it is wide."""
    whole = [column for column in table if isinstance(table[column].dtype, pd.Int64Dtype)]  # na_rep passes these over
    table = table.assign(**{column: table[column].astype(object).where(table[column].notna(), "") for column in whole})
    body = table.to_html(
        index=False, border=0, classes="table", justify="left", float_format=f"{{:z.{decimals}f}}".format, na_rep=""
    )
    return scrolling(body)


def scrolling(table: str) -> str:
    """A table's HTML in a box of its own, which scrolls if the table is wide."""
    return f'<div class="pst-scrollable-table-container">{table}</div>'


def _panel(panel: Panel, title: str) -> str:
    head, rest = panel.svg.split(">", 1)
    name = html.escape(f"{title}: {panel.title}" if panel.title else title)
    heading = f'<p class="chart-panel-title">{html.escape(panel.title)}</p>' if panel.title else ""
    described = f'{head} role="img"><title>{name}</title><desc>{html.escape(panel.description)}</desc>{rest}'
    box = 'class="chart-panel chart-panel-wide" tabindex="0"' if panel.wide else 'class="chart-panel"'
    return f"<div {box}>{heading}{described}</div>"


def _legend(keys: Iterable[Key]) -> str:
    kinds: dict[str, list[Key]] = {}
    for key in keys:
        kinds.setdefault(key.kind, []).append(key)
    groups = [
        f'<div class="chart-keys" role="group" aria-label="{html.escape(kind)}">{"".join(map(_key, of_kind))}</div>'
        for kind, of_kind in kinds.items()
    ]
    return f'<div class="chart-legend">{"".join(groups)}</div>' if groups else ""


def _key(key: Key) -> str:
    line = f"{1 if key.thin else 2}px {'dashed' if key.dashed else 'solid'} {key.colour}"
    swatch = f'<span class="chart-swatch" style="border-top:{html.escape(line)}"></span>' if key.colour else ""
    name = html.escape(single(key.name))
    return (
        f'<button type="button" class="chart-key" data-highlight="{name}" aria-pressed="false" disabled>'
        f"{swatch}{name}</button>"
    )


def _numbers(numbers: pd.DataFrame, title: str, decimals: int) -> str:
    table = scrolling_table(numbers, decimals) if len(numbers) <= MOST_ROWS else ""
    return (
        '<details class="chart-data"><summary>The numbers of this chart</summary>'
        f"<p>{download(numbers, title)}</p>{table}</details>"
    )
