"""What is burnt into an image besides the body: calipers or an arrow, text, and the mark of a planted shortcut.

Calipers, arrows and text are nuisance: whether and where they are is drawn before the class is looked at.
"""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mlprobe_utils.synthetic.phantoms import canvas

CELLS = 64  # marks are drawn on so many cells across and down, and enlarged to the image's side
POINTER_PROBABILITY, TEXT_PROBABILITY = 0.25, 0.3
TEXTS = ("R", "L", "AP", "R 12", "L 47", "A 20", "P 7", "72 01")
CORNERS = {"upper left": (2, 2), "upper right": (2, -2), "lower left": (-2, 2)}  # the fourth is the shortcut's
SHORTCUT = (slice(-7, -2), slice(-7, -2))  # a square of 5 cells in the lower right corner
GLYPHS = {  # five rows of three cells each
    "R": "110101110101101",
    "L": "100100100100111",
    "A": "010101111101101",
    "P": "110101110100100",
    "0": "111101101101111",
    "1": "010110010010111",
    "2": "110001010100111",
    "4": "101101111001001",
    "7": "111001010010010",
    " ": "000000000000000",
}


class Shortcut(BaseModel):
    """A bright mark that goes with a class but has nothing to do with the body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    label: str  # the class that it is planted in
    agreement: Annotated[float, Field(ge=0.5, le=1)]  # probability of the mark in that class, and of none in another


def random_marks(rng: np.random.Generator) -> dict:
    """Which marks an image carries; `shortcut_draw` decides about a shortcut should one be planted."""
    pointer, angle = rng.random() < POINTER_PROBABILITY, rng.uniform(0, np.pi)
    written, text, corner = rng.random() < TEXT_PROBABILITY, rng.integers(len(TEXTS)), rng.integers(len(CORNERS))
    return {
        "pointer": bool(pointer),
        "pointer_angle": float(angle),
        "text": TEXTS[text] if written else None,
        "corner": list(CORNERS)[corner] if written else None,
        "shortcut_draw": float(rng.random()),
    }


def burnt_in(brightness: np.ndarray, parameters: dict, pointer: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """The finished image, uint8 [side, side], from its brightness (0 black to 1 white) and the marks over it.

    Args:
        parameters: from `random_marks`, and `shortcut`.
        pointer: lines as `canvas.strokes` takes them; drawn if `parameters["pointer"]`.
    """
    side = len(brightness)
    if parameters["text"] is not None or parameters["shortcut"]:
        cells = np.zeros((CELLS, CELLS), np.float32)
        if parameters["text"] is not None:
            _write(cells, parameters["text"], *CORNERS[parameters["corner"]])
        if parameters["shortcut"]:
            cells[SHORTCUT] = 1
        brightness = np.maximum(brightness, 0.95 * canvas.enlarge(cells, side))
    if parameters["pointer"]:
        brightness = np.maximum(brightness, 0.95 * canvas.strokes(pointer, side))
    return canvas.to_bytes(brightness)


def calipers(parameters: dict) -> list[tuple[np.ndarray, float]]:
    """Two crosses at the ends of a line through the middle (`x`, `y`) of what is measured."""
    lines, reach, angle = [], 1.3 * parameters["size"], parameters["pointer_angle"]
    for end in (-reach, reach):
        centre = np.array([parameters["x"] + end * np.cos(angle), parameters["y"] + end * np.sin(angle)])
        lines += [(centre + 0.07 * np.array([[-a, -b], [a, b]]), 0.03) for a, b in ((1, 0), (0, 1))]
    return lines


def arrow(parameters: dict) -> list[tuple[np.ndarray, float]]:
    """An arrow with its tip at (`pointer_x`, `pointer_y`), flying in the direction of `pointer_angle` (radians)."""
    tip, angle = np.array([parameters["pointer_x"], parameters["pointer_y"]]), parameters["pointer_angle"]
    ways = [np.array([np.cos(angle + turn), np.sin(angle + turn)]) for turn in (0, 0.6, -0.6)]
    return [(np.stack([tip, tip - length * way]), 0.03) for length, way in zip((0.28, 0.12, 0.12), ways, strict=True)]


def _write(cells: np.ndarray, text: str, row: int, column: int) -> None:
    """Writes text into `cells`; a negative row or column counts from the far edge, where the text then ends."""
    glyphs = [np.array(list(GLYPHS[letter]), np.float32).reshape(5, 3) for letter in text]
    line = np.concatenate([np.pad(glyph, ((0, 0), (0, 1))) for glyph in glyphs], axis=1)
    top = row if row >= 0 else CELLS + row - line.shape[0]
    left = column if column >= 0 else CELLS + column - line.shape[1]
    cells[top : top + line.shape[0], left : left + line.shape[1]] = line
