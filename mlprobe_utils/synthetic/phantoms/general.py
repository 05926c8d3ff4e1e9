"""Captioned and questioned shapes on textured backgrounds: the everyday images
of a general model, as against the medical phantoms."""

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas
from mlprobe_utils.synthetic.phantoms.captions import check_numbers
from mlprobe_utils.synthetic.phantoms.questions import YES_OR_NO
from mlprobe_utils.synthetic.phantoms.seeds import generator

SHAPES = ("circle", "square", "triangle", "ring", "oval", "star")
SIZES = ("large", "small")
BRIGHTNESSES = ("bright", "dark")
BACKGROUNDS = ("smooth", "striped", "noisy", "checkered")


def captioned_shapes(n: int, seed: int, side: int = 64) -> tuple[np.ndarray, list[str]]:
    """Images with captions such as "two small dark squares on a smooth background"; image i is the same whatever `n`.

    Args:
        n: images.
        seed: not negative.
        side: pixels.

    Returns:
        Images uint8 [n, side, side, 3] (grey), captions.

    Raises:
        InputError: n, seed or side too small.
    """
    check_numbers(n, seed, side)
    images, captions = np.empty((n, side, side, 3), np.uint8), []
    for i in range(n):
        rng = generator("shapes", seed, i)
        scene = random_scene(rng)
        images[i] = draw(scene, rng, side)[..., None]
        captions.append(caption(scene))
    return images, captions


def questioned_shapes(n: int, seed: int, side: int = 64) -> tuple[np.ndarray, list[str], list[str]]:
    """Images of shapes, a question about each that offers its options, and the answer: they teach how to answer.

    Args:
        n: images; image i is the same whatever `n`.
        seed: not negative.
        side: pixels.

    Returns:
        Images uint8 [n, side, side, 3] (grey), questions, answers. The kinds of question take turns; yes and no are
        equally likely, and so are the places of the right option among three.

    Raises:
        InputError: n, seed or side too small.
    """
    check_numbers(n, seed, side)
    images, questions, answers = np.empty((n, side, side, 3), np.uint8), [], []
    for i in range(n):
        rng = generator("shape questions", seed, i)
        scene = random_scene(rng)
        images[i] = draw(scene, rng, side)[..., None]
        question, answer = _question(scene, i, rng)
        questions.append(question)
        answers.append(answer)
    return images, questions, answers


def random_scene(rng: np.random.Generator) -> dict:
    """What an image shows: `count`, `size`, `brightness`, `shape`, `background`."""
    return {
        "count": int(rng.integers(1, 3)),
        "size": str(rng.choice(SIZES)),
        "brightness": str(rng.choice(BRIGHTNESSES)),
        "shape": str(rng.choice(SHAPES)),
        "background": str(rng.choice(BACKGROUNDS)),
    }


def _question(scene: dict, turn: int, rng: np.random.Generator) -> tuple[str, str]:
    """A question about a scene, of the kind whose turn it is, and its answer."""
    kind = ("there", "brightness", "which shape", "two", "size", "which background")[turn % 6]
    if kind == "there":
        asked = scene["shape"] if rng.random() < 0.5 else _others(SHAPES, scene["shape"], 1, rng)[0]
        article = "an" if asked[0] in "aeiou" else "a"
        return f"Is there {article} {asked}?" + YES_OR_NO, "Yes" if asked == scene["shape"] else "No"
    if kind == "two":
        return "Are there two shapes?" + YES_OR_NO, "Yes" if scene["count"] == 2 else "No"
    if kind in ("brightness", "size"):
        first, second = BRIGHTNESSES if kind == "brightness" else SIZES
        options = f"Please answer '{first.capitalize()}' or '{second.capitalize()}'."
        return f"Is the shape {first} or {second}? {options}", scene[kind].capitalize()
    name, values = ("shape", SHAPES) if kind == "which shape" else ("background", BACKGROUNDS)
    offered = [scene[name], *_others(values, scene[name], 2, rng)]
    first, second, third = (offered[i].capitalize() for i in rng.permutation(3))
    options = f"Please answer '{first}', '{second}', or '{third}'."
    return f"What is the {name}? {options}", scene[name].capitalize()


def _others(values: tuple, value: str, n: int, rng: np.random.Generator) -> list[str]:
    """`n` different values other than `value`."""
    rest = [other for other in values if other != value]
    return [rest[i] for i in rng.choice(len(rest), n, replace=False)]


def caption(scene: dict) -> str:
    """What `draw` draws, in words."""
    number, plural = ("a", "") if scene["count"] == 1 else ("two", "s")
    shape = f"{scene['size']} {scene['brightness']} {scene['shape']}{plural}"
    return f"{number} {shape} on a {scene['background']} background"


def draw(scene: dict, rng: np.random.Generator, side: int) -> np.ndarray:
    """Draws a scene (`count`, `size`, `brightness`, `shape`, `background`), uint8 [side, side]."""
    x, y = canvas.grid(side)
    picture = _background(scene["background"], rng, side)
    level = rng.uniform(0.85, 1.0) if scene["brightness"] == "bright" else rng.uniform(0.0, 0.15)
    two = scene["count"] == 2
    low, high = ((0.38, 0.45) if two else (0.42, 0.6)) if scene["size"] == "large" else (0.17, 0.23)
    for sign in (-1, 1) if two else (0,):
        radius, turn = rng.uniform(low, high), rng.uniform(-0.35, 0.35)
        room = 0.95 - radius
        # two shapes keep to their halves; one goes anywhere
        centre_x = sign * rng.uniform(radius + 0.03, room) if two else rng.uniform(-room, room)
        dx, dy = (x - centre_x) / radius, (y - rng.uniform(-room, room)) / radius
        distance = _distance(
            scene["shape"], np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        )
        shape = canvas.inside(distance, 2 / side / radius)
        picture = picture + shape * (level - picture)
    return canvas.to_bytes(picture + 0.01 * rng.standard_normal((side, side)))


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Negative inside a shape of radius 1."""
    radius = np.hypot(x, y)
    if shape == "circle":
        return radius - 1
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.8
    if shape == "triangle":
        return np.maximum(np.abs(x) * 0.866 - y * 0.5, y) - 0.5
    if shape == "ring":
        return np.abs(radius - 0.75) - 0.22
    if shape == "oval":
        return np.hypot(x, y / 0.5) - 1
    fifth = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)  # a star: from 0 at a tip to half a fifth
    return radius * (np.cos(angle) + 1.9 * np.sin(angle)) - 1


def _background(texture: str, rng: np.random.Generator, side: int) -> np.ndarray:
    """About half grey, so that bright and dark shapes both stand out; float [side, side]."""
    x, y = canvas.grid(side)
    turn, phase, level = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.44, 0.56)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    if texture == "smooth":
        return level + 0.08 * along
    if texture == "noisy":
        return level + 0.11 * canvas.smooth_noise(rng, 32, 32, side)
    waves = rng.uniform(9, 14)
    stripes = np.sign(np.sin(waves * along + phase[0]))
    return level + 0.13 * (stripes if texture == "striped" else stripes * np.sign(np.sin(waves * across + phase[1])))
