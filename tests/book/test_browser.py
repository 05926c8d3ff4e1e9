"""Every page of the built book in chromium: nothing foreign, nothing broken, readable at both widths in both themes."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HEIGHT, WIDTHS, Tab, pages
from small_book import MODEL

from mlprobe_utils.book.book_pages import chapters, model_page

pytestmark = pytest.mark.browser
MOST_BYTES = 2_000_000
CHART = "figure.chart"
ALIKE = {"exclude": [["tbody tr:nth-child(n + 9)"]]}  # rows look like those above them, and there are hundreds
OPTIONS = {"resultTypes": ["violations"]}
WITH_CHARTS = ("index", "02_fine_tuning", "03_probing", "05_feature_health", "08_baselines", "09_medical_adaptation",
               "10_vision_tower", "11_comprehension_utilization", "13_probe_settings", model_page(MODEL))  # fmt: skip


@pytest.fixture(scope="module")
def tabs(book, site, browser):
    """Every page, loaded once, its folds then opened; the tests change nothing but width and theme."""
    opened = {page: Tab(browser, f"{site}/{page}.html") for page in pages(book.html)}
    for tab in opened.values():
        tab.wait().unfold()
    return opened


def views(tabs):
    """Every page at both widths and in both themes, with its name for a message; colours do not depend on widths."""
    for width, theme in zip(WIDTHS, ("light", "dark"), strict=True):
        for tab in tabs.values():
            tab.page.set_viewport_size({"width": width, "height": HEIGHT})
        tab.page.wait_for_timeout(500)  # the theme's scripts put off what a new width asks for
        for page, tab in tabs.items():
            tab.page.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)
            tab.measure("settle()")
            yield f"{page}, {width} px, {theme}", page, tab


def test_a_page_asks_nobody_else_finds_all_that_it_loads_has_nothing_to_complain_of_and_is_small(tabs):
    assert {"index", *chapters(), "limits", "bibliography", "search", "genindex"} <= tabs.keys()
    for page, tab in tabs.items():
        assert [*tab.foreign(), *tab.errors(), *tab.complaints] == [], page
        assert 10_000 < tab.bytes() < MOST_BYTES, page


def test_pages_are_not_wider_than_their_window_and_their_charts_are_legible(tabs):
    """Nor is there a stray search bar: a button opens the one field, which only the page of results shows at once."""
    problems = []
    for view, page, tab in views(tabs):
        measured = tab.measure("charts()")
        problems += [f"{view}: {found}" for found in (*tab.measure("overflowing()"), *measured["found"])]
        assert measured["seen"] >= measured["texts"] >= 5 * (measured["drawings"] - 1), view
        assert measured["lines"] > 0 or page not in WITH_CHARTS, view
        assert tab.seen("input[type=search], input[name=q]") == (page == "search"), view
        assert tab.seen("button.search-button__button") >= 1, view
    assert not problems, "\n".join(["", *problems])


@pytest.mark.slow
def test_axe_finds_nothing_serious(tabs):
    problems, axe = [], Axe()
    for view, _, tab in views(tabs):
        tab.page.evaluate("scrollTo(0, 0)")  # the button that leads back up fades where another test has been below
        tab.page.locator("#pst-back-to-top").wait_for(state="hidden")
        for violation in axe.run(tab.page, ALIKE, OPTIONS).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                targets = [node["target"] for node in violation["nodes"]]
                problems.append(f"{view}: {violation['id']}, {len(targets)} times: {targets[:3]}")
    assert not problems, "\n".join(["", *problems])


def test_equations_are_drawn_without_a_script(tabs):
    assert tabs["05_feature_health"].page.locator("math[display=block]").count() >= 3
    for page, tab in tabs.items():
        small = "all => all.filter(e => Math.min(e.clientWidth, e.clientHeight) <= 4).map(e => e.textContent)"
        assert tab.page.locator("math").evaluate_all(small) == [], page
        text = " ".join(tab.page.locator("article").all_inner_texts())
        assert not [mark for mark in ("$$", r"\frac", r"\text") if mark in text], page


@pytest.mark.slow
def test_the_book_reads_without_scripts(tabs, site, browser):
    """Text, charts, tables behind folds and downloads: a page without scripts shows what it shows with them."""
    bare = {page: Tab(browser, f"{site}/{page}.html", scripts=False) for page in tabs.keys() - {"search"}}
    for page, tab in bare.items():
        tab.wait().unfold()
        for selector in ("article h1, article h2", "article p", f"{CHART} svg[role=img]", f"{CHART} figcaption"):
            assert tab.seen(selector) == tabs[page].seen(selector), f"{page}: {selector}"
        assert tab.seen("input[type=search]") == 0, page
        for selector in ("details.chart-data table", "details.chart-data a[download]"):
            assert tab.seen(selector) == tab.page.locator(selector).count(), f"{page}: {selector}"
        assert tab.seen("details.chart-data a[download]") >= (page in WITH_CHARTS)
        tab.close()
