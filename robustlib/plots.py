"""The book's figures: one style, colors that stand for methods, and the few plots that recur.

Colors are those of Okabe and Ito, told apart with every common color-vision deficiency. Figures
have a white background of their own, so that they read the same on a dark page, and letters large
enough for a phone when the figure is scaled down to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor, nn

from robustlib import checks
from robustlib.metrics import Estimate

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GRAY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#767676"

COLORS = {
    # methods, from the cheapest bound to the exact answer; then the attacks
    "clean": GRAY,
    "crown": GREEN,
    "alpha": PURPLE,
    "branch": BLACK,
    "lp": SKY,
    "mip": BLUE,
    "restriction": PURPLE,
    "fgsm": ORANGE,
    "pgd": VERMILION,
    "lbfgs": GREEN,
    # verdicts
    "robust": GREEN,
    "adversarial": VERMILION,
    "misclassified": GRAY,
    "undecided": YELLOW,
    # training
    "standard": ORANGE,
    "adversarially trained": BLUE,
    "paper": BLACK,
}
CLASSES = [BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GRAY, BLACK, "#8B5A2B"]
WIDTH = 5.2  # inches: the width of the text column

STYLE: dict[Any, Any] = {
    "figure.figsize": (WIDTH, 3.6),
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GRAY]),
    "font.size": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "image.interpolation": "none",  # the pixels as they are; the browser scales them, unsmoothed
    "svg.hashsalt": "robustlib",
}


def use_style() -> None:
    """Set the book's style in matplotlib and, in a notebook, vector output that is reproducible."""
    mpl.rcParams.update(STYLE)
    if mpl.get_backend().endswith("inline"):
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def image_row(images: Sequence[Tensor], titles: Sequence[str]) -> Figure:
    """Images side by side, each under its title.

    Parameters
    ----------
    images : tensors of shape (1, H, W), gray, or (3, H, W), color, with values in [0, 1]
    titles : one a picture; may have several lines

    Raises
    ------
    ValueError
        For other shapes or values, and unequal numbers of images and titles.
    """
    if len(images) != len(titles):
        raise ValueError(
            f"titles has {len(titles)} entries for {len(images)} images; give as many."
        )
    if not images:
        raise ValueError("images is empty; give at least one.")
    lines = 1 + max(title.count("\n") for title in titles)
    size = (WIDTH, WIDTH / len(images) + 0.25 * lines)
    figure, axes = plt.subplots(1, len(images), figsize=size, squeeze=False)
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        checks.images(image[None], "images")
        if image.ndim != 3 or len(image) not in (1, 3):
            raise ValueError(f"images has shape {tuple(image.shape)}; give (1, H, W) or (3, H, W).")
        pixels = image.detach().cpu().permute(1, 2, 0).numpy()
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, loc="center")
        axis.set_axis_off()
    return figure


def image_grid(
    rows: Mapping[str, np.ndarray], titles: Sequence[str] = (), *, notes: Sequence[str] = ()
) -> Figure:
    """Rows of images, each row with its name at the left.

    Parameters
    ----------
    rows : from the name of a row to an array (n, H, W, 3) of uint8; the same n in all
    titles : one above each column; default none
    notes : one below each column; default none

    Raises
    ------
    ValueError
        For other shapes, unequal lengths, and no rows.
    """
    counts = {len(images) for images in rows.values()} | {len(t) for t in (titles, notes) if t}
    if len(counts) != 1:
        raise ValueError(f"rows, titles and notes have the lengths {sorted(counts)}; give equal.")
    n = counts.pop()
    lines = [1 + max((text.count("\n") for text in texts), default=-1) for texts in (titles, notes)]
    side = 0.82 * WIDTH / n
    size = (WIDTH, len(rows) * side + 0.24 * sum(lines) + 0.05)
    figure, axes = plt.subplots(len(rows), n, figsize=size, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(
                f"row {name!r} has shape {images.shape} and type {images.dtype}; "
                "give (n, H, W, 3) of uint8."
            )
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, loc="center", fontsize=11)
    for axis, note in zip(axes[-1], notes, strict=False):
        axis.set_xlabel(note, fontsize=11)
    return figure


def perturbation(delta: Tensor, factor: float | None = None) -> tuple[Tensor, float]:
    """A perturbation as an image: ½ + factor · delta, gray where nothing changes.

    Parameters
    ----------
    delta : (C, H, W) differences of two images
    factor : the scale; default: the largest of 1, 2, 5, 10, 20, … that keeps the image in [0, 1],
        or 1 for large or empty perturbations

    Returns
    -------
    image, factor
        Print the factor beside the image.

    Examples
    --------
    >>> image, factor = perturbation(torch.tensor([[[0.1, -0.05]]]))
    >>> factor, image
    (5.0, tensor([[[1.0000, 0.2500]]]))
    """
    checks.images(delta[None], "delta", bounds=None)
    if factor is None:
        largest = float(delta.abs().max())
        room = 0.5 / largest * (1 + 1e-6) if largest > 0 else 1.0
        power = 10.0 ** math.floor(math.log10(room))
        factor = max(1.0, power * max(step for step in (1, 2, 5) if step * power <= room))
    factor = checks.number("factor", factor, low=0.0, strict=True)
    return (0.5 + factor * delta.detach()).clamp(0, 1), factor


def adversarial_row(x: Tensor, adversarial: Tensor, labels: tuple[str, str]) -> Figure:
    """An image, the scaled change and the adversarial example, with the labels that they get.

    Parameters
    ----------
    x, adversarial : (1 or 3, H, W) with values in [0, 1]
    labels : what the network says of the first and of the second
    """
    if adversarial.shape != x.shape:
        raise ValueError(
            f"adversarial has shape {tuple(adversarial.shape)}; x has {tuple(x.shape)}."
        )
    change, factor = perturbation(adversarial - x)
    titles = [f"image: “{labels[0]}”", f"change × {factor:g}", f"adversarial: “{labels[1]}”"]
    return image_row([x, change, adversarial], titles)


def decision_regions(
    axis: Axes,
    model: nn.Module,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    resolution: int = 300,
    colors: Sequence[str] = CLASSES,
) -> None:
    """Fill the plane with pale colors of the label that a two-input network gives.

    Parameters
    ----------
    axis : where to draw
    model : maps (n, 2) to logits (n, classes); in evaluation mode
    bounds : range of both coordinates
    resolution : points along each coordinate
    colors : one a class
    """
    checks.eval_mode(model)
    parameter = next(model.parameters(), torch.zeros(()))
    line = torch.linspace(*bounds, resolution, dtype=parameter.dtype)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        labels = model(grid).argmax(1).reshape(resolution, resolution).T
    pale = ListedColormap([tuple(0.75 + 0.25 * c for c in to_rgb(color)) for color in colors])
    extent = (*bounds, *bounds)
    axis.imshow(
        labels.numpy(),
        origin="lower",
        extent=extent,
        cmap=pale,
        vmin=0,
        vmax=len(colors) - 1,
        zorder=0,
    )
    axis.set_aspect("equal")


def interval_bars(
    axis: Axes,
    names: Sequence[str],
    estimates: Sequence[Estimate],
    *,
    colors: Sequence[str] | None = None,
    scale: float = 1.0,
    label: str = "{:.3g}",
) -> None:
    """Horizontal bars with their intervals, each labeled with its name and its value.

    Parameters
    ----------
    axis : where to draw
    names, estimates : one a bar, from top to bottom
    colors : one a bar; default: `COLORS` by name where it has one
    scale : multiplies all numbers, 100 for percent
    label : format of the value, e.g. "{:.1f} %"
    """
    if len(names) != len(estimates):
        raise ValueError(f"names has {len(names)} entries for {len(estimates)} estimates.")
    places = np.arange(len(names))[::-1]
    values = scale * np.array([e.value for e in estimates])
    ends = scale * np.array([[e.low, e.high] for e in estimates]).T
    axis.barh(places, values, color=colors or [COLORS.get(name, BLUE) for name in names])
    axis.errorbar(
        values, places, xerr=abs(ends - values), fmt="none", ecolor=BLACK, elinewidth=1.5, capsize=4
    )
    for place, value, high in zip(places, values, ends[1], strict=True):
        axis.annotate(
            label.format(value), (max(value, high), place), (6, 0), textcoords="offset points",
            va="center",
        )  # fmt: skip
    axis.set_yticks(places, names)
    axis.tick_params("y", length=0)
    axis.margins(x=0.15)
    axis.set_xlim(left=0)
