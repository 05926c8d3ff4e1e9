"""The built book behind a server, chromium, and a tab that listens, for browser tests."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
NO_CHROMIUM = "no chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDTHS = (360, 1280)
HEIGHT = 900
TOOLTIP = "[role=tooltip]:not(.tooltip)"  # the bubbles of the theme's own buttons have that class
MEASURES = Path(__file__).with_name("in_page.js").read_text()


def pages(folder: Path) -> list[str]:
    """Every page of a built book, search and index with them, by its path without `.html`."""
    found = (path.relative_to(folder) for path in folder.rglob("*.html"))
    return sorted(str(path.with_suffix("")) for path in found if path.parts[0] != "_static")  # theme's snippets


def words(text: str) -> str:
    return re.sub(r"\s+", "", text)


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(folder: Path | None = None, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The address of a local server of a folder, or of what a handler answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield window
        window.close()


class Tab:
    """One page of the book in a window of its own, with all that it asked for and complained about."""

    def __init__(self, browser: Browser, url: str, *, width: int = 1280, scripts: bool = True):
        self.url = url
        settings = {"java_script_enabled": scripts, "reduced_motion": "reduce"}
        self.context = browser.new_context(viewport={"width": width, "height": HEIGHT}, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.requests, self.responses, self.complaints = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(url, wait_until="commit")  # so that several load at a time
        self.ready = False

    def wait(self) -> "Tab":
        """Once nothing is loaded any more."""
        if not self.ready:
            self.page.wait_for_load_state("networkidle")
            self.page.evaluate(MEASURES)
            self.ready = True
        return self

    def _listen(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def foreign(self) -> list[str]:
        """Requests that left this host."""
        host = "/".join(self.url.split("/")[:3])
        return [url for url in self.requests if not url.startswith((f"{host}/", "data:", "blob:"))]

    def errors(self) -> list[str]:
        """What the server refused."""
        return [f"{response.status} {response.url}" for response in self.responses if response.status >= 400]

    def bytes(self) -> int:
        """The size of the page with all that it has loaded."""
        return sum(len(response.body()) for response in self.responses if response.ok)

    def unfold(self) -> None:
        """Opens every fold, so that what it holds is seen too."""
        self.page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        self.measure("settle()")

    def measure(self, call: str):
        """The result of a function of in_page.js."""
        return self.page.evaluate(f"inPage.{call}")

    def seen(self, selector: str) -> int:
        """How many elements a reader sees of those that a selector finds."""
        return self.page.locator(selector).filter(visible=True).count()

    def walk(self, pause: float = 0) -> dict:
        """What Tab reaches, with pauses (ms), what of it does not show its focus or is hidden, and what it misses."""
        for _ in range(2 * self.measure("beginWalk()") + 20):
            self.page.keyboard.press("Tab")
            self.page.wait_for_timeout(pause)
            if not self.measure("step()"):
                break
        return self.measure("endWalk()")

    def tooltip(self) -> str:
        """What the tooltip says, once it is there, without spaces: it sets them in its own way."""
        self.page.locator(TOOLTIP).wait_for(state="visible")
        return words(self.page.locator(TOOLTIP).text_content())

    def no_tooltip(self) -> None:
        """Waits until there is none."""
        self.page.locator(TOOLTIP).wait_for(state="hidden")

    def close(self) -> None:
        self.context.close()
