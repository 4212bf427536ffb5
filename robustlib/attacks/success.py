"""Whether an attack succeeded: judged on what it returned, by the model itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib.attacks import batch, checked
from robustlib.attacks.goal import Goal


def fooled(
    model: nn.Module,
    points: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Whether ``model`` gives each point a label other than ``y``, or the label in ``targets``.

    A tie of two logits counts as a failure of the attack.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    points : Tensor (n, …), float32 or float64
        What an attack returned, inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    targets : Tensor (n,), integers, optional
        Labels that were to be reached, none equal to the true one.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Tensor (n,) of bool

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> fooled(model, torch.tensor([[0.2, 0.7], [0.7, 0.2]]), torch.tensor([0, 0]))
    tensor([ True, False])
    """
    classes = checked.classes_of(model, points, bounds, "points")
    return judged(model, points, checked.goal_of(y, targets, len(points), classes))


def judged(model: nn.Module, points: Tensor, goal: Goal) -> Tensor:
    """Whether each point reaches the goal, in the model's own forward pass."""
    return margins(model, points, goal) < 0


@torch.no_grad()
def margins(model: nn.Module, points: Tensor, goal: Goal) -> Tensor:
    """The goal's margins (n,), negative where it is reached."""
    result = points.new_empty(len(points))
    for rows in batch.groups(points):
        result[rows] = goal.take(rows).margin(model(points[rows]))
    return result
