"""Figures of the pages: inline SVG with a caption, keys, and the numbers in a fold, complete without JavaScript and
without the book's style sheet.

book/_static/charts.js adds tooltips, highlighting and enlargement by three attributes: marks carry `data-series` (names
they belong to, separated by |) and `data-told` (the tooltip: one text, or one a vertex, separated by |), keys carry
`data-highlight` (the name that they single out). Of many panels a page shows one at a time: without JavaScript each is
in a fold, with it lists of their `facets` choose among them."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.evaluation.points import PROBED
from mlprobe_utils.evaluation.rows import STAGES

BETWEEN = "|"
SERIES_END = "‖"  # in a mark's description for Altair: names that it belongs to, then what a tooltip says of it
MOST_COLUMNS = 3  # of panels
MOST_PANELS = 6  # beside each other; of more the reader chooses one
JOINT = " · "  # between the names in a panel's title
MOST_ROWS = 20  # of a table that a page shows; all are in the file
ENLARGE = '<button type="button" class="chart-zoom" hidden>Enlarge</button>'
# distinguishable with every kind of colour vision, on white and on black
LIGHT = ("#b34700", "#0072b2", "#6e00e6", "#806060", "#000020", "#3c0000")
DARK = ("#e69f00", "#56b4e9", "#e040a0", "#808060", "#c0e0e0", "#e0c080")
ON_DARK = "html[data-theme=dark],html[theme=dark],[data-jp-theme-light=false],.vscode-dark"  # book, Colab, Lab, VS Code
_DARK_COLOURS = ON_DARK + "{" + ";".join(f"--chart-{number}:{dark}" for number, dark in enumerate(DARK, 1)) + "}"
STYLE = _DARK_COLOURS + "".join(Path(__file__).with_suffix(".css").read_text().splitlines())
_VARIABLE = re.compile(r"var\(--[\w-]+, ([^)]+)\)")  # a colour of a theme, and what it is without one
_WHOLE_CHART = ("datasets", "autosize", "padding", "$schema")  # only this has these, and no part of it
_WITHOUT_LEGEND = ("color", "strokeDash", "strokeWidth", "shape")  # a page's keys stand in the place of theirs


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure, and the specification of a chart that looks the same."""

    title: str  # empty where the figure's caption says all
    svg: str
    spec: dict  # Vega-Lite, with its data
    words: str  # what it shows, for those who cannot see it
    link: str = ""  # to the images behind it, in the explorer
    on_phones: str = ""  # "wide": it scrolls there; "large": its text grows

    @property
    def description(self) -> str:
        return f"{self.title}: {self.words}." if self.title else self.words


@dataclass(frozen=True)
class Key:
    """A name in a chart's legend; with JavaScript it singles out what belongs to that name."""

    name: str
    kind: str  # names of a kind exclude each other: "model", "stage"
    colour: str = ""  # CSS; empty: the name has no colour of its own
    dashed: bool = False
    thin: bool = False
    shape: str = ""  # of a point; empty: the name has no points


@dataclass(frozen=True, eq=False)
class Figure:
    """Panels beside each other: HTML on a page, a description in words where there is only text."""

    panels: Sequence[Panel]
    title: str
    columns: int = 1  # at most: as many a row as fit
    facets: Sequence[str] = ()  # what the names in the panels' titles are, where there are many panels
    keys: Sequence[Key] = ()
    axes: tuple[str, str] = ("", "")  # what the vertical and the horizontal axis of all panels mean
    numbers: pd.DataFrame | None = None  # all that is drawn, for a fold: as CSV and, up to MOST_ROWS, as a table
    decimals: int = 1  # of the numbers in the table

    @cached_property
    def html(self) -> str:
        vertical, horizontal = map(html.escape, self.axes)
        legend = "".join(
            f'<div class="chart-keys" role="group" aria-label="{html.escape(kind)}">'
            f"{''.join(_key(key) for key in self.keys if key.kind == kind)}</div>"
            for kind in dict.fromkeys(key.kind for key in self.keys)
        )
        fold = ""
        if self.numbers is not None:
            numbers = self.numbers.rename(columns={"dataset": "data set"})
            table = table_html(numbers, self.decimals) if len(numbers) <= MOST_ROWS else ""
            summary = "<summary>Data of this chart</summary>"
            fold = f'<details class="chart-data">{summary}{download(numbers, self.title)}{table}</details>'
        parts = [
            f'<figure class="chart" style="--columns:{self.columns}"><style>{STYLE}</style><div class="chart-body">',
            f'<details class="chart-legend" open><summary>Legend</summary>{legend}</details>' if legend else "",
            f'<p class="chart-axis">↑ {vertical}</p>' if vertical else "",
            self._choice if self.facets else f'<div class="chart-panels">{self._drawn}</div>',
            f'<p class="chart-axis chart-axis-below">→ {horizontal}</p>' if horizontal else "",
            f"</div><figcaption>{html.escape(self.title)} {ENLARGE}</figcaption>{fold}</figure>",
        ]
        return "".join(parts)

    @property
    def _drawn(self) -> str:
        return "".join(_panel(panel, self.title) for panel in self.panels)

    @property
    def _choice(self) -> str:
        """One panel open, the others folded; the address of a page with `#<figure>=<panel's title>` opens that one."""
        folds = [
            f'<details class="chart-choice"{"" if number else " open"}><summary>{html.escape(panel.title)}</summary>'
            f"{_panel(panel, self.title)}</details>"
            for number, panel in enumerate(self.panels)
        ]
        names = html.escape(JOINT.join(self.facets).replace("dataset", "data set"))
        return f'<div class="chart-choices" id="{slug(self.title)}" data-facets="{names}">{"".join(folds)}</div>'

    @property
    def description(self) -> str:
        return " ".join([f"{self.title}.", *(panel.description for panel in self.panels)])

    @cached_property
    def chart(self) -> alt.ConcatChart:
        """The same as one Altair chart, in the colours of a light page, to change and to combine with others."""
        specs = [standing_alone(panel) for panel in self.panels]
        theme = [spec.pop("config", {}) for spec in specs]
        axes = [f"{sign} {axis}" for sign, axis in zip("↑→", self.axes, strict=True) if axis]
        title = {"text": self.title, "subtitle": axes, "anchor": "start"}
        whole = {"concat": specs, "columns": self.columns, "title": title, "config": theme[0]}
        return alt.ConcatChart.from_dict(whole | {"description": self.description}, validate=False)

    def save(self, path: str | Path) -> None:
        """Writes the chart to a file, as Altair does: .svg, .png (200 pixels an inch), .html, .pdf or .json."""
        self.chart.save(path, **{"ppi": 200} if Path(path).suffix == ".png" else {})

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.description}


def in_words(table: pd.DataFrame, names: Mapping[str, str], by: Sequence[str]) -> pd.DataFrame:
    """A table with stages in words, models and data sets by name (`names`: slug -> name, in the order of the page),
    sorted by what it has of `by`: model, dataset, stage, module."""
    order = {"model": names, "dataset": names, "stage": STAGES, "module": PROBED}
    if places := {key: {value: place for place, value in enumerate(order[key])} for key in by if key in table}:
        table = table.sort_values([*places], key=lambda column: column.map(places[column.name]), kind="stable")
    return table.replace({"model": names, "dataset": names, "stage": STAGE_NAMES})


def columns_of(table: pd.DataFrame, row: str | None, column: str) -> int:
    """Panels beside each other: a value of `column` each, or where there is only one those of `row`."""
    beside = table[column].nunique()
    panels = beside if beside > 1 or not row else table[row].nunique()
    return 2 if panels == 4 else min(MOST_COLUMNS, panels)  # no panel alone in a second row


def standing_alone(panel: Panel) -> dict:
    """The specification of a panel, which needs no page: with its data in place, plain colours, title and legends."""
    spec = _VARIABLE.sub(r"\1", json.dumps(panel.spec)).replace("currentColor", "black").replace("transparent", "white")
    tables, legend = json.loads(spec).get("datasets", {}), {"title": None, "labelLimit": 0, "symbolOpacity": 1}
    legend |= {} if '"shape": {' in spec else {"symbolType": "stroke"}

    def completed(node: dict) -> dict:
        if node.get("data", {}).keys() == {"name"}:
            node["data"] = {"values": tables[node["data"]["name"]]}
        for name, channel in node.get("encoding", {}).items():
            if name in _WITHOUT_LEGEND and "legend" in channel:
                channel["legend"] = legend
        return node

    whole = json.loads(spec, object_hook=completed) | ({"title": panel.title} if panel.title else {})
    return {key: value for key, value in whole.items() if key not in _WHOLE_CHART}


def single(name: str) -> str:
    """A name that can stand among others in data-series."""
    return name.translate({ord(BETWEEN): "¦", ord(SERIES_END): "¦"})


def slug(title: str) -> str:
    """A title as a name of a file or a place in a page."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def in_explorer(**state: object) -> str:
    """A link to the page on which images are followed, with its state, such as `model`, `dataset` and `fate`."""
    return f"explore.ipynb#{urlencode(state)}"


def download(table: pd.DataFrame, title: str) -> str:
    """A paragraph with a link to a table as a CSV file named after its title; the file is in the page itself."""
    csv = quote(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"), safe=" ,.:;/()-_")
    link = f'<a download="{slug(title)}.csv" href="data:text/csv;charset=utf-8,{csv}">Download as CSV</a>'
    return f"<p>{link} ({len(table)} rows)</p>"


def table_html(table: pd.DataFrame, decimals: int = 1) -> str:
    """A table as HTML, every text escaped, numbers with `decimals` and no zero negative, p values (columns `p` and
    `p (…)`) with three; a wide one scrolls, an empty one says so."""
    if table.empty:
        return "<p><em>No rows.</em></p>"
    of_p = [column for column in table if str(column).split(" (")[0] == "p"]
    words = table[of_p].map(lambda p: f"{p:.3f}" if p >= 0.001 else "<\xa00.001", "ignore")
    whole = [column for column in table if isinstance(table[column].dtype, pd.Int64Dtype)]  # na_rep passes these over
    counts = {column: table[column].astype(object).where(table[column].notna(), "") for column in whole}
    look = {"index": False, "border": 0, "classes": "table", "justify": "left", "na_rep": ""}
    return scrolling(table.assign(**words, **counts).to_html(float_format=f"{{:z.{decimals}f}}".format, **look))


def head_html(table: pd.DataFrame, decimals: int = 1, title: str = "table") -> str:
    """As `table_html`; of a table of more than MOST_ROWS rows the first ones, and all as a file."""
    if len(table) <= MOST_ROWS:
        return table_html(table, decimals)
    words = f"<p>First {MOST_ROWS} of {len(table)} rows.</p>"
    return table_html(table.head(MOST_ROWS), decimals) + words + download(table, title)


def scrolling(table: str) -> str:
    """A table's HTML in a box of its own, which scrolls if the table is wide."""
    return f'<div class="pst-scrollable-table-container">{table}</div>'


def _panel(panel: Panel, title: str) -> str:
    head, rest = panel.svg.split(">", 1)
    name = html.escape(f"{title}: {panel.title}" if panel.title else title)
    heading = f'<p class="chart-panel-title">{html.escape(panel.title)}</p>' if panel.title else ""
    described = f'{head} role="img"><title>{name}</title><desc>{html.escape(panel.description)}</desc>{rest}'
    looks = f" chart-panel-{panel.on_phones}" if panel.on_phones else ""
    reached = ' tabindex="0"' if panel.on_phones == "wide" else ""  # what scrolls, by keyboard too
    link = f'<a class="chart-images" href="{html.escape(panel.link)}">Follow these images</a>' if panel.link else ""
    return f'<div class="chart-panel{looks}"{reached}>{heading}{described}{link}</div>'


def _key(key: Key) -> str:
    line = f"{1 if key.thin else 2}px {'dashed' if key.dashed else 'solid'} {key.colour}"
    swatch = f'<span class="chart-swatch" style="border-top:{html.escape(line)}"></span>' if key.colour else ""
    name = html.escape(single(key.name))
    button = f'<button type="button" class="chart-key" data-highlight="{name}" aria-pressed="false" disabled>'
    return f"{button}{swatch}{name}</button>"
