"""Links, anchors and files of the built pages, read as text: no browser needed."""

from __future__ import annotations

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


class Page(HTMLParser):
    """The anchors of a page, and all that it links to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and "href" in given:
            self.loaded.add(given["href"])
        elif "src" in given:
            self.loaded.add(given["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """All HTML pages by their path in the site, but for the theme's templates."""
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in found}


def is_outside(url: str) -> bool:
    return bool(urlsplit(url).scheme or urlsplit(url).netloc)


def test_every_link_inside_the_book_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in sorted(page.links | page.loaded):
            if is_outside(link):
                continue
            parts = urlsplit(link)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path))
            target = unquote(target) if parts.path else name
            anchor = unquote(parts.fragment)
            if not (site / target).is_file():
                broken.append(f"{name}: {link} (no such file)")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{name}: {link} (no such anchor)")
    assert broken == []


def test_no_page_loads_a_file_from_elsewhere(pages: dict[str, Page]) -> None:
    elsewhere = {
        (name, url)
        for name, page in pages.items()
        for url in page.loaded
        if is_outside(url) and not url.startswith("data:")
    }
    assert elsewhere == set()


def test_outside_links_are_encrypted(pages: dict[str, Page]) -> None:
    plain = {url for page in pages.values() for url in page.links if url.startswith("http:")}
    assert plain == set()


def test_the_root_of_the_site_leads_to_the_book(site: Path) -> None:
    redirect = re.search(r'content="0;\s*url=([^"]+)"', (site / "index.html").read_text())
    assert redirect is not None
    assert redirect[1].removeprefix("./") == "book/index.html"


def test_style_sheets_name_no_other_place(site: Path) -> None:
    named = {
        (path.relative_to(site).as_posix(), url)
        for path in site.rglob("*.css")
        for url in re.findall(
            r"(?:url\(\s*['\"]?|@import\s+['\"])(https?:[^'\")]+)", path.read_text()
        )
    }
    assert named == set()
