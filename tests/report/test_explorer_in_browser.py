"""The explorer in headless Chromium: from a file and from a server, clicked through."""

import http.server
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from explorer_root import HOSTILE, explorer_root
from report.browser import CHROMIUM, chromium, guarded, window
from report.large_root import large_root

from pipeline.config.run import RunConfig
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.explorer.build import write_explorer

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
FULL = bool(os.environ.get("EXPLORER_FULL"))
VIEWS = ("overview", "concreteness", "clusters", "labels", "interests", "duplicates", "validation",
         "rejected", "run", "training", "ablations")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = explorer_root(tmp_path_factory.mktemp("explored"))
    catalog = open_catalog(root)
    write_explorer(RunConfig(root=root), catalog, catalog.storage.child("report"))
    return f"{root}/report"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(folder):
    return f"file://{folder}/index.html"


@pytest.mark.parametrize(("width", "scheme", "part"), [(1440, "light", 0), (390, "dark", 1)])
def test_every_view_is_sound(browser, page_file, width, scheme, part, capsys):
    explorer = window(browser, page_file, width, scheme)
    seconds = explorer.open()
    with capsys.disabled():
        sys.stdout.write(f"\nexplorer of literal tables, {width} px: loaded in {seconds:.2f} s\n")
    for number, view in enumerate(VIEWS):
        explorer.show(view)
        assert explorer.overflow() == 0, view
        # axe takes seconds a view: each is checked in one of the two forms, or in both.
        if FULL or number % 2 == part:
            assert explorer.serious() == [], view
    assert explorer.page.evaluate("window.hacked") is None
    assert explorer.troubles == []


def test_clicking_through(browser, page_file):
    explorer = guarded(browser, page_file)
    explorer.open("clusters")
    page = explorer.page
    rows = page.locator("#view-clusters table tbody tr")
    assert rows.count() == 3
    page.locator("#view-clusters .choice select").select_option(label="vehicles")
    assert rows.count() == 1
    page.locator("#view-clusters .choice select").select_option(label="all")
    page.locator("#view-clusters input[type=search]").fill("dog<img")
    assert rows.count() == 1
    assert rows.locator("a").inner_text() == HOSTILE
    rows.locator("a").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-clusters .detail h3")
    assert page.locator(".detail h3").inner_text() == HOSTILE
    page.locator(".detail li a").first.click()
    page.wait_for_url("**#clusters/*")
    explorer.until("document.querySelector('.detail img').naturalWidth === 8")
    page.get_by_role("link", name="All clusters").click()
    explorer.until("!document.querySelector('.detail').children.length")
    assert page.evaluate("window.hacked") is None
    assert explorer.troubles == []


def test_theme_is_kept(browser, page_file):
    explorer = guarded(browser, page_file)
    explorer.open("labels")
    page = explorer.page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    explorer.open("labels")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert explorer.troubles == []


def test_lost_data_is_told(browser, folder, tmp_path):
    page = tmp_path / "index.html"
    page.write_bytes(Path(folder, "index.html").read_bytes())
    (tmp_path / "static").symlink_to(f"{folder}/static")
    explorer = guarded(browser, f"file://{page}")
    explorer.page.goto(explorer.address)
    explorer.page.wait_for_selector("#trouble:not([hidden])")
    assert "data/overview.js could not be loaded" in explorer.page.inner_text("#trouble")


def test_from_a_server(browser, folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        explorer = guarded(browser, f"http://127.0.0.1:{server.server_port}/index.html")
        explorer.open("duplicates")
        explorer.until("document.querySelector('img').naturalWidth === 8")
        assert explorer.troubles == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif("EXPLORER_IMAGES" not in os.environ, reason="large: EXPLORER_IMAGES=1000000")
@pytest.mark.timeout(1800)
def test_large_release_stays_small_and_fast(browser, tmp_path, capsys):
    root = large_root(tmp_path, int(os.environ["EXPLORER_IMAGES"]))
    catalog, started = open_catalog(root), time.monotonic()
    write_explorer(RunConfig(root=root), catalog, catalog.storage.child("report"))
    written = time.monotonic() - started
    place = Path(root, "report")
    megabytes = sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) / 1e6
    explorer = guarded(browser, f"file://{place}/index.html")
    told, worst = [], 0.0
    for view in ("overview", *VIEWS[1:5], "clusters/17"):
        before = explorer.cpu_seconds()
        seconds = explorer.open(view)
        cpu = explorer.cpu_seconds() - before
        worst = max(worst, cpu)
        told.append(f"{view} {seconds:.2f} s ({cpu:.2f} s of processor)")
    explorer.show("clusters")
    explorer.page.locator("#view-clusters input[type=search]").fill("term 17999 ")
    explorer.until("document.querySelectorAll('#view-clusters table tbody tr').length === 1")
    with capsys.disabled():
        sys.stdout.write(f"\nwritten in {written:.0f} s, {megabytes:.1f} MB; {', '.join(told)}\n")
    assert megabytes < 50
    # Of the processor, as the clock would measure who else is on the machine.
    assert worst < 3
    assert explorer.troubles == []
