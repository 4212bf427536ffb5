"""The figures: what they show, their colors and their files."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from torch import nn

from robustlib import plots
from robustlib.metrics import proportion

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    with mpl.rc_context():
        yield
    plt.close("all")


def test_colors_are_those_of_okabe_and_ito_and_gray():
    palette = {
        "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
        "#767676",
    }  # fmt: skip
    assert set(plots.COLORS.values()) <= palette


def test_style_is_readable_on_a_phone():
    """A figure as wide as the column, scaled to 358 pixels, keeps letters of 9 pixels or more."""
    plots.use_style()
    points_to_pixels = 358 / (plots.WIDTH * 72)
    for name in ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize"):
        assert mpl.rcParams[name] * points_to_pixels >= 8.5
    assert mpl.rcParams["figure.facecolor"] == "white"


def test_the_same_figure_gives_the_same_file(tmp_path):
    plots.use_style()
    files = []
    for name in ("a.svg", "b.svg"):
        figure, axis = plt.subplots()
        axis.plot([0, 1], [1, 0])
        figure.savefig(tmp_path / name, metadata={"Date": None})
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert b"fill: #ffffff" in files[0]


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.1, 5), (0.5, 1), (0.9, 1), (0.003, 100), (0.02, 20), (0.0, 1)]
)
def test_perturbation_is_scaled_by_a_round_factor_that_keeps_its_range(largest, factor):
    delta = torch.tensor([[[largest, -largest / 2, 0.0]]])
    image, found = plots.perturbation(delta)
    assert found == pytest.approx(factor)
    assert torch.allclose(image, (0.5 + factor * delta).clamp(0, 1))
    if largest <= 0.5:
        assert torch.allclose(image - 0.5, factor * delta, atol=1e-6)


def test_adversarial_row_prints_the_factor_and_the_labels():
    x = torch.rand(1, 5, 5) * 0.5
    figure = plots.adversarial_row(x, x + 0.05, ("7", "3"))
    titles = [axis.get_title(loc="center") for axis in figure.axes]
    assert titles == ["image: “7”", "change × 10", "adversarial: “3”"]
    shown = figure.axes[0].images[0].get_array()
    assert np.allclose(shown[..., 0] if shown.ndim == 3 else shown, x[0])


def test_image_row_takes_gray_and_color():
    figure = plots.image_row([torch.rand(1, 4, 4), torch.rand(3, 4, 4)], ["gray", "color\nimage"])
    assert len(figure.axes) == 2


def test_decision_regions_show_the_label_of_each_point():
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    model[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    model[0].bias.data = torch.tensor([-0.255, 0.0])  # class 0 where the first input is larger
    _, axis = plt.subplots()
    plots.decision_regions(axis, model, resolution=101)
    labels = axis.images[0].get_array()
    x = np.linspace(0, 1, 101)
    assert (labels == np.where(x > 0.255, 0, 1)[None, :]).all()
    shade = axis.images[0].cmap(0)
    assert shade[:3] == pytest.approx(0.75 + 0.25 * np.array(to_rgb(plots.CLASSES[0])), abs=0.01)


def test_interval_bars_end_at_the_value_and_carry_the_interval():
    _, axis = plt.subplots()
    shares = [proportion(30, 100), proportion(0, 100)]
    plots.interval_bars(axis, ["robust", "other"], shares, scale=100, label="{:.0f} %")
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([30, 0])
    assert to_rgb(axis.patches[0].get_facecolor()) == to_rgb(plots.COLORS["robust"])
    segments = axis.collections[0].get_segments()
    for segment, share in zip(segments, shares, strict=True):
        assert segment[:, 0] == pytest.approx([100 * share.low, 100 * share.high])
    assert [text.get_text() for text in axis.texts] == ["30 %", "0 %"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.image_row([torch.rand(1, 4, 4)], []), "titles has 0 entries for 1 images"),
        (lambda: plots.image_row([torch.rand(2, 4, 4)], ["a"]), r"images has shape \(2, 4, 4\)"),
        (
            lambda: plots.image_row([2 * torch.ones(1, 4, 4)], ["a"]),
            r"images has values in \[2, 2\]",
        ),
        (lambda: plots.image_row([], []), "images is empty"),
        (lambda: plots.perturbation(torch.ones(1, 1, 1), factor=0), "factor=0 is out of range"),
        (lambda: plots.perturbation(torch.full((1, 1, 1), torch.nan)), "delta holds 1 NaN"),
        (
            lambda: plots.adversarial_row(torch.rand(1, 4, 4), torch.rand(1, 4, 3), ("a", "b")),
            r"adversarial has shape \(1, 4, 3\); x has \(1, 4, 4\)",
        ),
        (lambda: plots.interval_bars(plt.gca(), ["a"], []), "names has 1 entries for 0 estimates"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_all_text_of_a_figure_is_drawn_without_fonts_of_the_reader(tmp_path):
    plots.use_style()
    figure, axis = plt.subplots()
    axis.set_title("ε = 0.1")
    figure.savefig(tmp_path / "t.svg")
    assert not re.search(r"<text[ >]", (tmp_path / "t.svg").read_text())


def test_a_grid_has_a_row_for_each_name_and_refuses_unequal_rows():
    rows = {"a": np.zeros((3, 4, 4, 3), np.uint8), "b": np.zeros((3, 4, 4, 3), np.uint8)}
    figure = plots.image_grid(rows, ["x", "y", "z"])
    assert len(figure.axes) == 6
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["a", "b"]
    with pytest.raises(ValueError, match="lengths"):
        plots.image_grid({**rows, "c": np.zeros((2, 4, 4, 3), np.uint8)})
    with pytest.raises(ValueError, match="uint8"):
        plots.image_grid({"a": np.zeros((3, 4, 4, 3))})
