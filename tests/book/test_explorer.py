"""What a reader does with the explorer: chooses, filters, follows one image; on a page with planted cases."""

import re

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, serve

from mlprobe_utils.evaluation.fates import MEAN, compared, decoded, fates, state
from mlprobe_utils.plots.explorer import explorer, packed_of, pictured

pytestmark = pytest.mark.browser
POINTS = ["V.00", "V.01", "C.00", "L.00", "L.01"]
IMAGES = [f"{place:02d}.png" for place in range(12)]
LOST = {"03.png": 2, "07.png": 2}  # image -> place of the first point at which the broken model does not decode it
SWAPPED = "05.png"  # whose label is that of the other class: no model is right
MODELS, SETS = {"healthy": "Healthy", "broken": "Broken <one>"}, {"scans": "Scans"}


def planted(lost: dict[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    labels = ["Yes" if place % 2 else "No" for place in range(len(IMAGES))]
    images = pd.DataFrame({"image": IMAGES, "label": labels, "split": "test", "model": "m", "dataset": "d"})
    images["stage"] = "finetuned"
    frames = []
    for place, point in enumerate([*POINTS, "answer"]):
        wrong = images["image"].map(lambda image, at=place: image == SWAPPED or at >= lost.get(image, 9))
        yes = np.where(images["label"].eq("Yes") ^ wrong, 0.8, 0.3)
        frames.append(images.assign(point=point, p_Yes=yes, p_No=1 - yes, wrong=wrong))
    answers = frames.pop()
    parsed = np.where(answers["p_Yes"] > 0.5, "Yes", "No")
    answers = answers.assign(parsed=parsed, text=parsed).drop(columns=["wrong", "point"])
    return pd.concat(frames).assign(pooling=MEAN).drop(columns="wrong"), answers


def payloads(shown: bool = True) -> dict:
    found, beside = {}, {}
    for model, lost in (("healthy", {}), ("broken", LOST)):
        table = decoded(*planted(lost))
        answers = planted(lost)[1].set_index("image")
        drawn = state(table, answers, fates(table, answers))
        found[f"{model}/scans"] = [{"stage": "finetuned", "run": 0} | drawn]
        beside[model] = compared(table, answers, drawn)
    manifest = planted({})[1][["image", "label"]].rename(columns={"label": "option"}).assign(patient="p1")
    pixels = (lambda place: np.full((64, 64, 3), 20 * place, np.uint8)) if shown else None
    return found | {"models/scans": beside, "images/scans": pictured(manifest, [*table.columns.unique(2)], pixels)}


@pytest.fixture
def opened(browser, tmp_path):
    """A page with an explorer, its data in files as the book has them; nothing may fail unseen."""
    tabs = []
    (tmp_path / "data").mkdir()
    for name, payload in payloads().items():
        script = f'(window.explorerData ||= {{}})["{name}"] = "{packed_of(payload)}";'
        (tmp_path / "data" / f"{name.replace('/', '--')}.js").write_text(script)
    view = explorer({}, MODELS, SETS).data.replace("<div", '<div data-folder="data"', 1)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">'
    (tmp_path / "files.html").write_text(f"{head}<body><main><h1>Explore</h1>{view}</main></body></html>")
    hidden = explorer(payloads(shown=False), MODELS, SETS).data
    (tmp_path / "inside.html").write_text(f"{head}<body><main><h1>Explore</h1>{hidden}</main></body></html>")

    with serve(tmp_path) as address:

        def open_page(page="files.html", state="", disk=False, **settings) -> Tab:
            place = f"file://{tmp_path}" if disk else address
            tabs.append(Tab(browser, f"{place}/{page}{state and '#'}{state}", **settings).wait())
            if settings.get("scripts", True):
                tabs[-1].page.locator(".explorer-tile").first.wait_for()
            return tabs[-1]

        yield open_page
        complaints = [complaint for tab in tabs for complaint in tab.complaints]
        for tab in tabs:
            tab.close()
        assert complaints == []


def tiles(tab: Tab) -> list[str]:
    return tab.page.locator(".explorer-strip .explorer-tile").evaluate_all("tiles => tiles.map(t => t.ariaLabel)")


def test_an_image_lost_in_the_connector_is_found_in_three_clicks(opened):
    tab = opened()
    assert len(tiles(tab)) == 12
    tab.page.get_by_label("Model").select_option("broken")
    tab.page.get_by_role("button", name=re.compile("lost in the connector")).first.click()
    assert tiles(tab) == [f"image {n}, Yes, lost in the connector" for n in (4, 8)]
    tab.page.locator(".explorer-strip .explorer-tile").nth(1).click()
    facts = tab.page.locator(".explorer-detail").inner_text()
    for words in ("Image 8", "07.png", "lost in the connector", "80 % at V.01 → 30 % at C.00", "p1", "Healthy"):
        assert words in facts, words
    assert "2 of 12 images" in tab.page.get_by_role("status").all_inner_texts()
    again = opened(state=tab.page.url.partition("#")[2])  # the address is all that a finding needs
    assert tiles(again) == tiles(tab)
    assert again.page.locator(".explorer-detail").inner_text() == facts


def test_filters_combine_and_an_empty_result_can_be_undone(opened):
    tab = opened(state="model=broken&dataset=scans")
    tab.page.get_by_role("button", name="all models wrong").click()
    assert tiles(tab) == ["image 6, Yes, decodable nowhere"]
    tab.page.get_by_label("Class", exact=False).first.select_option("No")
    assert tiles(tab) == []
    tab.page.get_by_role("button", name="Clear the filters").first.click()
    assert len(tiles(tab)) == 12


def test_the_flow_counts_what_changes_between_two_points_and_leads_to_the_images(opened):
    tab = opened(state="model=broken&dataset=scans")
    rows = tab.page.locator(".explorer-flow tbody tr")
    shown = dict(zip([*POINTS, "answer"], (own.split() for own in rows.all_inner_texts()), strict=True))
    assert [own[1] for own in shown.values()] == ["11", "11", "9", "9", "9", "9"]
    assert (shown["C.00"][2:], shown["L.00"][2:]) == (["2", "0"], ["0", "0"])
    tab.page.get_by_role("button", name="2 became wrong between V.01 and C.00").click()
    assert [own.split(",")[0] for own in tiles(tab)] == ["image 4", "image 8"]


def test_the_chart_and_its_table_show_the_same(opened):
    tab = opened(state="model=broken&dataset=scans&image=4")
    tab.page.get_by_text("Data of this chart").click()
    rows = tab.page.locator(".explorer-numbers tbody tr").all_inner_texts()
    assert [own.split("\t")[1] for own in rows] == ["80 %", "80 %", "30 %", "30 %", "30 %", "30 %"]
    titles = tab.page.locator(".explorer-chart svg title").evaluate_all("all => all.map(t => t.textContent)")
    assert titles[0] == "V.00: Yes 80 %, No 20 %"
    assert titles[-1] == "answer: Yes 30 %, No 70 %"


def test_by_keyboard_an_image_is_reached_and_chosen(opened):
    tab = opened()
    tab.page.locator(".explorer-strip .explorer-tile").first.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        tab.page.keyboard.press(key)
    assert "image=3" in tab.page.url
    tab.page.keyboard.press("End")
    assert tab.page.evaluate("document.activeElement.ariaLabel").startswith("image 12,")


def test_it_works_from_a_disk_and_without_pictures_it_has_no_names(opened):
    tab = opened(disk=True, state="model=broken&dataset=scans&image=4")
    assert "03.png" in tab.page.locator(".explorer-detail").inner_text()
    bare = opened("inside.html", "image=4")
    assert not re.search(r"\.png|p1", bare.page.locator(".explorer-detail").inner_text())
    assert tiles(bare) == tiles(opened())


def test_an_address_that_does_not_fit_is_answered_in_words(opened):
    tab = opened(state="model=nobody&dataset=scans&sort=drop")
    assert "model=nobody" in tab.page.locator(".explorer-note").inner_text()
    assert tab.page.get_by_label("Model").input_value() == "healthy"


@pytest.mark.parametrize(("width", "theme"), [(360, "dark"), (1280, "light")])
def test_it_is_accessible_and_fits_a_phone(opened, width, theme):
    tab = opened(state="model=broken&dataset=scans&image=4", width=width)
    tab.page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    tab.page.add_style_tag(
        content="html[data-theme=dark] { background: #121212; color: #ddd; --pst-color-text-base: #ddd; "
        "--pst-color-background: #121212; --pst-color-surface: #222; --pst-color-link: #8cf }"
    )
    tab.measure("settle()")
    assert tab.measure("overflowing()") == []
    found = Axe().run(tab.page).response["violations"]
    serious = [own for own in found if own["impact"] in ("serious", "critical")]
    assert [(own["id"], own["nodes"][0]["html"]) for own in serious] == []
