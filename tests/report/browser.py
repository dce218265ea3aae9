"""A headless Chromium for the explorer: opens pages, and remembers what went wrong on them."""

import contextlib
import shutil
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
# Without these it looks for hosts of its maker at every start.
_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
SECONDS = 60


class Explorer:
    """One window on an explorer."""

    def __init__(self, page, address):
        self.page, self.address, self.troubles = page, address, []
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url}"))

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def open(self, view=""):
        """Load the page afresh; seconds until the view is drawn."""
        self.page.goto("about:blank")
        started = time.monotonic()
        self.page.goto(f"{self.address}#{view}")
        self.wait(view or "overview")
        return time.monotonic() - started

    def cpu_seconds(self):
        """Processor seconds of the window's process so far: a busy machine does not add to them."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable")
        metrics = session.send("Performance.getMetrics")["metrics"]
        session.detach()
        return next(m["value"] for m in metrics if m["name"] == "ProcessTime")

    def show(self, view):
        """Follow the navigation to a view."""
        self.page.click(f'nav a[data-view="{view}"]')
        self.wait(view)

    def wait(self, view):
        self.until("name => document.body.dataset.ready === name", view.split("/")[0])

    def until(self, expression, given=None, seconds=30):
        """Wait for an expression to be true.

        Asked from outside: `wait_for_function` evaluates again from inside the page, which the
        page's own policy refuses, so it fails whenever the first answer is no.
        """
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression, given):
            assert time.monotonic() < end, f"not in {seconds} s: {expression}"
            self.page.wait_for_timeout(20)

    def serious(self):
        """Findings of axe-core that are serious or worse."""
        self.page.evaluate(_AXE)
        found = self.page.evaluate(
            "axe.run(document, {resultTypes: ['violations'], preload: false})"
        )
        return [
            (v["id"], v["nodes"][0]["html"][:200])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]

    def overflow(self):
        """Pixels that the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


@contextlib.contextmanager
def chromium():
    """A browser."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


def window(browser, address, width=1440, scheme="light"):
    """A window on an explorer."""
    # axe is put into the page by the test: the page's own policy would refuse it.
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    return Explorer(context.new_page(), address)


def guarded(browser, address):
    """A window where the page's own policy holds."""
    return Explorer(browser.new_page(), address)
