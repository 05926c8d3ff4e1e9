"""The pipeline of a model drawn with its probe points (after figure 2 of the paper), and the same as a table. `points`
is as of `results.probe_points`, in the order the data flows. A side path stands beside the connector."""

from collections.abc import Sequence
from math import ceil

import pandas as pd

from mlprobe_utils.evaluation.points import MODULES, PROBED
from mlprobe_utils.plots.drawing import COLOURS, channel, description, drawing, layer
from mlprobe_utils.plots.figures import Figure, Panel

UNITS = {"V": "block", "D": "merger", "C": "linear layer", "L": "decoder layer"}
READ = {"image_mean": "mean of the image tokens (comprehension)", "last_token": "last token (utilization)"}
MARKERS = {  # of what figure 2 has; in colours that no chart uses for a stage
    "image_mean": {"shape": "circle", "size": 100, "colour": COLOURS[2]},
    "last_token": {"shape": "diamond", "size": 144, "colour": COLOURS[3]},
}
WIDTH, GUTTER, EDGE = 800, 176, 16  # of the drawing; left of the boxes, for the notes; its right margin
MOST_IN_ROW, WIDEST_CELL = 11, 104
BOX, PITCH, GAP = 34, 76, 10  # height of a box; from one row of boxes to the next; between boxes
END = 120  # width of the boxes of image, question and answer
SPACE, PADDING, TURN = 30, 14, 6  # between modules; inside a panel; how far right of a box the flow turns down
INK, PAPER = "currentColor", "var(--pst-color-background, white)"
FAINT = 0.75  # opacity of text that can be passed over
HEADS = ("M0,0 l-6,-3.5 v7 z", "M0,0 l-3.5,-6 h7 z")  # of an arrow to the right, down
Box = tuple[float, float, float]  # left end, right end, y of the middle

AT = {"x": channel("x:Q", scale=None, axis=None), "y": channel("y:Q", scale=None, axis=None)}
AREA = {"x2": "x2", "y2": "y2"}
LOOK = {"size": channel("size:Q", scale=None), "color": channel("colour:N", scale=None)}
SHAPE, OPACITY = channel("shape:N", scale=None), channel("opacity:Q", scale=None)
TEXT = {"align": "left", "opacity": 1, "weight": "normal", "colour": INK}
EACH = {"align": {"expr": "datum.align"}, "fontWeight": {"expr": "datum.weight"}}
LINE = {"color": INK, "strokeWidth": 1, "strokeCap": "butt"}
EDGED, FILLED = {"stroke": INK, "strokeOpacity": 0.6}, {"filled": True, "strokeWidth": 0}
SHAPES = {  # table -> mark, its look, and its channels besides AT; the lowest first
    "grounds": ("rect", {"cornerRadius": 8, "fill": INK, "fillOpacity": 0.05}, AREA),
    "lines": ("line", LINE, {"opacity": OPACITY, "detail": "line:N", "order": "place:Q"}),
    "boxes": ("rect", EDGED | {"cornerRadius": 4, "fill": INK}, AREA | {"fillOpacity": OPACITY}),
    "heads": ("point", FILLED | {"size": 4, "color": INK, "opacity": 0.8}, {"shape": SHAPE}),
    "pills": ("rect", {"cornerRadius": 8.5, "fill": COLOURS[1]}, AREA),
    "markers": ("point", FILLED | {"opacity": 1}, LOOK | {"shape": SHAPE, "description": "tip:N"}),
    "texts": ("text", EACH | {"baseline": "alphabetic"}, LOOK | {"opacity": OPACITY, "text": "words:N"}),
}


def pipeline_scheme(points: pd.DataFrame, name: str, adapted: str = "".join(PROBED)) -> Figure:
    """From image and question to the answer: a box a layer, a marker a probe point and pooling, widths where they vary.
    `adapted`: letters of the modules and side paths whose linear layers carry LoRA after fine-tuning."""
    parts = {letter: own for letter in PROBED if len(own := points[points["point"].str[0] == letter])}
    scheme = _Scheme({letter: len(layers) for letter, layers in parts.items()})
    for letter in MODULES:
        scheme.module(letter, parts[letter], letter in adapted)
        if letter == "C" and "D" in parts:
            scheme.side_path(parts["D"], "D" in adapted)
    scheme.answer_and_legend(bool(adapted))
    tables = {table: pd.DataFrame(rows) for table, rows in scheme.tables.items() if rows}
    layers = [layer(name, mark, look, **AT | own) for name, (mark, look, own) in SHAPES.items() if name in tables]
    whole = {"layer": layers, "width": WIDTH, "height": scheme.y, "padding": 0, "autosize": "none"}
    panel = Panel("", *drawing(whole, tables), _words(parts, name, adapted), on_phones="wide")
    return Figure([panel], f"Pipeline and probe points of {name}")


def scheme_table(points: pd.DataFrame) -> pd.DataFrame:
    """Runs of like points in a row each: `V.00 - V.05`, module class, `model.visual.blocks.{0..5}`, width, poolings."""
    alike = points["path"].str.replace(r"(?<![^.])\d+(?![^.])", "#", regex=True)
    kind = pd.DataFrame({"letter": points["point"].str[0], "path": alike, **points[["module", "width", "poolings"]]})
    runs = points.groupby((kind != kind.shift()).any(axis=1).cumsum(), sort=False)
    named = runs["point"].agg(lambda own: " - ".join(dict.fromkeys(own.iloc[[0, -1]]))).rename("points")
    first = runs[["module", "path", "width", "poolings"]].first().assign(path=runs["path"].agg(_common_path))
    return pd.concat([named, first], axis=1).reset_index(drop=True)


def _common_path(paths: pd.Series) -> str:
    """One path for many that differ in numbers: those that follow each other as {0..5}, others as {0,2}."""
    parts = []
    for names in zip(*paths.str.split("."), strict=True):
        first, *others = distinct = list(dict.fromkeys(names))
        consecutive = len(others) > 1 and int(others[-1]) - int(first) == len(others)
        inside = f"{first}..{others[-1]}" if consecutive else ",".join(distinct)
        parts.append(f"{{{inside}}}" if others else first)
    return ".".join(parts)


class _Scheme:
    """The scheme as it grows from top to bottom: `y` is where it ends so far, `place` the box that data comes from,
    `top` where the last panel begins, `beside` where the connector's ends."""

    def __init__(self, layers: dict[str, int]):
        self.tables: dict[str, list[dict]] = {name: [] for name in SHAPES}
        # boxes in a row: as many rows as needed, evenly filled
        self.columns = {letter: ceil(count / ceil(count / MOST_IN_ROW)) for letter, count in layers.items()}
        side, room = self.columns.get("D", 0), WIDTH - GUTTER - EDGE
        cells = [WIDEST_CELL, *(room / self.columns[letter] for letter in MODULES)]
        if side:  # has a gutter of its own, beside the connector
            cells.append((room - GAP - GUTTER) / (self.columns["C"] + side))
        self.cell = min(cells)
        self.beside = WIDTH - EDGE - side * self.cell - GUTTER if side else WIDTH
        self.place = self._box(GUTTER, 14, END, "image", strong=True)
        self.y = 14 + BOX

    def module(self, letter: str, layers: pd.DataFrame, adapted: bool) -> None:
        """A module's panel with its layers in rows; the question joins before the LLM."""
        space = SPACE + BOX * (letter == "L")
        back = self.y + space / 2
        if letter == "L":
            _, right, middle = self._box(14, back - BOX / 2, END, "question", strong=True)
            self._line([(right, middle), (GUTTER - GAP, middle)])
        self.top = self.y + space
        boxes = self._panel(letter, layers, adapted, 0, self.beside if letter == "C" else WIDTH)
        for number, box in enumerate(boxes):
            self._flow_to(box, box[2] - BOX / 2 - GAP if number else back)

    def side_path(self, layers: pd.DataFrame, adapted: bool) -> None:
        """Deepstack's panel beside the connector's, with arrows from the vision tower and into the LLM."""
        self._panel("D", layers, adapted, self.beside, WIDTH)
        x, below = WIDTH - EDGE + 4, self.y + SPACE + BOX  # right of all places where the flow turns down
        self._line([(x, self.top - SPACE), (x, self.top)], arrow=True)
        self._line([(x, self.y), (x, below)], arrow=True)
        words = "added to the image tokens after the first decoder layers"
        self._text(x - 10, below - 12, words, align="right", opacity=FAINT)

    def answer_and_legend(self, adapted: bool) -> None:
        box = self._box(GUTTER, self.y + SPACE + PADDING, END, "generated answer", strong=True)
        self._flow_to(box, self.y + SPACE / 2)
        self._text(box[1] + 10, box[2] + 4, "scored by P_final", opacity=FAINT)
        y = box[2] + BOX / 2 + 16
        self._line([(4, y), (WIDTH - 4, y)], opacity=0.2)
        for x, (pooling, what) in zip((20, 410), READ.items(), strict=True):
            self._add("markers", x, y + 18, tip=None, **MARKERS[pooling])
            self._text(x + 12, y + 22, f"probe on the {what}")
        self.y = y + 36
        if adapted:
            words = "on the module's linear layers, after fine-tuning only"
            self._lora(12, self.y - 2)
            self._text(64, self.y + 11, f"{words}: the same probes are trained before and after")
            self.y += 26

    def _panel(self, letter: str, layers: pd.DataFrame, adapted: bool, left: float, right: float) -> list[Box]:
        """The ground from `top` on, notes on the module, and a box a layer; `y` is then below all of it."""
        columns, first, title = self.columns[letter], self.top + PADDING, PROBED[letter]
        self.y = max(self.y, first + (ceil(len(layers) / columns) - 1) * PITCH + BOX + 2 * PADDING)
        self._add("grounds", left + 4, self.top, x2=right - 4, y2=self.y)
        self._text(left + 14, first + 9, title[0].upper() + title[1:], 14, weight="bold")
        count, judged = _notes(letter, len(layers))
        self._text(left + 14, first + 26, count)
        self._text(left + 14, first + 42, judged, opacity=FAINT)
        if adapted:
            self._lora(left + 116, first - 4)
        boxes, width = [], None
        for number, own in enumerate(layers.itertuples()):
            x, y = left + GUTTER + number % columns * self.cell, first + number // columns * PITCH
            boxes.append(self._box(x, y, self.cell - GAP, own.point, "" if own.width == width else str(own.width)))
            width, poolings = own.width, [pooling for pooling in own.poolings.split(", ") if pooling in READ]
            for place, pooling in enumerate(poolings):  # a marker each, hanging from the box
                at = x + (self.cell - GAP) / 2 + 18 * (place - (len(poolings) - 1) / 2)
                tip = f"{own.point}: {READ[pooling]}, {width} features of {own.path} ({own.module})"
                self._line([(at, y + BOX), (at, y + BOX + 8)])
                self._add("markers", at, y + BOX + 13, tip=description([], tip), **MARKERS[pooling])
        return boxes

    def _flow_to(self, target: Box, back: float) -> None:
        """Arrow to the next box: straight within a row, else down at the right and to the left again along `back`."""
        (_, right, y), (left, _, target_y) = self.place, target
        out, before = right + TURN, left - GAP
        turns = [(out, y), (out, back), (before, back), (before, target_y)] if target_y != y else []
        self._line([(right, y), *turns, (left, target_y)], arrow=True)
        self.place = target

    def _add(self, table: str, x: float, y: float, **values) -> None:
        self.tables[table].append({"x": x, "y": y} | values)

    def _box(self, x: float, y: float, width: float, words: str, below: str = "", strong: bool = False) -> Box:
        self._add("boxes", x, y, x2=x + width, y2=y + BOX, opacity=0.12 if strong else 0.04)
        self._text(x + width / 2, y + (15 if below else 21), words, align="center")
        if below:
            self._text(x + width / 2, y + 29, below, 10.5, align="center", opacity=FAINT)
        return x, x + width, y + BOX / 2

    def _line(self, points: Sequence[tuple[float, float]], arrow: bool = False, opacity: float = 0.6) -> None:
        """A line through the points; an arrow's head points right, or down where the last of the line is upright."""
        number = len(self.tables["lines"])
        for place, (x, y) in enumerate(points):
            self._add("lines", x, y, line=number, place=place, opacity=opacity)
        if arrow:
            self._add("heads", x, y, shape=HEADS[points[-2][0] == x])

    def _text(self, x: float, y: float, words: str, size: float = 12, **look) -> None:
        self._add("texts", x, y, words=words, size=size, **TEXT | look)

    def _lora(self, x: float, y: float) -> None:
        self._add("pills", x, y, x2=x + 42, y2=y + 17)
        self._text(x + 21, y + 12.5, "LoRA", 11, align="center", colour=PAPER)


def _words(parts: dict[str, pd.DataFrame], name: str, adapted: str) -> str:
    described = {}
    for letter, layers in parts.items():
        names = " to ".join(dict.fromkeys(layers["point"].iloc[[0, -1]]))
        widths = " then ".join(map(str, dict.fromkeys(layers["width"])))
        found = {pooling for words in layers["poolings"] for pooling in words.split(", ")}
        read = " and the ".join(what for pooling, what in READ.items() if pooling in found)
        lora = ", with LoRA after fine-tuning" if letter in adapted else ""
        count, judged = _notes(letter, len(layers))
        module = f"{PROBED[letter]} of {count} ({names}, {widths} features{lora})"
        described[letter] = f"{module}, probed on the {read} and {judged}"
    flow = "; ".join(f"the {described[letter]}" for letter in MODULES)
    words = f"{name}: an image passes through {flow}. The question joins it before the LLM. P_final scores the answer."
    aside = f" A side path bypasses the connector, from the vision tower into the LLM: {described.get('D')}."
    return words + (aside if "D" in described else "")


def _notes(letter: str, count: int) -> tuple[str, str]:
    judged = f"scored by FHS_{letter}" if letter in MODULES else "not in a health score"
    return f"{count} {UNITS[letter]}{'' if count == 1 else 's'}", judged
