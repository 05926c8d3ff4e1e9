"""Drawing in unit coordinates: grids, smooth noise, soft shapes, strokes. Lengths are in half image sides."""

import functools

import numpy as np
from PIL import Image, ImageDraw


@functools.cache
def grid(columns: int, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """x (to the right) and y (downwards) of the cell centres, each float32 [rows, columns] in (-1, 1); read-only."""
    across, down = (((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1) for n in (columns, rows or columns))
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def posed_grid(side: int, pose: dict) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, float32 [side, side], in the frame of a body that is shifted, rotated and scaled.

    Args:
        pose: `shift_x`, `shift_y` (half sides), `rotation` (degrees, clockwise), `scale` (1: as designed).
    """
    x, y = grid(side)
    cos, sin = np.cos(np.radians(pose["rotation"])), np.sin(np.radians(pose["rotation"]))
    x, y = (x - pose["shift_x"]) / pose["scale"], (y - pose["shift_y"]) / pose["scale"]
    return np.float32(cos) * x + np.float32(sin) * y, np.float32(cos) * y - np.float32(sin) * x


def posed_points(points: np.ndarray, pose: dict) -> np.ndarray:
    """Points [n, 2] of the body's frame in image coordinates: the inverse of `posed_grid`."""
    cos, sin = np.cos(np.radians(pose["rotation"])), np.sin(np.radians(pose["rotation"]))
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    return turned * pose["scale"] + [pose["shift_x"], pose["shift_y"]]


def random_pose(rng: np.random.Generator, shift: float, rotation: float, scale: float) -> dict:
    """A pose drawn uniformly within +-shift, +-rotation and 1 +- scale."""
    return {
        "shift_x": float(rng.uniform(-shift, shift)),
        "shift_y": float(rng.uniform(-shift, shift)),
        "rotation": float(rng.uniform(-rotation, rotation)),
        "scale": float(1 + rng.uniform(-scale, scale)),
    }


def smooth_noise(
    rng: np.random.Generator, rows: int, columns: int, width: int, height: int | None = None
) -> np.ndarray:
    """Normal noise on rows x columns cells (the grain keeps its size), interpolated to float32 [height, width]."""
    return enlarge(rng.standard_normal((rows, columns), dtype=np.float32), width, height)


def enlarge(cells: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """Interpolates an array to float32 [height, width]; square if no height is given."""
    size = (width, height or width)
    if cells.shape == size[::-1]:
        return cells.astype(np.float32)
    return np.asarray(Image.fromarray(cells.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, a straight ramp of width `softness` between."""
    return np.clip(0.5 - distance / softness, 0, 1)


def ellipse(x: np.ndarray, y: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """A signed distance of sorts: radius relative to an upright ellipse, less 1 (negative inside)."""
    return np.sqrt(((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2) - 1


def strokes(lines: list[tuple[np.ndarray, float]], side: int) -> np.ndarray:
    """Polylines (points [n, 2] in image coordinates, width in half sides) drawn, float32 [side, side] in 0..1."""
    fine = 3 * side  # drawn finer and averaged down, for smooth edges
    image = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(image)
    for points, width in lines:
        pen.line(((points + 1) / 2 * fine).ravel().tolist(), fill=255, width=max(1, round(width / 2 * fine)))
    return np.asarray(image.reduce(3), dtype=np.float32) / 255


def to_bytes(brightness: np.ndarray) -> np.ndarray:
    """uint8 grey levels of a brightness that is 0 for black and 1 for white; what lies beyond is clipped."""
    return np.round(np.clip(brightness, 0, 1) * 255).astype(np.uint8)
