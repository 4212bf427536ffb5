"""Rotations and translations that change the label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.goal import Goal
from robustlib.attacks.placement import placed
from robustlib.attacks.success import judged

FORWARD = 256  # images in one forward pass


@dataclass(frozen=True, eq=False)
class Spatial:
    """The worst rotation and translation of each image.

    Attributes
    ----------
    points : the images after it, like x.
    success : (n,) bool, whether they are misclassified (or classified as their target).
    degrees : (n,) angle, counterclockwise.
    shift : (n, 2) pixels to the right and down.
    """

    points: Tensor
    success: Tensor
    degrees: Tensor
    shift: Tensor


def spatial_grid(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    degrees: float = 30.0,
    pixels: float = 3.0,
    angles: int = 31,
    shifts: int = 5,
    targets: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Spatial:
    """The worst rotation and translation of a grid (Engstrom et al. 2019, section 3).

    All ``angles`` × ``shifts`` × ``shifts`` combinations and the image as it is are tried; the one
    of lowest margin counts. Gradients are of little use here: the loss has many local maxima along
    the three parameters, and a grid of three is small enough. Interpolation is linear, and what
    comes from outside of the image is the lower end of ``bounds``.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, channels, height, width) to logits (n, classes); in evaluation mode.
    x : Tensor (n, channels, height, width), float32 or float64
        Images inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    degrees : float
        Largest rotation, either way.
    pixels : float
        Largest shift, in each of the four directions.
    angles, shifts : int
        Evenly spaced values of the angle and of each shift; odd numbers include 0.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Spatial

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    >>> model[1].weight.data, model[1].bias.data = torch.zeros(2, 9), torch.tensor([0.5, 0.0])
    >>> model[1].weight.data[1, 4] = 1.0  # label 1 where the middle is white
    >>> x = torch.zeros(1, 1, 3, 3)
    >>> x[0, 0, 1, 0] = 1.0
    >>> found = spatial_grid(model, x, torch.tensor([0]), degrees=0, angles=1, pixels=1, shifts=3)
    >>> found.success.tolist(), found.shift.tolist()
    ([True], [[1.0, 0.0]])
    """
    goal, degrees, pixels = _check(model, x, y, targets, degrees, pixels, bounds)
    turn = _even(degrees, checks.count("angles", angles), x)
    step = _even(pixels, checks.count("shifts", shifts), x)
    grid = torch.cartesian_prod(turn, step, step)
    return _worst(model, x.detach(), goal, grid.expand(len(x), -1, -1), bounds)


def spatial_random(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    degrees: float = 30.0,
    pixels: float = 3.0,
    tries: int = 10,
    targets: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Spatial:
    """The worst of some random rotations and translations ("worst-of-k", Engstrom et al. 2019).

    Parameters
    ----------
    model, x, y, degrees, pixels, targets, bounds
        As in :func:`spatial_grid`.
    tries : int
        Random choices for each image, uniform in the allowed range; the image as it is comes on
        top.
    generator : torch.Generator, optional
        Source of randomness; default: torch's global one. One number is drawn from it for each
        image, which seeds that image's own.

    Returns
    -------
    Spatial

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    >>> found = spatial_random(model, torch.rand(4, 1, 3, 3), torch.zeros(4, dtype=torch.long))
    >>> found.points.shape
    torch.Size([4, 1, 3, 3])
    """
    goal, degrees, pixels = _check(model, x, y, targets, degrees, pixels, bounds)
    tries = checks.count("tries", tries)
    sources = batch.sources(batch.seeds(len(x), checks.generator(generator)))
    unit = batch.drawn(sources, lambda g: 2 * torch.rand(tries, 3, generator=g) - 1, x)
    reach = x.new_tensor([degrees, pixels, pixels])
    return _worst(model, x.detach(), goal, unit.to(x.dtype) * reach, bounds)


def _check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    targets: Tensor | None,
    degrees: float,
    pixels: float,
    bounds: tuple[float, float],
) -> tuple[Goal, float, float]:
    classes = checked.classes_of(model, x, bounds)
    checked.pictures(x)
    degrees = checks.number("degrees", degrees, low=0.0, high=180.0)
    pixels = checks.number("pixels", pixels, low=0.0)
    return checked.goal_of(y, targets, len(x), classes), degrees, pixels


def _even(reach: float, values: int, like: Tensor) -> Tensor:
    if values == 1:
        return like.new_zeros(1)
    return torch.linspace(-reach, reach, values, dtype=like.dtype, device=like.device)


@torch.no_grad()
def _worst(
    model: nn.Module, x: Tensor, goal: Goal, moves: Tensor, bounds: tuple[float, float]
) -> Spatial:
    """The best of the ``moves`` (n, k, 3): degrees, right, down; and of no move at all."""
    moves = torch.cat([moves.new_zeros(len(x), 1, 3), moves], 1)
    k = moves.shape[1]
    margins = x.new_empty(len(x) * k)
    owner = torch.arange(len(x), device=x.device).repeat_interleave(k)
    flat = moves.reshape(-1, 3)
    for part in batch.chunks(len(flat), FORWARD):
        z = _moved(x[owner[part]], flat[part], bounds)
        margins[part] = goal.take(owner[part]).margin(model(z))
    chosen = moves[torch.arange(len(x), device=x.device), margins.view(len(x), k).argmin(1)]
    still = ~chosen.any(1)
    points = torch.where(batch.column(still, x), x, _moved(x, chosen, bounds))
    return Spatial(points, judged(model, points, goal), chosen[:, 0], chosen[:, 1:])


def _moved(x: Tensor, moves: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = balls.box(bounds, x.dtype)
    return placed(x, moves[:, 0], moves[:, 1:], fill=low).clamp(low, high)
