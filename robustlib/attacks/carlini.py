"""The attack of Carlini and Wagner: the nearest adversarial example in l2, image by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.adam import Adam
from robustlib.attacks.goal import Goal
from robustlib.attacks.speed import FewChannels
from robustlib.attacks.success import judged

# The ends of the box are at tanh w = ±EDGE: where the slope is too small, black and white pixels
# would hardly move.
EDGE = 0.999
END = math.atanh(EDGE)
# A weight is large enough if its descent ends among adversarial examples: not if its first, long
# steps came past one.
LATE = 0.9


def carlini_wagner(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None = None,
    confidence: float = 0.0,
    steps: int = 200,
    rate: float = 0.1,
    searches: int = 9,
    weight: float = 1e-2,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """The nearest misclassified point in l2 that Adam finds (Carlini and Wagner 2017, section VI).

    Minimizes ‖x' − x‖² + c max(m(x'), −κ) over w, where x' = ½(tanh w + 1) never leaves the box,
    and the margin m = logit[y] − max_{j≠y} logit[j], or with ``targets``
    max_{j≠t} logit[j] − logit[t], is negative at an adversarial example. The weight c is searched
    for each image: ten times larger until a descent ends at an adversarial example, then halving
    the interval between the largest that failed and the smallest that succeeded. Other than in the
    paper, the step length falls along each descent, so that it ends close to the boundary.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    confidence : float
        κ, in the unit of the logits: the margin that must be won.
    steps : int
        Gradient steps for each weight.
    rate : float
        Adam's first step length in w; it falls linearly to 0.
    searches : int
        Weights that are tried for each image.
    weight : float
        The first c, in the squared unit of ``x`` over that of the logits.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Tensor like ``x``
        The nearest adversarial example found, and ``x`` itself where none was found.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    The nearest point with another label lies across the line x₁ = x₂:

    >>> model = nn.Linear(2, 2).eval()
    >>> model.weight.data, model.bias.data = torch.eye(2), torch.zeros(2)
    >>> carlini_wagner(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0])).round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    classes = checked.classes_of(model, x, bounds)
    goal = checked.goal_of(y, targets, len(x), classes)
    confidence = checks.number("confidence", confidence, low=0.0)
    rate = checks.number("rate", rate, low=0.0, strict=True)
    weight = checks.number("weight", weight, low=0.0, strict=True)
    steps, searches = checks.count("steps", steps), checks.count("searches", searches)
    result = x.detach().clone()
    for rows in batch.groups(x):
        some, aim = result[rows], goal.take(rows)
        search = _Search(model, some, aim, confidence, steps, rate, bounds)
        found = search.nearest(searches, weight)
        # An optimum is nearly a tie: the model itself has the last word.
        kept = judged(model, found, aim)
        result[rows] = torch.where(batch.column(kept, found), found, some)
    return result


class _Search:
    """The images of one group, and what is common to all weights."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        goal: Goal,
        confidence: float,
        steps: int,
        rate: float,
        bounds: tuple[float, float],
    ) -> None:
        self.model, self.x, self.goal = model, x, goal
        self.confidence, self.steps, self.rate = confidence, steps, rate
        self.low, self.high = balls.box(bounds, x.dtype)
        with torch.no_grad():
            margin = goal.margin(model(x))
        self.open = torch.nonzero(~((margin < 0) & (margin <= -confidence)))[:, 0]
        self.best, self.nearest_yet = x.clone(), x.new_full((len(x),), torch.inf)

    def nearest(self, searches: int, weight: float) -> Tensor:
        weights = self.x.new_full((len(self.x),), weight)
        failed, worked = torch.zeros_like(weights), torch.full_like(weights, torch.inf)
        for _ in range(searches):
            success = self._run(weights)
            worked = torch.where(success, torch.minimum(worked, weights), worked)
            failed = torch.where(success, failed, torch.maximum(failed, weights))
            weights = torch.where(worked.isinf(), 10 * weights, (failed + worked) / 2)
        return self.best

    def _point(self, w: Tensor) -> Tensor:
        z = self.low + (self.high - self.low) * (w.tanh() / EDGE + 1) / 2
        return z + (z.clamp(self.low, self.high) - z).detach()  # rounding must not end the slope

    def _run(self, weights: Tensor) -> Tensor:
        """One descent for each image; whether it ended among adversarial examples."""
        rows, success = self.open, torch.zeros_like(weights, dtype=torch.bool)
        x, goal, weight = self.x[rows], self.goal.take(rows), weights[rows]
        w = ((2 * (x - self.low) / (self.high - self.low) - 1) * EDGE).atanh()
        adam = Adam.start(w)
        for t in range(self.steps if len(rows) else 0):
            with torch.enable_grad():
                w = w.detach().requires_grad_(True)
                z = self._point(w)
                with FewChannels():
                    logits = self.model(z)
                margin = goal.margin(logits)
                distance = (z - x).flatten(1).square().sum(1)
                value = distance + weight * (margin + self.confidence).clamp_min(0)
                (gradient,) = torch.autograd.grad(value.sum(), w)
            w, z, distance = w.detach(), z.detach(), distance.detach()
            won = goal.won(logits.detach()) & (margin.detach() <= -self.confidence)
            if t >= LATE * self.steps:
                success[rows[won]] = True
            nearer = won & (distance < self.nearest_yet[rows])
            self.best[rows[nearer]] = z[nearer]
            self.nearest_yet[rows[nearer]] = distance[nearer]
            move, adam = adam.step(gradient, self.rate * (1 - t / self.steps))
            w = (w + move).clamp(-END, END)
        return success
