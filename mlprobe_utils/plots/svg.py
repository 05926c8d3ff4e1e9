"""Plain SVG for drawn schemes: every shape a string. Text and lines take the page's colour, which fits both themes."""

import base64
import html
from collections.abc import Sequence

from mlprobe_utils.plots.figures import Drawing, Figure, Panel, plain
from mlprobe_utils.plots.figures import figure as figure_of

Point = tuple[float, float]


def figure(shapes: Sequence[str], width: float, height: float, title: str, description: str) -> Figure:
    """The shapes as a figure that scales with the page; title and description for those who cannot see it."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">{"".join(shapes)}</svg>'
    picture = base64.b64encode(plain(svg).replace("<svg", '<svg font-family="sans-serif"', 1).encode()).decode()
    size = {"width": width, "height": height}
    mark = {"type": "image", "url": f"data:image/svg+xml;base64,{picture}", "x": 0, "y": 0, "align": "left"} | size
    spec = {"data": {"values": [{}]}, "mark": mark | {"baseline": "top"}, "view": {"stroke": None}} | size
    return figure_of([Panel("", Drawing(svg, spec), description, wide=True)], title)


def text(
    x: float, y: float, words: str, size: float, anchor: str = "start", bold: bool = False, faint: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    opacity = ' opacity="0.75"' if faint else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="currentColor"{weight}{opacity}>'
        f"{html.escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, strong: bool = False) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="currentColor" '
        f'fill-opacity="{0.12 if strong else 0.04}" stroke="currentColor" stroke-opacity="0.6"/>'
    )


def panel(x: float, y: float, width: float, height: float) -> str:
    """The ground that a group of boxes stands on."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="currentColor" '
        f'fill-opacity="0.05"/>'
    )


def pill(x: float, y: float, width: float, height: float, words: str, colour: str) -> str:
    """A word on a coloured ground."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{height / 2:g}" fill="{colour}"/>'
        f'<text x="{x + width / 2:g}" y="{y + height / 2 + 4:g}" font-size="11" text-anchor="middle" '
        f'fill="var(--pst-color-background, white)">'
        f"{html.escape(words)}</text>"
    )


def line(points: Sequence[Point], faint: bool = False) -> str:
    corners = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{corners}" fill="none" stroke="currentColor" stroke-opacity="{0.2 if faint else 0.6}"/>'


def arrow(points: Sequence[Point]) -> str:
    """A line through the points that ends in a head pointing right, or down where the last of it is upright."""
    (before, _), (x, y) = points[-2:]
    head = "l-3.5,-6 h7 z" if before == x else "l-6,-3.5 v7 z"
    return f'{line(points)}<path d="M{x:g},{y:g} {head}" fill="currentColor" fill-opacity="0.8"/>'


def circle(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>'


def diamond(x: float, y: float, radius: float, colour: str) -> str:
    r = 1.2 * radius  # as large to the eye as the circle
    return f'<path d="M{x:g},{y - r:g} l{r:g},{r:g} l{-r:g},{r:g} l{-r:g},{-r:g} z" fill="{colour}"/>'


def told(shape: str, words: str, kind: str) -> str:
    """A shape of a kind with words that show at the pointer."""
    return f'<g class="{kind}" data-told="{html.escape(words)}">{shape}</g>'
