"""What all phantoms are drawn with: random numbers, grids, smooth noise, soft shapes, and the marks burnt into images;
lengths are in half image sides."""

import functools
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from mlprobe_utils.common.settings import Part

STREAMS = {"dataset": 1, "captions": 2, "shapes": 3, "questions": 4, "shape questions": 5, "sentences": 6}
STREAMS |= {"oracle": 7, "replication": 8, "twins": 9}
MEDIUM = 0.5  # difficulty, 0 (easy) to 1 (hard): a good classifier reaches about 95 %, a weak one about 70 %
ATYPICAL = 0.03  # share of images that look like the other class, at every difficulty: no classifier gets these right
CELLS = 64  # marks are drawn on so many cells across and down, and enlarged to the image's side
POINTER_PROBABILITY, TEXT_PROBABILITY = 0.25, 0.3
TEXTS = ("R", "L", "AP", "R 12", "L 47", "A 20", "P 7", "72 01")
CORNERS = {"upper left": (2, 2), "upper right": (2, -2), "lower left": (-2, 2)}  # the fourth is the shortcut's
SHORTCUT = (slice(-7, -2), slice(-7, -2))  # a square of 5 cells in the lower right corner
LUNGS = {"right": -1, "left": 1}  # who is seen from the feet, or faces the viewer, has the right one on the left
DRAWN = """
    110101110101101 100100100100111 010101111101101 110101110100100
    111101101101111 010110010010111 110001010100111 101101111001001 111001010010010
"""
GLYPHS = dict(zip("RLAP01247", DRAWN.split(), strict=True))  # five rows of three cells each
Lines = list[tuple[np.ndarray, float]]  # points [n, 2] in image coordinates, width


class Shortcut(Part):  # a bright mark that goes with a class but has nothing to do with the body
    label: str  # the class that it is planted in
    agreement: Annotated[float, Field(ge=0.5, le=1)]  # probability of the mark in that class, and of none in another


def generator(stream: str, seed: int, *place: int) -> np.random.Generator:
    """The generator of one image or text, by its place, e.g. class index, split index, running number. Streams are
    independent: no image of a test set is ever trained on."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[stream], *place)))


def gap(difficulty: float) -> float:
    """Factor of the distance between the classes: 1.6 at MEDIUM, 2.2 at 0, 1 at 1."""
    return 2.2 - 1.2 * difficulty


def looks_like(label: str, classes: tuple[str, str], rng: np.random.Generator) -> str:
    """The class whose signs an image shows: its own, but the other of the two in atypical cases."""
    return classes[label == classes[0]] if rng.random() < ATYPICAL else label


def sign(
    rng: np.random.Generator, law: tuple[float, float, float], first: bool, difficulty: float, floor: float = -np.inf
) -> float:
    """A sign's value in one image of the first or the second class, not below `floor`. `law`: the means of both classes
    where their gap is 1, and the standard deviation at every difficulty."""
    *means, spread = law
    middle = sum(means) / 2
    return float(max(rng.normal(middle + gap(difficulty) * (means[not first] - middle), spread), floor))


@functools.cache
def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x (to the right) and y (downwards) of the cell centres, each float32 [side, side] in (-1, 1); read-only."""
    centres = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def posed_grid(side: int, pose: dict) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, float32 [side, side], in the frame of a body with a pose from `random_view`."""
    x, y = grid(side)
    cos, sin = np.cos(np.radians(pose["rotation"])), np.sin(np.radians(pose["rotation"]))
    x, y = (x - pose["shift_x"]) / pose["scale"], (y - pose["shift_y"]) / pose["scale"]
    return np.float32(cos) * x + np.float32(sin) * y, np.float32(cos) * y - np.float32(sin) * x


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, side: int) -> np.ndarray:
    """Normal noise on rows x columns cells (the grain keeps its size), interpolated to float32 [side, side]."""
    return enlarge(rng.standard_normal((rows, columns), dtype=np.float32), side)


def enlarge(cells: np.ndarray, side: int) -> np.ndarray:
    """Interpolates an array to float32 [side, side]."""
    cells = cells.astype(np.float32)
    if cells.shape == (side, side):
        return cells
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))


def inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, a straight ramp of width `softness` between."""
    return np.clip(0.5 - distance / softness, 0, 1)


def ellipse(x: np.ndarray, y: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """Radius relative to that of an upright ellipse, less 1: negative inside."""
    return np.sqrt(((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2) - 1


def strokes(lines: Lines, side: int) -> np.ndarray:
    """Draws polylines, float32 [side, side] from 0 to 1."""
    fine = 3 * side  # drawn finer and averaged down, for smooth edges
    image = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(image)
    for points, width in lines:
        pen.line(((points + 1) / 2 * fine).ravel().tolist(), fill=255, width=max(1, round(width / 2 * fine)))
    return np.asarray(image.reduce(3), dtype=np.float32) / 255


def to_bytes(brightness: np.ndarray) -> np.ndarray:
    """uint8 grey levels of a brightness from 0 (black) to 1 (white), clipped."""
    return np.round(np.clip(brightness, 0, 1) * 255).astype(np.uint8)


def random_marks(rng: np.random.Generator) -> dict:
    """Which marks an image carries; `shortcut_draw` decides about a shortcut should one be planted."""
    found = {"pointer": rng.random() < POINTER_PROBABILITY, "pointer_angle": float(rng.uniform(0, np.pi))}
    written, text, corner = rng.random() < TEXT_PROBABILITY, rng.integers(len(TEXTS)), rng.integers(len(CORNERS))
    found |= {"text": TEXTS[text] if written else None, "corner": list(CORNERS)[corner] if written else None}
    return found | {"shortcut_draw": float(rng.random())}


def random_view(rng: np.random.Generator, shift: float, rotation: float, scale: float, highest: float) -> dict:
    """A pose within +-shift, +-rotation (degrees, clockwise) and 1 +- scale, marks, and the place of an arrow's tip."""
    pose = {name: float(rng.uniform(-shift, shift)) for name in ("shift_x", "shift_y")}
    pose |= {"rotation": float(rng.uniform(-rotation, rotation)), "scale": float(1 + rng.uniform(-scale, scale))}
    found = random_marks(rng) | pose | {"pointer_x": float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.7))}
    return found | {"pointer_y": float(rng.uniform(highest, 0.5))}


def burnt_in(brightness: np.ndarray, parameters: dict) -> np.ndarray:
    """The finished image, uint8 [side, side], from its brightness (0 black to 1 white) and the marks over it."""
    side, cells = len(brightness), np.zeros((CELLS, CELLS), np.float32)
    if parameters["text"] is not None:
        glyphs = np.array([list(GLYPHS.get(letter, "0" * 15)) for letter in parameters["text"]], np.float32)
        line = np.concatenate(np.pad(glyphs.reshape(-1, 5, 3), ((0, 0), (0, 0), (0, 1))), axis=1)
        # a negative row or column counts from the far edge, where the text then ends
        places = zip(CORNERS[parameters["corner"]], line.shape, strict=True)
        top, left = (place if place >= 0 else CELLS + place - size for place, size in places)
        cells[top : top + line.shape[0], left : left + line.shape[1]] = line
    if parameters["shortcut"]:
        cells[SHORTCUT] = 1
    if cells.any():
        brightness = np.maximum(brightness, 0.95 * enlarge(cells, side))
    if parameters["pointer"]:
        lines = arrow(parameters) if "pointer_x" in parameters else calipers(parameters)
        brightness = np.maximum(brightness, 0.95 * strokes(lines, side))
    return to_bytes(brightness)


def calipers(parameters: dict) -> Lines:
    """Two crosses at the ends of a line through the middle (`x`, `y`) of what is measured."""
    reach, angle = 1.3 * parameters["size"], parameters["pointer_angle"]
    middle, along = np.array([parameters["x"], parameters["y"]]), np.array([np.cos(angle), np.sin(angle)])
    crossed = 0.07 * np.array([[[-1, 0], [1, 0]], [[0, -1], [0, 1]]])
    return [(middle + end * along + stroke, 0.03) for end in (-reach, reach) for stroke in crossed]


def arrow(parameters: dict) -> Lines:
    """An arrow with its tip at (`pointer_x`, `pointer_y`), flying in the direction of `pointer_angle` (radians)."""
    tip, lengths = np.array([parameters["pointer_x"], parameters["pointer_y"]]), np.array([[0.28], [0.12], [0.12]])
    angles = parameters["pointer_angle"] + np.array([0, 0.6, -0.6])
    ends = tip - lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [(np.stack([tip, end]), 0.03) for end in ends]
