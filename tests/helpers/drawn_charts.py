"""What a figure holds: its drawings, their marks, and the numbers to download."""

import io
import re
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import pandas as pd

from mlprobe_utils.plots.figures import Figure

SVG = "{http://www.w3.org/2000/svg}"


def drawings(figure: Figure) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", figure.html, re.DOTALL)]


def words_in(drawing: ET.Element) -> list[str]:
    return [text.text for text in drawing.iter(f"{SVG}text")]


def marks(drawing: ET.Element) -> list[tuple[str, list[str], str]]:
    """Names, texts and path of every mark that has texts."""
    found = [e for e in drawing.iter() if e.get("data-told")]
    return [(e.get("data-series"), e.get("data-told").split("|"), e.get("d")) for e in found]


def downloaded(figure: Figure) -> pd.DataFrame:
    (link,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', figure.html)
    return pd.read_csv(io.StringIO(unquote(link)))
