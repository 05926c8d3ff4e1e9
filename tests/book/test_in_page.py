"""The browser tests' own measures find what they are for, on pages that are made wrong on purpose."""

import pytest
from browser import Tab, serve

pytestmark = pytest.mark.browser
CHART = """<figure class="chart chart-panel"><svg role="img" viewBox="0 0 90 40" width="90" fill="none">
<rect width="90" height="20" fill="{ground}"/><text y="14" x="4" font-size="12" fill="{text}">text</text>
<path d="M4,30L80,30" data-told="a|b" stroke="{line}"/>
<line x1="4" x2="80" y1="35" y2="35" data-told="a|b" stroke="{span}"/></svg></figure>"""
GOOD = {"ground": "none", "text": "black", "line": "black", "span": "black"}


@pytest.fixture
def tab(browser, tmp_path):
    with serve(tmp_path) as address:

        def open_page(body: str) -> Tab:
            page = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><body>{body}</body></html>'
            (tmp_path / "page.html").write_text(page)
            return Tab(browser, f"{address}/page.html").wait()

        yield open_page


def test_what_a_page_asks_for_and_complains_of_is_heard(tab, tmp_path):
    scripts = ["console.error('one')", "console.warn('two')", "throw Error('three')", "Promise.reject(Error('four'))"]
    (tmp_path / "large.js").write_text(" " * 50_000)
    loaded = "".join(f'<script src="{source}"></script>' for source in ("http://127.0.0.1:9/thebe.js", "large.js"))
    wrong = tab(loaded + '<img src="no.png" alt="">' + "".join(f"<script>{script}</script>" for script in scripts))
    assert wrong.foreign() == ["http://127.0.0.1:9/thebe.js"]
    assert wrong.errors()[0].startswith("404")
    for heard in ("thebe.js", "one", "two", "three", "four"):
        assert any(heard in complaint for complaint in wrong.complaints), heard
    assert 50_000 < wrong.bytes() < 52_000


def test_what_overflows_or_is_not_drawn_or_has_low_contrast_is_named(tab):
    """Contrast of text on the page, of text on a shape, of text that lets the page through, of a line, an interval."""
    wide = '<div id="wide" style="width: 1300px"><p id="short" style="width: 9px">text</p></div>'
    page = tab(wide + '<figure class="chart" style="display: none"><svg role="img"></svg></figure>')
    assert page.measure("overflowing()") == ["1308 px wide", "div#wide"]
    assert page.measure("charts()")["found"][0].startswith("not drawn")
    wrong = [{"text": "#999"}, {"text": "#333", "ground": "#555"}, {"text": "rgb(0 0 0 / 38%)"}]
    wrong += [{"line": "#e69f00"}, {"span": "#e69f00"}]
    found = tab("".join(CHART.format(**GOOD | colours) for colours in wrong)).measure("charts()")["found"]
    marks = [f"2.3:1 figure.chart.chart-panel > svg > {mark}" for mark in ("path", "line")]
    assert found == ["2.8:1 text", "1.7:1 text", "2.7:1 text", *marks]


def test_what_the_keyboard_cannot_do_is_found(tab):
    assert tab('<a href="#" style="outline: none">a</a>').walk()["plain"] == ["body > a"]
    assert tab('<a href="#" id="gone" onfocus="this.style.opacity = 0">a</a>').walk()["hidden"] == ["a#gone"]
    trap = '<button onblur="setTimeout(() => this.focus())">b</button><a id="c" href="#">c</a>'
    assert tab(trap).walk(20)["missed"] == ["a#c"]
