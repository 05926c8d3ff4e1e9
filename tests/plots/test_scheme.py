"""The drawn pipeline: every probe point is on it, nothing lies on or outside of anything else, and the table's runs."""

import base64
import itertools
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import flow_order, is_point
from mlprobe_utils.plots.scheme import COLUMNS, pipeline_scheme, scheme_table

SIZES = {"miniature": (6, 2, 6), "deep": (32, 2, 64), "one connector layer": (27, 1, 34), "least": (1, 1, 1)}
SIZES |= {"side path": (27, 2, 36, 3), "miniature with a side path": (6, 2, 6, 3), "least side path": (1, 1, 1, 1)}
SVG = "{http://www.w3.org/2000/svg}"


def points_of(
    vision: int, connector: int, llm: int, side: int = 0, widths: tuple[int, ...] = (1280, 5120, 3584)
) -> pd.DataFrame:
    """Probe points as Qwen2.5-VL has them, or Qwen3-VL with its side path; what enters the LLM is as wide as it."""
    rows = [(f"V.{i:02d}", f"model.visual.blocks.{i}", "Block", widths[0], "image_mean") for i in range(vision)]
    for i in range(side):
        rows.append((f"D.{i:02d}", f"model.visual.deepstack_merger_list.{i}", "Merger", widths[2], "image_mean"))
    for i in range(connector):
        width = widths[2] if i == connector - 1 else widths[1]
        rows.append((f"C.{i:02d}", f"model.visual.merger.mlp.{2 * i}", "Linear", width, "image_mean"))
    both = "image_mean, last_token"
    rows += [(f"L.{i:02d}", f"model.language_model.layers.{i}", "Decoder", widths[2], both) for i in range(llm)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def drawn(points: pd.DataFrame, name: str = "a model", **options) -> ElementTree.Element:
    page = pipeline_scheme(points, name, **options).html
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", page)[0])


def texts(svg: ElementTree.Element) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text with the box (left, top, right, bottom) that it needs: 0.6 of the font's size a character."""
    found = []
    for text in svg.iter(f"{SVG}text"):
        size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))
        width = 0.6 * size * len(text.text)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        found.append((text.text, (left, y - 0.8 * size, left + width, y + 0.2 * size)))
    return found


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@sizes
def test_one_labelled_box_a_point_and_one_marker_a_pooling(size):
    points = points_of(*size)
    svg = drawn(points)
    labels = [words for words, _ in texts(svg) if is_point(words)]
    assert sorted(labels, key=flow_order) == list(points["point"])
    markers = [group.get("data-told") for group in svg.iter(f"{SVG}g") if group.get("class") == "probe"]
    assert len(markers) == sum(size) + size[2]
    for point, path, width in points[["point", "path", "width"]].itertuples(index=False):
        of_point = [words for words in markers if words.startswith(f"{point}: ")]
        assert len(of_point) == 1 + point.startswith("L")
        assert all(f"{width} features of {path} " in words for words in of_point)


@sizes
def test_nothing_lies_outside_or_on_anything_else(size):
    """Neither texts on each other nor boxes and markers."""
    svg = drawn(points_of(*size))
    _, _, width, height = map(float, svg.get("viewBox").split())
    found = texts(svg)
    for words, (left, top, right, bottom) in found:
        assert 0 <= left <= right <= width, words
        assert 0 <= top <= bottom <= height, words
    boxes = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("rx") == "4"]
    assert len(boxes) == sum(size) + 3  # image, question, answer
    places = [[float(rect.get(key)) for key in ("x", "y", "width", "height")] for rect in boxes]
    areas = [(x, y, x + width, y + height) for x, y, width, height in places]
    dots = [[float(dot.get(key)) for key in ("cx", "cy", "r")] for dot in svg.iter(f"{SVG}circle")]
    areas += [(x - r, y - r, x + r, y + r) for x, y, r in dots]
    for these in ([place for _, place in found], areas):
        assert not [pair for pair in itertools.combinations(these, 2) if overlap(*pair)]


def test_a_label_fits_its_box():
    svg = drawn(points_of(32, 2, 64, widths=(1280, 27648, 18432)))
    widths = [float(rect.get("width")) for rect in svg.iter(f"{SVG}rect") if rect.get("rx") == "4"]
    inside = [place for words, place in texts(svg) if is_point(words) or words.isdigit()]
    assert max(right - left for left, _, right, _ in inside) < min(widths)


def test_width_is_written_where_it_changes():
    written = [words for words, _ in texts(drawn(points_of(3, 2, 3))) if words.isdigit()]
    assert written == ["1280", "5120", "3584", "3584"]  # V.00, C.00, C.01, and the LLM's first


def test_what_judges_a_module_and_where_lora_is():
    words = [words for words, _ in texts(drawn(points_of(6, 2, 6)))]
    assert [w for w in words if w.startswith("judged")] == [
        f"judged by {s}" for s in ("FHS_V", "FHS_C", "FHS_L", "P_final")
    ]
    assert words.count("LoRA") == 3 + 1  # and the legend's
    assert [w for w, _ in texts(drawn(points_of(6, 2, 6), adapted="CL"))].count("LoRA") == 2 + 1
    assert "LoRA" not in [w for w, _ in texts(drawn(points_of(6, 2, 6), adapted=""))]


def test_description_says_what_is_drawn():
    svg = drawn(points_of(6, 2, 6, widths=(48, 192, 64)), "Tiny", adapted="L")
    assert svg.find(f"{SVG}title").text == "Pipeline and probe points of Tiny"
    words = svg.find(f"{SVG}desc").text
    assert "vision tower of 6 blocks (V.00 to V.05, 48 features), probed on the mean of the image tokens" in words
    assert "connector of 2 linear layers (C.00 to C.01, 192 then 64 features)" in words
    assert "LLM of 6 decoder layers (L.00 to L.05, 64 features, with LoRA after fine-tuning)" in words
    assert (
        "connector of 1 linear layer (C.00, 64 features"
        in drawn(points_of(1, 1, 1, widths=(48, 9, 64))).find(f"{SVG}desc").text
    )


def test_a_side_path_leaves_the_vision_tower_passes_the_connector_and_enters_the_llm():
    svg = drawn(points_of(6, 2, 6, 3, (48, 192, 64)), "Tiny")
    grounds = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("rx") == "8"]
    vision, connector, side, llm = ({k: float(rect.get(k)) for k in ("x", "y", "width", "height")} for rect in grounds)
    assert side["y"] == connector["y"]
    assert side["x"] > connector["x"] + connector["width"]
    upright = [[float(n) for n in re.split("[ ,]", line.get("points"))] for line in svg.iter(f"{SVG}polyline")]
    ways = [(y, until) for x, y, *_, until_x, until in upright if x == until_x > side["x"] and until - y > 10]
    assert ways == [(vision["y"] + vision["height"], side["y"]), (side["y"] + side["height"], llm["y"])]
    words = svg.find(f"{SVG}desc").text
    assert "the vision tower of 6 blocks" in words
    assert "past the connector into the LLM: deepstack of 3 mergers (D.00 to D.02, 64 features" in words
    assert [w for w, _ in texts(svg)].count("in no health score") == words.count("in no health score") == 1
    assert "side path" not in drawn(points_of(6, 2, 6)).find(f"{SVG}desc").text


def test_it_is_saved_as_a_picture_of_its_size(tmp_path):
    pipeline_scheme(points_of(6, 2, 6), "a model").save(tmp_path / "scheme.svg")
    (picture,) = ElementTree.parse(tmp_path / "scheme.svg").getroot().iter(f"{SVG}image")
    kind, _, content = picture.get("{http://www.w3.org/1999/xlink}href").partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert "var(" not in base64.b64decode(content).decode()
    assert picture.get("width") == "800"


def test_names_are_escaped():
    points = points_of(2, 1, 2)
    points["module"] = 'A<b>&"'
    name = '<script>alert("x")</script> & co'
    page = pipeline_scheme(points, name).html
    assert "<script>" not in page
    assert "<b>" not in page
    assert name in drawn(points, name).find(f"{SVG}title").text


def test_table_collapses_runs():
    table = scheme_table(points_of(6, 2, 6, widths=(48, 192, 64)))
    assert list(table["points"]) == ["V.00 - V.05", "C.00", "C.01", "L.00 - L.05"]
    assert list(table["path"]) == [
        "model.visual.blocks.{0..5}", "model.visual.merger.mlp.0", "model.visual.merger.mlp.2",
        "model.language_model.layers.{0..5}",
    ]  # fmt: skip
    assert list(table["width"]) == [48, 192, 64, 64]
    assert list(table["module"]) == ["Block", "Linear", "Linear", "Decoder"]
    assert list(table["poolings"]) == ["image_mean"] * 3 + ["image_mean, last_token"]
    aside = scheme_table(points_of(6, 2, 6, 3)).set_index("points")["path"]
    assert aside["D.00 - D.02"] == "model.visual.deepstack_merger_list.{0..2}"


def test_table_keeps_apart_what_differs():
    points = points_of(6, 2, 6, widths=(48, 64, 64))
    assert scheme_table(points)["path"][1] == "model.visual.merger.mlp.{0,2}"
    points.loc[3, "module"] = "OtherBlock"
    assert list(scheme_table(points)["points"])[:3] == ["V.00 - V.02", "V.03", "V.04 - V.05"]
    points = points_of(2, 2, 2, widths=(48, 64, 64))
    points["path"] = ["a.x", "a.y", "up", "down", "llm.1.block", "llm.2.block"]
    assert list(scheme_table(points)["path"]) == ["a.x", "a.y", "up", "down", "llm.{1,2}.block"]


@pytest.mark.parametrize("function", [lambda points: pipeline_scheme(points, "m"), scheme_table])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda p: p.drop(columns=["width", "path"]), "path, width"),
        (lambda p: p[p["point"].str[0] != "C"], r"connector \(C\)"),
        (lambda p: p.assign(point=p["point"].replace("V.00", "X.00")), r"X\.00"),
        (lambda p: p.assign(poolings="image_mean, first_token"), "first_token"),
    ],
)
def test_wrong_points_are_named(function, broken, message):
    with pytest.raises(InputError, match=message):
        function(broken(points_of(2, 2, 2)))
