"""Attacks that minimize the distance plus a penalty: how a label is bought with distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.adam import Adam
from robustlib.attacks.goal import Goal
from robustlib.attacks.speed import FewChannels

PENALTIES = ("ce", "squared")


def penalty(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    weight: float,
    loss: str = "ce",
    targets: Tensor | None = None,
    steps: int = 300,
    rate: float = 0.02,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Minimize the squared distance to ``x`` plus ``weight`` times a penalty for the label.

    One of three objectives, with F(x') the vector of probabilities, q the true label and T the
    target:

    * ‖x' − x‖² + λ ‖F(x') − T‖² (``targets`` and ``loss="squared"``, T a unit vector),
    * ‖x' − x‖² + λ CE(T, F(x')) (``targets``),
    * ‖x' − x‖² − λ CE(q, F(x')) (no ``targets``).

    λ decides between near and wrong, and no λ suits all images: :func:`carlini_wagner` searches
    one for each. What comes back is the point of lowest objective, ``x`` itself included, whether
    it is misclassified or not.

    The descent is Adam's from ``x``, cut to the box after each step. An image's result does not
    depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    weight : float
        λ, above 0, in the squared unit of ``x``.
    loss : {"ce", "squared"}
        The penalty; "squared" needs ``targets``.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: away from the true one.
    steps : int
        Gradient steps.
    rate : float
        Adam's first step length, in the unit of ``x``; it falls linearly to 0.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Tensor like ``x``
        Inside the box.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[4.0, -4.0], [0.0, 0.0]])
    >>> x, y = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
    >>> for weight in (0.001, 0.1):
    ...     z = penalty(model, x, y, weight=weight)
    ...     print(float((z - x).norm()) < 0.01, int(model(z).argmax()))
    True 0
    False 1
    """
    classes = checked.classes_of(model, x, bounds)
    goal = checked.goal_of(y, targets, len(x), classes)
    weight = checks.number("weight", weight, low=0.0, strict=True)
    rate = checks.number("rate", rate, low=0.0, strict=True)
    steps = checks.count("steps", steps)
    checks.choice("loss", loss, PENALTIES)
    if loss == "squared" and targets is None:
        raise ValueError("loss='squared' needs the labels to reach: give targets, or loss='ce'.")
    result = x.detach().clone()
    for rows in batch.groups(x):
        result[rows] = _descend(
            model, result[rows], goal.take(rows), weight, loss, steps, rate, bounds
        )
    return result


def _descend(
    model: nn.Module,
    x: Tensor,
    goal: Goal,
    weight: float,
    loss: str,
    steps: int,
    rate: float,
    bounds: tuple[float, float],
) -> Tensor:
    low, high = balls.box(bounds, x.dtype)
    best, lowest = x.clone(), x.new_full((len(x),), torch.inf)
    z, adam = x, Adam.start(x)
    for t in range(steps + 1):
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            with FewChannels():
                logits = model(z)
            value = (z - x).flatten(1).square().sum(1) + weight * _penalty(logits, goal, loss)
            (gradient,) = torch.autograd.grad(value.sum(), z)
        z, value = z.detach(), value.detach()
        better = value < lowest
        best[better], lowest[better] = z[better], value[better]
        move, adam = adam.step(gradient, rate * (1 - t / (steps + 1)))
        z = (z + move).clamp(low, high)
    return best


def _penalty(logits: Tensor, goal: Goal, loss: str) -> Tensor:
    if loss == "ce":
        return -goal.sign * F.cross_entropy(logits, goal.label, reduction="none")
    wanted = F.one_hot(goal.label, logits.shape[1])
    return (logits.softmax(1) - wanted).square().sum(1)
