"""What a reader does on the pages: asks for a term, searches, walks by keyboard, switches the theme, downloads."""

import re

import pytest
from browser import words

pytestmark = pytest.mark.browser
CURVES = "03_probing"


def test_a_term_is_explained_where_it_stands_and_the_theme_is_switched_by_key_and_the_charts_follow(visit):
    tab = visit(CURVES)
    term = tab.page.locator("article a[data-told]").first
    definition = words(term.get_attribute("data-told"))
    assert len(definition) > 20
    term.hover()
    assert tab.tooltip() == definition
    tab.page.keyboard.press("Escape")
    tab.no_tooltip()
    tab.page.mouse.move(1, 1)
    term.focus()
    assert tab.tooltip() == definition
    term.blur()
    tab.no_tooltip()
    switch = tab.page.locator(".theme-switch-button").filter(visible=True).first
    text = tab.page.locator("figure.chart svg[role=img] text").first
    seen = {}
    switch.focus()
    for _ in range(4):
        theme = tab.page.evaluate("document.documentElement.dataset.theme")
        seen.setdefault(theme, set()).add(text.evaluate("text => getComputedStyle(text).fill"))
        switch.press("Enter")
    assert seen.keys() == {"light", "dark"}
    assert all(len(fills) == 1 for fills in seen.values())
    assert not seen["light"] & seen["dark"]


def test_the_first_screen_says_what_is_real_what_is_claimed_and_what_was_found_and_shows_it(visit):
    tab = visit("index")
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    shown = tab.page.locator("article :is(h1, p, svg[role=img])").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().bottom <= innerHeight)"
        ".map(e => e.localName === 'svg' ? 'drawing' : e.textContent)"
    )
    for part in ("layer by layer", "synthetic", "miniatures", "report that such models", "Finding 1.", "drawing"):
        assert part in " ".join(" ".join(shown).split()), part
    assert re.search(r"Finding 1\..*\([-+][\d.]+ to [-+][\d.]+\) pp", " ".join(shown), re.DOTALL)


def test_the_search_finds_the_page_that_explains_a_word(visit):
    tab = visit("index")
    tab.page.locator("button.search-button__button").filter(visible=True).first.click()
    tab.page.keyboard.type("volatility")
    tab.page.keyboard.press("Enter")
    results = tab.page.locator("#search-results ul.search li a")
    results.first.wait_for()
    tab.page.wait_for_load_state("networkidle")
    results.filter(has_text="feature health").first.click()
    tab.page.wait_for_url(re.compile(r"/05_feature_health\.html"))
    tab.page.wait_for_load_state("networkidle")  # leaving earlier would abort what it loads, which counts as failed
    assert "volatility" in tab.page.locator("article").inner_text()
    # and nothing where there is nothing to find
    tab.page.goto(tab.url.replace("index.html", "search.html?q=zzytilitalov"), wait_until="networkidle")
    assert results.count() == 0


@pytest.mark.slow
def test_the_keyboard_reaches_everything_and_shows_where_it_is(visit, book):
    for page in ("index", CURVES, f"models/{book.models[0]}"):
        walk = visit(page).walk()
        assert walk.pop("reached") >= 10, page
        assert not any(walk.values()), f"{page}: {walk}"
