"""The pipeline of the loaded model drawn with its probe points (after figure 2 of the paper), and the same as a table.

`points` has one row a probe point: point (`V.00`…), path (of the module in the model), module (class name), width
(features) and poolings ("image_mean, last_token"). A side path stands beside the connector, which it goes past.
"""

import math

import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import MODULES, PROBED, is_point
from mlprobe_utils.plots import svg
from mlprobe_utils.plots.figures import Figure
from mlprobe_utils.plots.panels import COLOURS

COLUMNS = ("point", "path", "module", "width", "poolings")
UNITS = {
    "V": ("block", "blocks"),
    "D": ("merger", "mergers"),
    "C": ("linear layer", "linear layers"),
    "L": ("decoder layer", "decoder layers"),
}
POOLINGS = {  # what each marker reads; colours that no chart uses for a stage
    "image_mean": ("mean of the image tokens (comprehension)", svg.circle, COLOURS[2]),
    "last_token": ("last token (utilization)", svg.diamond, COLOURS[3]),
}
LORA = COLOURS[1]

WIDTH, GUTTER, EDGE = 800, 176, 16  # of the drawing; left of the boxes, for what is said of a module; its right margin
MOST_IN_ROW, WIDEST_CELL = 11, 104
BOX, PITCH, GAP = 34, 76, 10  # height of a box; from one row of boxes to the next; between boxes
END = 120  # width of the boxes of image, question and answer
SPACE, PADDING, TURN = 30, 14, 6  # between modules; inside a panel; how far right of a box the flow turns down
Box = tuple[float, float, float]


def pipeline_scheme(points: pd.DataFrame, name: str, adapted: str = "".join(PROBED)) -> Figure:
    """The way from image and question to the answer: a box a layer, a marker a probe point and pooling.

    Args:
        points: as above, in the order the data flows; a width is written where it changes.
        name: of the model.
        adapted: letters of the modules and side paths whose linear layers carry LoRA after fine-tuning.

    Returns:
        A figure with inline SVG that scales with the page and describes itself in words.

    Raises:
        InputError: a column or module that is missing, or a point or pooling that is none.
    """
    _check(points)
    parts = {letter: own for letter in PROBED if len(own := points[points["point"].str[0] == letter])}
    drawing = _Drawing({letter: len(layers) for letter, layers in parts.items()})
    drawing.start("image")
    for letter in MODULES:
        drawing.module(letter, parts[letter], letter in adapted, asked=letter == "L")
        if letter == "C" and "D" in parts:
            drawing.side_path(parts["D"], "D" in adapted)
    drawing.answer("generated answer", "judged by P_final")
    drawing.legend(adapted=bool(adapted))
    title = f"Pipeline and probe points of {name}"
    return svg.figure(drawing.shapes, WIDTH, drawing.y, title, _words(parts, name, adapted))


def scheme_table(points: pd.DataFrame) -> pd.DataFrame:
    """Probe points with runs of the same module class, width and poolings in one row each.

    `V.00 - V.05 | Qwen2_5_VLVisionBlock | model.visual.blocks.{0..5} | 48 | image_mean`. Raises as `pipeline_scheme`.
    """
    _check(points)
    alike = points["path"].str.replace(r"(?<![^.])\d+(?![^.])", "#", regex=True)
    kind = pd.DataFrame({"letter": points["point"].str[0], "path": alike, **points[["module", "width", "poolings"]]})
    run = (kind != kind.shift()).any(axis=1).cumsum()
    records = [
        {
            "points": " - ".join(dict.fromkeys([of_run["point"].iloc[0], of_run["point"].iloc[-1]])),
            "module": of_run["module"].iloc[0],
            "path": _common_path(list(of_run["path"])),
            "width": of_run["width"].iloc[0],
            "poolings": of_run["poolings"].iloc[0],
        }
        for _, of_run in points.groupby(run, sort=False)
    ]
    return pd.DataFrame(records)


def _common_path(paths: list[str]) -> str:
    """One path for many that differ in numbers: those that follow each other as {0..5}, others as {0,2}."""
    parts = []
    for names in zip(*(path.split(".") for path in paths), strict=True):
        distinct = list(dict.fromkeys(names))
        numbers = [int(name) for name in distinct if name.isdigit()]
        if len(distinct) == 1:
            parts.append(distinct[0])
        elif len(distinct) > 2 and numbers == list(range(numbers[0], numbers[0] + len(distinct))):
            parts.append(f"{{{distinct[0]}..{distinct[-1]}}}")
        else:
            parts.append(f"{{{','.join(distinct)}}}")
    return ".".join(parts)


def _check(points: pd.DataFrame) -> None:
    if absent := [column for column in COLUMNS if column not in points.columns]:
        raise InputError(f"probe points lack the columns {', '.join(absent)}")
    if odd := [point for point in points["point"] if not is_point(str(point))]:
        raise InputError(f"no names of probe points: {', '.join(map(str, odd))}")
    if absent := [f"{title} ({m})" for m, title in MODULES.items() if not points["point"].str.startswith(m).any()]:
        raise InputError(f"no probe points of the {' and the '.join(absent)}")
    if odd := sorted({p for poolings in points["poolings"] for p in _poolings(poolings) if p not in POOLINGS}):
        raise InputError(f"unknown poolings {', '.join(odd)}; known: {', '.join(POOLINGS)}")


def _poolings(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


def _columns(count: int) -> int:
    """Boxes in a row: as many rows as needed, evenly filled."""
    return math.ceil(count / math.ceil(count / MOST_IN_ROW))


class _Drawing:
    """The scheme as it grows from top to bottom: `y` is where it ends so far, `place` the box that data comes from.

    `top` is where the last panel begins, `beside` where the connector's ends. A box is known by (left end,
    right end, y of its middle).
    """

    def __init__(self, layers: dict[str, int]):
        self.shapes: list[str] = []
        columns = {letter: _columns(count) for letter, count in layers.items()}
        side, room = columns.get("D", 0), WIDTH - GUTTER - EDGE
        cells = [WIDEST_CELL, *(room / columns[letter] for letter in MODULES)]
        if side:  # has a gutter of its own, beside the connector
            cells.append((room - GAP - GUTTER) / (columns["C"] + side))
        self.cell = min(cells)
        self.beside = WIDTH - EDGE - side * self.cell - GUTTER if side else WIDTH
        self.y = 14.0

    def start(self, words: str) -> None:
        self.place = self._box(GUTTER, self.y, END, words, strong=True)
        self.y += BOX

    def module(self, letter: str, layers: pd.DataFrame, adapted: bool, asked: bool) -> None:
        """A module's panel with its layers in rows; if `asked`, the question joins on the way into it."""
        space = SPACE + BOX if asked else SPACE
        back = self.y + space / 2
        if asked:
            _, right, middle = self._box(14, back - BOX / 2, END, "question", strong=True)
            self.shapes.append(svg.line([(right, middle), (GUTTER - GAP, middle)]))
        self.top = self.y + space
        boxes = self._panel(letter, layers, adapted, 0, self.beside if letter == "C" else WIDTH)
        for number, box in enumerate(boxes):
            self._flow_to(box, box[2] - BOX / 2 - GAP if number else back)

    def side_path(self, layers: pd.DataFrame, adapted: bool) -> None:
        """Deepstack's panel beside the connector's, with the way from the vision tower and into the LLM."""
        self._panel("D", layers, adapted, self.beside, WIDTH)
        x, below = WIDTH - EDGE + 4, self.y + SPACE + BOX  # right of all places where the flow turns down
        self.shapes.append(svg.arrow([(x, self.top - SPACE), (x, self.top)]))
        self.shapes.append(svg.arrow([(x, self.y), (x, below)]))
        words = "added to the image states after the first decoder layers"
        self.shapes.append(svg.text(x - 10, below - 12, words, 12, "end", faint=True))

    def answer(self, words: str, judged: str) -> None:
        box = self._box(GUTTER, self.y + SPACE + PADDING, END, words, strong=True)
        self._flow_to(box, self.y + SPACE / 2)
        _, right, middle = box
        self.shapes.append(svg.text(right + 10, middle + 4, judged, 12, faint=True))
        self.y = middle + BOX / 2

    def legend(self, adapted: bool) -> None:
        y = self.y + 16
        self.shapes.append(svg.line([(4, y), (WIDTH - 4, y)], faint=True))
        for number, (what, marker, colour) in enumerate(POOLINGS.values()):
            x = 20 + 390 * number
            self.shapes += [marker(x, y + 18, 5, colour), svg.text(x + 12, y + 22, f"probe on the {what}", 12)]
        self.y = y + 36
        if adapted:
            words = (
                "on the module's linear layers, after fine-tuning only: the same probes are trained before and after"
            )
            self.shapes += [svg.pill(12, self.y - 2, 42, 17, "LoRA", LORA), svg.text(64, self.y + 11, words, 12)]
            self.y += 26

    def _panel(self, letter: str, layers: pd.DataFrame, adapted: bool, left: float, right: float) -> list[Box]:
        """The ground from `top` on, what is said of the layers, and a box each; `y` is then below all of it."""
        columns = _columns(len(layers))
        first = self.top + PADDING
        self.y = max(self.y, first + (math.ceil(len(layers) / columns) - 1) * PITCH + BOX + 2 * PADDING)
        self.shapes.append(svg.panel(left + 4, self.top, right - left - 8, self.y - self.top))
        self._notes(letter, len(layers), adapted, left, first)
        boxes, width = [], None
        for number, layer in enumerate(layers.itertuples()):
            x, y = left + GUTTER + number % columns * self.cell, first + number // columns * PITCH
            told = layer.point if layer.width == width else f"{layer.point}\n{layer.width}"
            boxes.append(self._box(x, y, self.cell - GAP, told))
            self._markers(x + (self.cell - GAP) / 2, y + BOX, layer)
            width = layer.width
        return boxes

    def _box(self, x: float, y: float, width: float, words: str, strong: bool = False) -> Box:
        """A box with one line of words, or two, the second smaller."""
        first, *second = words.split("\n")
        middle = x + width / 2
        self.shapes.append(svg.box(x, y, width, BOX, strong))
        self.shapes.append(svg.text(middle, y + (15 if second else 21), first, 12, "middle"))
        self.shapes += [svg.text(middle, y + 29, line, 10.5, "middle", faint=True) for line in second]
        return x, x + width, y + BOX / 2

    def _markers(self, middle: float, y: float, layer) -> None:
        """A marker a pooling, hanging from a layer's box."""
        poolings = _poolings(layer.poolings)
        for number, pooling in enumerate(poolings):
            what, marker, colour = POOLINGS[pooling]
            x = middle + 18 * (number - (len(poolings) - 1) / 2)
            tip = f"{layer.point}: {what}, {layer.width} features of {layer.path} ({layer.module})"
            self.shapes.append(svg.line([(x, y), (x, y + 8)]))
            self.shapes.append(svg.told(marker(x, y + 13, 5, colour), tip, "probe"))

    def _notes(self, letter: str, count: int, adapted: bool, left: float, y: float) -> None:
        """What is said of a module or side path, left of its boxes."""
        title, x = PROBED[letter], left + 14
        self.shapes.append(svg.text(x, y + 9, title[0].upper() + title[1:], 14, bold=True))
        self.shapes.append(svg.text(x, y + 26, _counted(letter, count), 12))
        self.shapes.append(svg.text(x, y + 42, _judged(letter), 12, faint=True))
        if adapted:
            self.shapes.append(svg.pill(x + 102, y - 4, 42, 17, "LoRA", LORA))

    def _flow_to(self, target: Box, back: float) -> None:
        """Arrow to the next box: straight within a row, else down at the right and to the left again along `back`."""
        (_, right, y), (left, _, target_y) = self.place, target
        out, before = right + TURN, left - GAP
        way = [(out, y), (out, back), (before, back), (before, target_y)] if target_y != y else []
        self.shapes.append(svg.arrow([(right, y), *way, (left, target_y)]))
        self.place = target


def _words(parts: dict[str, pd.DataFrame], name: str, adapted: str) -> str:
    told = {}
    for letter, layers in parts.items():
        names = " to ".join(dict.fromkeys([layers["point"].iloc[0], layers["point"].iloc[-1]]))
        widths = " then ".join(str(width) for width in dict.fromkeys(layers["width"]))
        found = {pooling for words in layers["poolings"] for pooling in _poolings(words)}
        read = " and the ".join(what for pooling, (what, _, _) in POOLINGS.items() if pooling in found)
        lora = ", with LoRA after fine-tuning" if letter in adapted else ""
        told[letter] = (
            f"{PROBED[letter]} of {_counted(letter, len(layers))} ({names}, {widths} features{lora}), probed on "
            f"the {read} and {_judged(letter)}"
        )
    flow = "; ".join(f"the {told[letter]}" for letter in MODULES)
    words = f"{name}: an image goes through {flow}. The question joins it before the LLM. P_final judges the answer."
    if "D" in told:
        words += f" A side path goes from the vision tower past the connector into the LLM: {told['D']}."
    return words


def _judged(letter: str) -> str:
    return f"judged by FHS_{letter}" if letter in MODULES else "in no health score"


def _counted(letter: str, count: int) -> str:
    one, many = UNITS[letter]
    return f"{count} {one if count == 1 else many}"
