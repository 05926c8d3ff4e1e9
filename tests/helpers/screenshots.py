"""Pictures of every page of a built book at both widths in both themes, to look at.

`python tests/helpers/screenshots.py <html folder> <out folder>` writes whole pages,
`<page>-<width>-<theme>.png`.
"""

import argparse
from pathlib import Path

from browser import CHROMIUM, NO_CHROMIUM, THEMES, WIDTHS, Tab, chromium, pages, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", type=Path, help="folder of the built book")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if not CHROMIUM:
        parser.error(NO_CHROMIUM)
    if not pages(arguments.html):
        parser.error(f"there is no page in {arguments.html}: run `make book`")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with serve(arguments.html) as address, chromium() as browser:
        for page in pages(arguments.html):
            tab = Tab(browser, f"{address}/{page}.html").wait()
            for width in WIDTHS:
                tab.resize(width)
                for theme in THEMES:
                    tab.paint(theme)
                    path = arguments.out / f"{page.replace('/', '-')}-{width}-{theme}.png"
                    tab.page.screenshot(path=path, full_page=True)
            tab.close()


if __name__ == "__main__":
    main()
