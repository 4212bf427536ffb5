"""FGSM and R+FGSM: one step along the gradient of the loss with respect to the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.balls import BALLS
from robustlib.attacks.goal import Goal


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    targeted: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Take one step of length ``eps`` along the gradient of the cross-entropy.

    In the l∞ norm this is the fast gradient sign method, x' = x + ε sign(∇ₓ J(x, y)) (Goodfellow,
    Shlens and Szegedy 2015); in the l2 norm the gradient is divided by its length instead, and in
    the l1 norm the coordinates of largest gradient go to the ends of the box until ε is used up.
    The step is exact for a linear model (in l2 only where it does not leave the box).

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels; with ``targeted`` the labels to reach.
    eps : float
        Radius of the ball, in the unit of ``x``.
    norm : {"inf", "2", "1"}
    targeted : bool
        Go toward ``y`` instead of away from it.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Tensor like ``x``
        Inside the ball and the box exactly.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> fgsm(model, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), eps=0.25)
    tensor([[0.2500, 0.7500]])
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, norm)
    goal = Goal(checks.labels(y, len(x), classes), -1 if targeted else 1)
    ball = BALLS[norm].around(x.detach(), eps, bounds)
    _, gradient = goal.gradient(model, x)
    return ball.project(ball.step(x.detach(), gradient, eps))


def r_fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    start: float | None = None,
    targeted: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """R+FGSM: a random step in the l∞ ball first, then FGSM with what is left of ``eps``.

    x' = x + α sign(N(0, I)), then x' + (ε − α) sign(∇ J(x', y)) (Tramèr et al. 2018, section 3.3):
    away from ``x``, where a network trained on FGSM has learned to hide its gradient.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model, x, y, eps, targeted, bounds
        As in :func:`fgsm`, in the l∞ norm.
    start : float, optional
        α, at most ε; default ε/2.
    generator : torch.Generator, optional
        Source of the random signs; default: torch's global one. One number is drawn from it for
        each image, which seeds that image's own.

    Returns
    -------
    Tensor like ``x``
        Inside the ball and the box exactly.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> r_fgsm(model, x, y, eps=0.25, start=0.0)
    tensor([[0.2500, 0.7500]])
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, "inf")
    goal = Goal(checks.labels(y, len(x), classes), -1 if targeted else 1)
    alpha = checks.number("start", eps / 2 if start is None else start, low=0.0, high=eps)
    checks.generator(generator)
    ball = BALLS["inf"].around(x.detach(), eps, bounds)
    own = batch.sources(batch.seeds(len(x), generator))
    signs = batch.drawn(own, lambda g: torch.randn(x.shape[1:], generator=g).sign(), x)
    z = ball.project(x.detach() + alpha * signs.to(x.dtype))
    _, gradient = goal.gradient(model, z)
    return ball.project(ball.step(z, gradient, eps - alpha))
