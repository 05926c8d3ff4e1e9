"""Vega's SVG made fit for a page: marks keep what belongs to them as data, and nothing is there that is not drawn."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from mlprobe_utils.plots.figures import BETWEEN, SERIES_END, single

_NEEDLESS = {"class", "pointer-events", "font-family", "version", "role", "stroke-miterlimit"}
_DEFAULTS = {("opacity", "1"), ("stroke-dasharray", "1,0"), ("transform", "translate(0,0)"), ("x2", "0"), ("y2", "0")}
_INHERITED = ("fill", "font-size", "text-anchor", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap")


def description(names: Iterable[str], told: str = "") -> str:
    """A mark's `description` for Altair, which `inline` turns into data-series and data-told."""
    return BETWEEN.join(dict.fromkeys(map(single, names))) + SERIES_END + told


def inline(svg: str) -> str:
    """The drawing that `vl_convert.vegalite_to_svg` made, in about half as many characters."""
    root = ET.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg))
    _clean(root)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")


def _clean(element: ET.Element) -> None:
    names, found, told = element.attrib.pop("aria-label", "").partition(SERIES_END)
    for name, value in list(element.attrib.items()):
        if name in _NEEDLESS or name.startswith("aria-") or (name, value) in _DEFAULTS:
            del element.attrib[name]
        elif name in ("d", "transform"):  # a hundredth of a pixel is enough
            element.set(name, re.sub(r"-?\d+\.\d+", lambda number: f"{round(float(number[0]), 2):g}", value))
    if found:
        element.attrib |= {f"data-{key}": value for key, value in (("series", names), ("told", told)) if value}
    children = []
    for child in element:
        if child.get("class") in ("background", "foreground"):
            continue
        _clean(child)
        if child.tag != "g":
            children.append(child)
        elif len(child):
            children += [child] if child.attrib else list(child)
    element[:] = children
    for name in _INHERITED if len(children) > 1 and element.tag == "g" else ():
        values = {child.get(name) for child in children}
        if len(values) == 1 and None not in values:
            element.set(name, values.pop())
            for child in children:
                del child.attrib[name]
