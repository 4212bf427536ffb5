"""The search of the book finds its key terms, by keyboard, served and from the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def results(page: Any) -> list[str]:
    """The titles that the search page lists, once it has counted them."""
    page.wait_for_function(
        "/found|did not match/.test(document.querySelector('#search-results p')?.innerText ?? '')"
    )
    return page.locator("#search-results ul.search > li > a").all_inner_texts()


@pytest.mark.parametrize("term", ["big-M", "severity", "Gaussian"])
def test_search_finds_the_key_terms(term: str, server: str, context: Any) -> None:
    page = context.new_page()
    page.goto(f"{server}search.html?q={term}")
    assert "Notation" in results(page)
    page.close()


def test_search_is_reached_and_used_by_keyboard(server: str, context: Any) -> None:
    page = context.new_page()
    page.goto(server + "book/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("big-M")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=big-M*")
    assert results(page)
    page.close()


def test_search_works_without_a_server(site: Path, context: Any) -> None:
    page = context.new_page()
    page.goto((site / "search.html").as_uri() + "?q=big-M")
    assert "Notation" in results(page)
    page.close()
