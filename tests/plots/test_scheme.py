"""The drawn pipeline: every probe point is on it, nothing lies on or outside of anything else, and the table's runs."""

import itertools

import pandas as pd
import pytest
from drawn_charts import drawings, marks, words_in

from mlprobe_utils.evaluation.points import flow_order, is_point
from mlprobe_utils.plots.figures import Figure
from mlprobe_utils.plots.scheme import pipeline_scheme, scheme_table

SIZES = {"deep": (32, 2, 64), "least": (1, 1, 1), "side path": (27, 2, 36, 3), "least side path": (1, 1, 1, 1)}


def points_of(vision: int, connector: int, llm: int, side: int = 0, widths=(1280, 5120, 3584)) -> pd.DataFrame:
    """Probe points as Qwen2.5-VL has them, or Qwen3-VL with its side path; what enters the LLM is as wide as it."""
    parts = [("V", "visual.blocks", 1, "Block", [widths[0]] * vision, "image_mean")]
    parts += [("D", "visual.deepstack_merger_list", 1, "Merger", [widths[2]] * side, "image_mean")]
    parts += [("C", "visual.merger.mlp", 2, "Linear", [widths[1]] * (connector - 1) + [widths[2]], "image_mean")]
    parts += [("L", "language_model.layers", 1, "Decoder", [widths[2]] * llm, "image_mean, image_places, last_token")]
    rows = [
        (f"{letter}.{i:02d}", f"model.{path}.{step * i}", module, width, poolings)
        for letter, path, step, module, own, poolings in parts
        for i, width in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["point", "path", "module", "width", "poolings"])


def drawn(points: pd.DataFrame, name: str = "a model", **options) -> tuple[Figure, dict[str, list[dict]]]:
    """The figure, and the tables that it draws; a text has its edges, of 0.6 of the font's size a character."""
    figure = pipeline_scheme(points, name, **options)
    tables = figure.panels[0].spec["datasets"]
    for text in tables["texts"]:
        width = 0.6 * text["size"] * len(text["words"])
        left = text["x"] - width * {"left": 0, "center": 0.5, "right": 1}[text["align"]]
        text["box"] = left, text["y"] - 0.8 * text["size"], left + width, text["y"] + 0.2 * text["size"]
    return figure, tables


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_point_has_a_box_and_a_marker_a_pooling_and_nothing_lies_outside_or_on_anything_else(size):
    points = points_of(*size, widths=(1280, 27648, 18432))
    figure, tables = drawn(points)
    (drawing,) = drawings(figure)
    assert words_in(drawing) == [text["words"] for text in tables["texts"]]
    labels = [text["words"] for text in tables["texts"] if is_point(text["words"])]
    assert sorted(labels, key=flow_order) == list(points["point"])
    tips = [tip for _, (tip,), _ in marks(drawing)]
    assert len(tips) == sum(size) + size[2]
    for point, path, width in points[["point", "path", "width"]].itertuples(index=False):
        of_point = [tip for tip in tips if tip.startswith(f"{point}: ")]
        assert len(of_point) == 1 + point.startswith("L")
        assert all(f"{width} features of {path} " in tip for tip in of_point)
    texts = [text["box"] for text in tables["texts"]]
    width, height = (figure.panels[0].spec[side] for side in ("width", "height"))
    assert all(0 <= left <= right <= width and 0 <= top <= bottom <= height for left, top, right, bottom in texts)
    assert len(tables["boxes"]) == sum(size) + 3  # image, question, answer
    areas = [tuple(box[side] for side in ("x", "y", "x2", "y2")) for box in tables["boxes"]]
    inside = [text["box"] for text in tables["texts"] if is_point(text["words"]) or text["words"].isdigit()]
    assert max(box[2] - box[0] for box in inside) < min(area[2] - area[0] for area in areas)  # a label fits its box
    radii = [(one, one["size"] ** 0.5 / 2) for one in tables["markers"]]
    areas += [(one["x"] - r, one["y"] - r, one["x"] + r, one["y"] + r) for one, r in radii]
    for a, b in itertools.chain(itertools.combinations(texts, 2), itertools.combinations(areas, 2)):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


@pytest.mark.parametrize(("adapted", "count"), [("VDCL", 3 + 1), ("L", 1 + 1), ("", 0)])  # and the legend's
def test_widths_stand_where_they_change_and_what_judges_a_module_and_has_lora_in_the_description_too(adapted, count):
    figure, tables = drawn(points_of(6, 2, 6, widths=(48, 192, 64)), "Tiny", adapted=adapted)
    words = [text["words"] for text in tables["texts"]]
    assert [word for word in words if word.isdigit()] == ["48", "192", "64", "64"]  # V.00, C.00, C.01, L.00
    judged = [word for word in words if word.startswith("scored")]
    assert judged == [f"scored by {score}" for score in ("FHS_V", "FHS_C", "FHS_L", "P_final")]
    assert words.count("LoRA") == count
    assert "vision tower of 6 blocks (V.00 to V.05, 48 features" in figure.description
    assert "connector of 2 linear layers (C.00 to C.01, 192 then 64 features" in figure.description
    lora = "(L.00 to L.05, 64 features, with LoRA after fine-tuning), probed on the mean of the image tokens"
    assert (lora in figure.description) == ("L" in adapted)
    assert "side path" not in figure.description


def test_a_side_path_leaves_the_vision_tower_passes_the_connector_and_enters_the_llm():
    figure, tables = drawn(points_of(6, 2, 6, 3, (48, 192, 64)), "Tiny")
    vision, connector, side, llm = tables["grounds"]
    assert (side["y"], side["x"] > connector["x2"]) == (connector["y"], True)
    lines = pd.DataFrame(tables["lines"]).groupby("line").agg({"x": ["min", "max"], "y": ["min", "max"]})
    upright = lines[(lines["x"]["min"] == lines["x"]["max"]) & (lines["x"]["min"] > side["x"])]["y"]
    arrows = upright[upright["max"] - upright["min"] > 10]
    assert arrows.to_numpy().tolist() == [[vision["y2"], side["y"]], [side["y2"], llm["y"]]]
    assert "from the vision tower into the LLM: deepstack of 3 mergers (D.00 to D.02, 64 features" in figure.description
    assert [text["words"] for text in tables["texts"]].count("not in a health score") == 1


def test_table_collapses_runs_and_keeps_apart_what_differs():
    table = scheme_table(points_of(6, 2, 6, 3, widths=(48, 192, 64)))
    assert list(table["points"]) == ["V.00 - V.05", "D.00 - D.02", "C.00", "C.01", "L.00 - L.05"]
    parts = ["blocks.{0..5}", "deepstack_merger_list.{0..2}", "merger.mlp.0", "merger.mlp.2"]
    paths = [*(f"model.visual.{part}" for part in parts), "model.language_model.layers.{0..5}"]
    assert list(table["path"]) == paths
    assert list(table["width"]) == [48, 64, 192, 64, 64]
    points = points_of(6, 2, 6, widths=(48, 64, 64))
    assert scheme_table(points)["path"][1] == "model.visual.merger.mlp.{0,2}"
    points.loc[3, "module"] = "OtherBlock"
    assert list(scheme_table(points)["points"])[:3] == ["V.00 - V.02", "V.03", "V.04 - V.05"]
    points = points_of(2, 2, 2, widths=(48, 64, 64))
    points["path"] = ["a.x", "a.y", "up", "down", "llm.1.block", "llm.2.block"]
    assert list(scheme_table(points)["path"]) == ["a.x", "a.y", "up", "down", "llm.{1,2}.block"]
