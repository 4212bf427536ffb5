"""The built book, a server for it, and one browser, shared by the tests of this folder."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def contents() -> list[str]:
    """The files of the table of contents, in its order, without their endings."""
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    return [
        toc["root"],
        *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"]),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a ``page_name`` runs for every page."""
    if "page_name" in metafunc.fixturenames:
        pages = [f"{file}.html" for file in contents()]
        metafunc.parametrize("page_name", [*pages, "search.html"])


@pytest.fixture(scope="session")
def toc_files() -> list[str]:
    return contents()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, built without a warning from the recorded notebooks, in a folder of its own."""
    from robustlib.reproduce.comparison import compare
    from robustlib.reproduce.site import build

    root = tmp_path_factory.mktemp("book")
    shutil.copy2(ROOT / "_config.yml", root)
    shutil.copytree(ROOT / "book", root / "book")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    return build(root, compare(root, "reference")).parent


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Keep the test output readable."""


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    """The address of the site on localhost, ending in a slash."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing; install it: pip install playwright"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium for the browser tests; install it: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def context(browser: Any) -> Iterator[Any]:
    """One browser profile: the files that all pages share are loaded once."""
    opened = browser.new_context(reduced_motion="reduce")
    opened.set_default_navigation_timeout(120_000)  # a busy machine is no fault of a page
    yield opened
    opened.close()
