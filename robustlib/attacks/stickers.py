"""Stickers that fool a network from many views: expectation over transformations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.goal import Goal
from robustlib.attacks.placement import placed


@dataclass(frozen=True)
class Views:
    """How an object may be seen: every number is the end of a uniform range around no change.

    Attributes
    ----------
    degrees : largest rotation, either way.
    pixels : largest shift, in each direction.
    scale : largest relative change of size, below 1.
    light : largest change of brightness, added to all values, in the unit of x.
    """

    degrees: float = 15.0
    pixels: float = 2.0
    scale: float = 0.1
    light: float = 0.1

    def __post_init__(self) -> None:
        checks.number("degrees", self.degrees, low=0.0, high=180.0)
        checks.number("pixels", self.pixels, low=0.0)
        checks.number("scale", self.scale, low=0.0, high=0.99)
        checks.number("light", self.light, low=0.0)

    def of(
        self, x: Tensor, sources: list[torch.Generator], samples: int, bounds: tuple[float, float]
    ) -> Tensor:
        """Random views (n, samples, channels, height, width), differentiable in ``x``."""
        unit = batch.drawn(sources, lambda g: 2 * torch.rand(samples, 5, generator=g) - 1, x)
        unit = unit.to(x.dtype).view(len(x) * samples, 5)
        low, high = balls.box(bounds, x.dtype)
        seen = placed(
            x.repeat_interleave(samples, 0),
            self.degrees * unit[:, 0],
            self.pixels * unit[:, 1:3],
            scale=1 + self.scale * unit[:, 3],
            fill=low,
        )
        seen = (seen + self.light * unit[:, 4, None, None, None]).clamp(low, high)
        return seen.view(len(x), samples, *x.shape[1:])


def sticker(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    mask: Tensor,
    views: Views | None = None,
    targets: Tensor | None = None,
    samples: int = 8,
    steps: int = 100,
    rate: float = 0.1,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Paint the pixels of ``mask`` so that the label is wrong from many views.

    Maximizes the mean over random views V of the loss of V((1 − m) x + m s), the sticker s free
    inside the box: expectation over transformation (Athalye et al. 2018) on a mask, as for the
    stop sign of Eykholt et al. (2018), equation 2, without their term for printable colors. Each
    step follows the sign of a gradient averaged over ``samples`` new views.

    One sticker is made for each image; it does not depend on the other images of the batch. Judge
    it by :func:`fooled_views`, on views that it has not seen.

    Parameters
    ----------
    model : nn.Module
        Maps (n, channels, height, width) to logits (n, classes); in evaluation mode.
    x : Tensor (n, channels, height, width), float32 or float64
        Images inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    mask : Tensor of bool (height, width) or (n, height, width)
        Where the sticker is.
    views : Views, optional
        The random transformations; default ``Views()``.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    samples : int
        Views of each image in a step.
    steps : int
        Gradient steps.
    rate : float
        First step length, in the unit of ``x``; it falls linearly to 0.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of the views and of the first sticker; default: torch's global one. One number is
        drawn from it for each image, which seeds that image's own.

    Returns
    -------
    Tensor like ``x``
        Inside the box; equal to ``x`` outside of the mask.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    >>> model[1].weight.data = torch.stack([torch.zeros(16), torch.ones(16)])
    >>> model[1].bias.data = torch.tensor([0.6, 0.0])
    >>> mask = torch.zeros(4, 4, dtype=torch.bool)
    >>> mask[1:3, 1:3] = True
    >>> x, y = torch.zeros(1, 1, 4, 4), torch.tensor([0])
    >>> z = sticker(model, x, y, mask=mask, steps=20, generator=torch.Generator().manual_seed(0))
    >>> (z[0, 0] > 0.5).equal(mask), float(fooled_views(model, z, y)[0])
    (True, 1.0)
    """
    goal = _check(model, x, y, targets, bounds)
    views = _views(views)
    mask = _mask(mask, x)
    samples, steps = checks.count("samples", samples), checks.count("steps", steps)
    rate = checks.number("rate", rate, low=0.0, strict=True)
    sources = batch.sources(batch.seeds(len(x), checks.generator(generator)))
    low, high = balls.box(bounds, x.dtype)
    x = x.detach()
    paint = batch.drawn(sources, lambda g: torch.rand(x.shape[1:], generator=g), x).to(x.dtype)
    z = torch.where(mask, low + (high - low) * paint, x).clamp(low, high)
    size = max(1, batch.GROUP // samples) if x.device.type == "cpu" else max(1, len(x))
    for rows in torch.arange(len(x), device=x.device).split(size):
        some, own, hidden, aim = z[rows], batch.each(rows, sources), mask[rows], goal.take(rows)
        for t in range(steps):
            with torch.enable_grad():
                some = some.requires_grad_(True)
                seen = views.of(some, own, samples, bounds).flatten(0, 1)
                loss = aim.repeated(samples).value(model(seen))
                (gradient,) = torch.autograd.grad(loss.sum(), some)
            move = rate * (1 - t / steps) * gradient.sign() * hidden
            some = (some.detach() + move).clamp(low, high)
        z[rows] = some
    return z


@torch.no_grad()
def fooled_views(
    model: nn.Module,
    points: Tensor,
    y: Tensor,
    *,
    views: Views | None = None,
    targets: Tensor | None = None,
    samples: int = 100,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """The share of random views in which ``model`` is fooled, for each point.

    Parameters
    ----------
    model, y, views, targets, bounds, generator
        As in :func:`sticker`.
    points : Tensor (n, channels, height, width)
        Images, with a sticker or without.
    samples : int
        Views of each.

    Returns
    -------
    Tensor (n,) in [0, 1]

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    >>> model[1].weight.data, model[1].bias.data = torch.zeros(2, 16), torch.tensor([1.0, 0.0])
    >>> fooled_views(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
    tensor([0., 1.])
    """
    goal = _check(model, points, y, targets, bounds, "points")
    views, samples = _views(views), checks.count("samples", samples)
    sources = batch.sources(batch.seeds(len(points), checks.generator(generator)))
    share = points.new_empty(len(points))
    for i in range(len(points)):
        seen = views.of(points[i : i + 1], sources[i : i + 1], samples, bounds)[0]
        aim = goal.take(torch.full((samples,), i, device=points.device))
        share[i] = (aim.margin(model(seen)) < 0).to(share.dtype).mean()
    return share


def _check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    targets: Tensor | None,
    bounds: tuple[float, float],
    argument: str = "x",
) -> Goal:
    classes = checked.classes_of(model, x, bounds, argument)
    checked.pictures(x, argument)
    return checked.goal_of(y, targets, len(x), classes)


def _views(views: Views | None) -> Views:
    if views is not None and not isinstance(views, Views):
        raise TypeError(f"views is a {type(views).__name__}; give attacks.Views(degrees=...).")
    return views or Views()


def _mask(mask: Tensor, x: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask is of {kind}; give a tensor of bool, (height, width).")
    n, _, height, width = x.shape
    if mask.shape not in ((height, width), (n, height, width)):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; for x of shape {tuple(x.shape)} give "
            f"{(height, width)} or {(n, height, width)}."
        )
    return (mask.expand(n, height, width) if mask.ndim == 2 else mask)[:, None].to(x.device)
