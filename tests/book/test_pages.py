"""Every page of the book in a real browser: wide and on a phone, light and dark, served and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HEAVIEST = 6.0  # megabytes, with all that a page loads, two thirds of it MathJax and the theme
Faults = dict[str, list[str]]


def test_a_page_has_no_fault_on_a_phone(page_name: str, server: str, context: Any) -> None:
    faults: Faults = {}
    allowed = (server, "data:", "blob:")
    page = opened(context, server + page_name, PHONE, allowed, faults)
    wait_and_unfold(page)
    weight = page.evaluate(MEGABYTES)
    print(f"{page_name}: {weight:.2f} MB with all that it loads")
    in_source, rendered = page.evaluate(COUNT_FORMULAS)
    overflow = page.evaluate("document.documentElement.scrollWidth") - PHONE["width"]
    faults["axe, light"] = axe_findings(page)
    faults["images that do not say what they show"] = page.evaluate(IMAGES_WITHOUT_TEXT)
    faults["formulas"] = [f"{in_source}, {rendered} rendered"] if rendered < in_source else []
    faults["scrolls sideways"] = [f"by {overflow} px"] if overflow > 0 else []
    faults["weight"] = [f"{weight:.2f} MB"] if not 0 < weight < HEAVIEST else []
    page.close()
    assert nonempty(faults) == {}


def test_a_page_has_no_fault_on_a_wide_screen_from_the_disk(
    page_name: str, site: Path, context: Any
) -> None:
    faults: Faults = {}
    allowed = ("file:", "data:", "blob:")
    page = opened(context, (site / page_name).as_uri(), WIDE, allowed, faults)
    wait_and_unfold(page)
    for mode in ("light", "dark"):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        faults[f"axe, {mode}"] = axe_findings(page)
    page.close()
    assert nonempty(faults) == {}


def nonempty(faults: Faults) -> Faults:
    return {kind: found for kind, found in faults.items() if found}


def opened(
    context: Any, url: str, size: dict[str, int], allowed: tuple[str, ...], faults: Faults
) -> Any:
    """Open a page; requests to other places are noted and stopped, errors are noted."""
    outside = faults.setdefault("asks for something outside the site", [])
    errors = faults.setdefault("errors of scripts and in the console", [])

    def route(route: Any) -> None:
        if route.request.url.startswith(allowed):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    page = context.new_page()
    page.set_viewport_size(size)
    page.route("**/*", route)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.goto(url)
    return page


def wait_and_unfold(page: Any) -> None:
    """Wait for the formulas, and open solutions and hidden cells, which are checked too."""
    page.evaluate("window.MathJax?.startup?.promise.then(() => true)")
    page.evaluate("""() => {
        for (const box of document.querySelectorAll("details")) box.open = true;
        for (const box of [...document.querySelectorAll(".toggle-hidden")])
            box.classList.remove("toggle-hidden");
    }""")


def axe_findings(page: Any) -> list[str]:
    """The serious and critical findings of axe-core, one line a place."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"], "preload": False}
    return [
        f"{finding['id']} ({finding['impact']}): {node['target']} {node['html'][:200]}"
        for finding in axe.run(page, options=options).response["violations"]
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]


COUNT_FORMULAS = """() => [
    document.querySelectorAll("span.math, div.math").length,
    document.querySelectorAll("mjx-container").length,
]"""

MEGABYTES = """() => ["navigation", "resource"]
    .flatMap(kind => performance.getEntriesByType(kind))
    .reduce((sum, entry) => sum + entry.decodedBodySize, 0) / 1e6"""

# A figure says what it shows: some words, not a file name and not "figure 3".
IMAGES_WITHOUT_TEXT = """() => [...document.querySelectorAll("img")]
    .filter(image => {
        const text = (image.getAttribute("alt") ?? "").trim();
        if (!image.closest("article")) return !image.hasAttribute("alt");
        return text.split(/\\s+/).length < 3 || /\\.(png|svg|jpe?g)$/i.test(text);
    })
    .map(image => image.src.slice(0, 200) + " alt=" + image.getAttribute("alt"))"""
