"""Captioned and questioned shapes on textured backgrounds: the everyday images of a general model."""

from collections.abc import Callable

import numpy as np

from mlprobe_utils.synthetic.phantoms import canvas
from mlprobe_utils.synthetic.phantoms.canvas import generator
from mlprobe_utils.synthetic.phantoms.texts import CAPTION_REQUEST, YES_OR_NO

FIFTH = 2 * np.pi / 5


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = np.abs((np.arctan2(x, -y) + FIFTH / 2) % FIFTH - FIFTH / 2)  # from 0 at a tip to half a fifth
    return np.hypot(x, y) * (np.cos(angle) + 1.9 * np.sin(angle)) - 1


SHAPES: dict[str, Callable] = {  # negative inside a shape of radius 1
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.866 - y * 0.5, y) - 0.5,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.22,
    "oval": lambda x, y: np.hypot(x, y / 0.5) - 1,
    "star": _star,
}
VALUES = {
    "size": ("large", "small"),
    "brightness": ("bright", "dark"),
    "shape": tuple(SHAPES),
    "background": ("smooth", "striped", "noisy", "checkered"),
}  # of a scene, in the order drawn
KINDS = ("there", "brightness", "shape", "two", "size", "background")  # of question, in turn


def captioned_scene(i: int, seed: int, side: int = 64) -> tuple[np.ndarray, str, str]:
    """Image i, uint8 [side, side], the request, and a caption like "two small dark squares on a smooth background"."""
    rng = generator("shapes", seed, i)
    scene = random_scene(rng)
    number, plural = ("a", "") if scene["count"] == 1 else ("two", "s")
    shape = f"{scene['size']} {scene['brightness']} {scene['shape']}{plural}"
    return draw(scene, rng, side), CAPTION_REQUEST, f"{number} {shape} on a {scene['background']} background"


def questioned_scene(i: int, seed: int, side: int = 64) -> tuple[np.ndarray, str, str]:
    """Image i, uint8 [side, side], a question about it that offers its options, and the answer: the kinds of question
    take turns, yes and no are equally likely, and so are the places of the correct option."""
    rng = generator("shape questions", seed, i)
    scene = random_scene(rng)
    return draw(scene, rng, side), *_question(scene, KINDS[i % len(KINDS)], rng)


def random_scene(rng: np.random.Generator) -> dict:
    """What an image shows: `count` of shapes, 1 or 2, and one each of VALUES."""
    return {"count": int(rng.integers(1, 3))} | {name: str(rng.choice(values)) for name, values in VALUES.items()}


def _question(scene: dict, kind: str, rng: np.random.Generator) -> tuple[str, str]:
    def others(name: str, n: int) -> list[str]:
        rest = [other for other in VALUES[name] if other != scene[name]]
        return [rest[i] for i in rng.choice(len(rest), n, replace=False)]

    if kind == "there":
        shape = scene["shape"] if rng.random() < 0.5 else others("shape", 1)[0]
        article = "an" if shape[0] in "aeiou" else "a"
        return f"Is there {article} {shape}?" + YES_OR_NO, "Yes" if shape == scene["shape"] else "No"
    if kind == "two":
        return "Are there two shapes?" + YES_OR_NO, "Yes" if scene["count"] == 2 else "No"
    if len(VALUES[kind]) == 2:
        first, second = VALUES[kind]
        options = f"Please answer '{first.capitalize()}' or '{second.capitalize()}'."
        return f"Is the shape {first} or {second}? {options}", scene[kind].capitalize()
    offered = [scene[kind], *others(kind, 2)]
    first, second, third = (offered[i].capitalize() for i in rng.permutation(3))
    return f"What is the {kind}? Please answer '{first}', '{second}', or '{third}'.", scene[kind].capitalize()


def draw(scene: dict, rng: np.random.Generator, side: int) -> np.ndarray:
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
        turned = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        shape = canvas.inside(SHAPES[scene["shape"]](*turned), 2 / side / radius)
        picture = picture + shape * (level - picture)
    return canvas.to_bytes(picture + 0.01 * rng.standard_normal((side, side)))


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
