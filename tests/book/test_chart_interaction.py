"""What a reader does with the charts of a page: points at them, presses keys, singles out, enlarges, downloads."""

import itertools
import json
import math

import pandas as pd
import pytest
from browser import HEIGHT, TOOLTIP, WIDTHS, Tab, words

from mlprobe_utils.pipeline.cards import load_model_card
from mlprobe_utils.plots.figures import Key
from mlprobe_utils.plots.lines import Axes, lines

pytestmark = pytest.mark.browser
CURVES = "03_probing"
DATA_CHART = "figure.chart:has(details.chart-data)"
STAGES = {"pretrained": "before fine-tuning", "finetuned": "after fine-tuning"}
DRAWING = "svg[role=img]"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_tooltip_tells_the_mark_under_the_pointer_and_arrow_keys_walk_through_them(width, visit):
    tab = visit(CURVES, width=width)
    for chart in tab.page.locator(DATA_CHART).all():
        drawing = chart.locator(DRAWING).first
        drawing.hover()  # scrolls, and waits until nothing moves
        marks = drawing.evaluate("svg => inPage.marks(svg)")
        assert len(marks) >= 4
        mark = min(marks, key=lambda mark: math.hypot(mark["x"] - width / 2, mark["y"] - HEIGHT / 2))
        tab.page.mouse.move(mark["x"], mark["y"])
        near = [m["told"] for m in marks if math.hypot(m["x"] - mark["x"], m["y"] - mark["y"]) < 3]
        assert tab.tooltip().startswith(tuple(map(words, near)))  # what a mark belongs to may follow
        box = tab.page.locator(TOOLTIP).bounding_box()
        assert 0 <= box["x"] <= width - box["width"]
        tab.page.mouse.move(1, 1)
        tab.no_tooltip()
        assert drawing.get_attribute("tabindex") == "0"
        drawing.evaluate("svg => svg.focus()")  # the page may scroll to it
        heard = []
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            tab.page.keyboard.press(key)
            heard.append(tab.tooltip())
        assert heard[0] == heard[2] != heard[1]
        tab.page.keyboard.press("Escape")
        tab.no_tooltip()
        assert drawing.evaluate("svg => svg === document.activeElement")


def test_a_key_of_the_legend_dims_what_has_another_name(visit):
    """In all charts of the page that know the name, and in no other; pressed again, all is as before."""
    tab = visit(CURVES)
    charts = tab.page.locator("figure.chart").all()
    names = "keys => keys.map(k => k.dataset.highlight)"
    named = [{*chart.locator(".chart-key").evaluate_all(names)} for chart in charts]
    assert len(set().union(*named)) >= 2
    for name in set().union(*named):
        keys = tab.page.locator(f".chart-key[data-highlight={json.dumps(name)}]")
        keys.first.click()
        for chart, known in zip(charts, named, strict=True):
            assert (chart.locator(".dimmed").count() > 0) == (name in known), name
        assert keys.evaluate_all("keys => keys.every(k => k.ariaPressed === 'true')"), name
        dimmed = tab.page.locator("figure.chart svg .dimmed, figure.chart .chart-panel.dimmed").first
        assert float(dimmed.evaluate("mark => getComputedStyle(mark).opacity")) < 0.5
        keys.first.press("Enter")
        assert tab.page.locator(".dimmed").count() == 0, name
        assert keys.evaluate_all("keys => keys.every(k => k.ariaPressed === 'false')"), name


def test_a_chart_is_enlarged_and_put_back(visit):
    tab = visit(CURVES)
    for chart in tab.page.locator(DATA_CHART).all():
        before = chart.locator(DRAWING).first.bounding_box()
        drawings = chart.locator(DRAWING).count()
        zoom = chart.get_by_role("button", name="Enlarge")
        zoom.press("Enter")
        dialog = tab.page.locator("dialog.chart-dialog[open]")
        dialog.wait_for(state="visible")
        assert dialog.locator(DRAWING).first.bounding_box()["width"] > before["width"]
        tab.page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        assert zoom.evaluate("button => button === document.activeElement")
        assert chart.locator(DRAWING).count() == drawings
        assert chart.locator(DRAWING).first.bounding_box()["width"] == pytest.approx(before["width"], abs=1)


def test_a_panel_is_chosen_by_lists_and_by_the_address(book, site, browser):
    """Of eight, one is shown; an address opens the panel that it names; without scripts the others are folds."""
    panels = itertools.product(("one", "two", "three", "four"), ("a", "b"), ("V.00", "V.01"))
    long = pd.DataFrame(panels, columns=["model", "dataset", "x"]).assign(value=80.0, stage="any")
    figure = lines(long, [Key("any", "stage", "red")], Axes("accuracy (%)"), "Many")
    script = '<script src="_static/charts.js"></script>'
    (book.html / "choice.html").write_text(
        f"<!doctype html><meta charset='utf-8'><title>Many</title>{figure.html}{script}"
    )
    try:
        tab = Tab(browser, f"{site}/choice.html").wait()
        shown = lambda: tab.page.locator(".chart-choice[open] .chart-panel-title").all_text_contents()  # noqa: E731
        assert shown() == ["one · a"]
        tab.page.get_by_label("model").select_option("three")
        tab.page.get_by_label("data set").select_option("b")
        assert shown() == ["three · b"]
        other = Tab(browser, tab.page.url).wait()
        assert other.page.locator(".chart-choice[open] .chart-panel-title").all_text_contents() == ["three · b"]
        bare = Tab(browser, f"{site}/choice.html", scripts=False)
        assert bare.page.locator("details.chart-choice > summary").count() == 8
    finally:
        (book.html / "choice.html").unlink()


def test_the_downloaded_curves_are_those_of_the_rows(visit, book):
    """Mean accuracy of the runs at every point, computed here once more from the probes' answers to test images."""
    rows = pd.concat(book.tables(model)["probes/probes.parquet"] for model in book.models)
    rows = rows[(rows["split"] == "test") & (rows["pooling"] == "image_mean") & (rows["probe"] == "main")]
    most_probable = rows.filter(like="p_").idxmax(axis=1).str.removeprefix("p_")
    correct = 100 * (most_probable == rows["label"])
    runs = correct.groupby([rows[name] for name in ("model", "stage", "point", "run")]).mean()
    expected = runs.groupby(["model", "stage", "point"]).mean()
    tab = visit(CURVES)
    tab.unfold()
    with tab.page.expect_download() as download:
        tab.page.locator(f"{DATA_CHART} a[download]").first.click()
    given = pd.read_csv(download.value.path())
    given = given[given["number"].eq("mean") & given["metric"].eq("accuracy")].set_index(["model", "stage"])
    for (model, stage), points in expected.groupby(level=["model", "stage"]):
        curve = given.loc[(load_model_card(model).name, STAGES[stage]), points.index.unique("point")]
        assert curve.to_list() == pytest.approx(points.to_list(), rel=1e-4), (model, stage)
