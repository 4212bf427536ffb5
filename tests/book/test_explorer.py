"""The explorer in a real browser: the same numbers as Python, and a point that can be moved."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from robustlib import zoo
from robustlib.data import toys
from robustlib.encoders.restriction import Region, linear_region
from robustlib.network import from_torch
from robustlib.pointwise import pointwise_robustness

EXPLORER = Path(__file__).parents[2] / "book" / "_static" / "explorer"
START = [0.4375, 0.8125]


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """A page with nothing but the explorer, as the chapter embeds it."""
    net = zoo.load("toy")
    x, y = toys.two_class()
    w1, b1, w2, b2 = (p.double().tolist() for p in net.parameters())
    points = [[*p, c] for p, c in zip(x.double().tolist(), y.tolist(), strict=True)]
    data = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "points": points, "start": START}
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    path.write_text(
        "<!doctype html><html lang='en' data-theme='light'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Explorer</title></head>"
        "<body><main><h1>Explorer</h1>"
        f"<link rel='stylesheet' href='{(EXPLORER / 'explorer.css').as_uri()}'>"
        "<div id='explorer'></div>"
        f"<script type='application/json' id='explorer-network'>{json.dumps(data)}</script>"
        f"<script src='{(EXPLORER / 'explorer.js').as_uri()}'></script></main></body></html>",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def page(browser, html):
    """The open page; at the end no console message and no page error may have come."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(html.as_uri())
    page.wait_for_function("window.robustlibExplorer !== undefined")
    yield page
    page.close()
    assert complaints == []


def compute(page, points: np.ndarray) -> list[dict]:
    call = """points => points.map(([x, y]) => {
        const r = window.robustlibExplorer.compute(x, y);
        return {...r, rho: Number.isFinite(r.rho) ? r.rho : null};
    })"""
    return page.evaluate(call, points.tolist())


def edges(region: Region) -> list[int]:
    """The half-spaces that the region of the box would be larger without: an LP for each."""
    needed = []
    for j, (row, bound) in enumerate(zip(region.matrix, region.bound, strict=True)):
        others = np.arange(len(region.bound)) != j
        answer = linprog(
            -row, A_ub=region.matrix[others], b_ub=region.bound[others], bounds=[(0, 1)] * 2
        )
        if -answer.fun > bound + 1e-9:
            needed.append(j)
    return needed


def test_equals_python(page) -> None:
    """At 220 random points and 40 training points: the same ρ̂, pattern, label and edges."""
    net = zoo.load("toy")
    network = from_torch(net, (2,))
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((220, 2)), toys.two_class(40)[0].double().numpy()])
    expected = pointwise_robustness(net, torch.from_numpy(points).float())
    points = points.astype(np.float32).astype(np.float64)
    for i, (point, got) in enumerate(zip(points, compute(page, points), strict=True)):
        region = linear_region(network, point)
        assert got["pattern"] == region.pattern[0].tolist()
        assert got["label"] == expected.label[i]
        assert got["active"] == edges(region)
        if got["rho"] is None:
            assert expected.rho[i] == np.inf
            assert got["witness"] is None
            continue
        assert got["rho"] == pytest.approx(expected.rho[i], abs=1e-6)
        witness = np.array(got["witness"])
        assert np.abs(witness - point).max() == pytest.approx(got["rho"], abs=1e-9)
        assert (region.matrix @ witness <= region.bound + 1e-9).all()
        assert np.ptp(network.forward(witness[None])) < 1e-9  # on the tie


def test_exact_distance(page) -> None:
    """The ρ shown beside ρ̂ is that of all regions: never above ρ̂, and what a fine grid finds."""
    network = from_torch(zoo.load("toy"), (2,))
    axis = np.linspace(0, 1, 501)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    labels = network.forward(grid).argmax(axis=1)
    points = np.random.default_rng(1).random((100, 2))
    for point, got in zip(points, compute(page, points), strict=True):
        on_grid = np.abs(grid - point).max(axis=1)[labels != got["label"]].min()
        assert got["exact"] <= on_grid + 1e-9
        assert got["exact"] >= on_grid - 0.004
        assert got["rho"] is None or got["exact"] <= got["rho"] + 1e-12


def position(page) -> list[float]:
    return page.evaluate("window.robustlibExplorer.point()")


def test_keyboard_moves_the_point(page) -> None:
    """Arrow keys by 0.01, with Shift by 0.05, Home back; the live region says what is new."""
    plane, says = page.get_by_role("application"), page.get_by_role("status")
    before = says.text_content()
    assert re.fullmatch(r"Class 0, ρ̂ = \d\.\d{4}: nearest adversarial example at \(.+\)\.", before)
    plane.focus()
    for key in ["ArrowRight", "ArrowDown", "Shift+ArrowUp", "Shift+ArrowLeft"]:
        page.keyboard.press(key)
    assert position(page) == pytest.approx([START[0] - 0.04, START[1] + 0.04])
    assert says.text_content() != before
    page.keyboard.press("Home")
    assert position(page) == START
    assert says.text_content() == before
    for _ in range(25):
        page.keyboard.press("Shift+ArrowLeft")
    assert position(page)[0] == 0.0  # it stays in the box


def test_the_button_brings_the_point_back(page) -> None:
    page.evaluate("window.robustlibExplorer.moveTo(0.1, 0.1)")
    page.get_by_role("button").click()
    assert position(page) == START


def test_mouse_moves_the_point(page) -> None:
    """Press, drag and release: the point follows, and stays where it is let go."""
    box = page.get_by_role("application").bounding_box()

    def screen(x: float, y: float) -> tuple[float, float]:
        side = box["width"] / 624
        return box["x"] + (12 + 600 * x) * side, box["y"] + (12 + 600 * (1 - y)) * side

    page.mouse.move(*screen(0.2, 0.3))
    page.mouse.down()
    assert position(page) == pytest.approx([0.2, 0.3], abs=0.003)
    page.mouse.move(*screen(0.7, 0.6))
    page.mouse.up()
    assert position(page) == pytest.approx([0.7, 0.6], abs=0.003)
    page.mouse.move(*screen(0.1, 0.1))
    assert position(page) == pytest.approx([0.7, 0.6], abs=0.003)


def test_finger_drags_the_handle_and_taps(browser, html) -> None:
    """A tap moves the point; a finger that starts on the point drags it, elsewhere it scrolls."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(html.as_uri())
    box = page.get_by_role("application").bounding_box()

    def at(x: float, y: float) -> dict[str, float]:
        side = box["width"] / 624
        return {
            "x": box["x"] + (12 + 600 * x) * side,
            "y": box["y"] + (12 + 600 * (1 - y)) * side,
        }

    page.touchscreen.tap(*at(0.3, 0.4).values())
    assert position(page) == pytest.approx([0.3, 0.4], abs=0.005)
    touch = context.new_cdp_session(page)
    for kind, points in [
        ("touchStart", [at(0.3, 0.4)]),
        ("touchMove", [at(0.5, 0.6)]),
        ("touchMove", [at(0.6, 0.7)]),
    ]:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("Math.abs(robustlibExplorer.point()[0] - 0.6) < 0.01", timeout=5000)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert position(page) == pytest.approx([0.6, 0.7], abs=0.01)
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_and_is_accessible(browser, html, width: int, theme: str) -> None:
    """No overflow, and nothing serious from axe-core, in both color modes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(html.as_uri())
    page.evaluate(
        "theme => { document.documentElement.dataset.theme = theme;"
        "document.body.style = theme === 'dark' ? 'color: #fff; background: #14181e' : ''; }",
        theme,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    serious = [
        (v["id"], v["nodes"][0]["html"])
        for v in axe.run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    page.close()
    assert serious == []
