"""APGD: projected gradient ascent whose step sizes follow from the budget and the progress."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.balls import BALLS, Ball
from robustlib.attacks.goal import Goal
from robustlib.attacks.speed import FewChannels

LOSSES = ("ce", "dlr")
PUSH = 0.75  # weight of the new step against the last one
RISES = 0.75  # share of the steps that must raise the loss, or the step length is halved


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    loss: str = "ce",
    targets: Tensor | None = None,
    steps: int = 100,
    restarts: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """PGD with momentum and without a step size to choose (Croce and Hein 2020b, algorithm 1).

    The first step has length 2ε. At fixed checkpoints, an image whose loss rose in fewer than 75 %
    of the steps, or stands where it stood, goes back to its best point with half the step length.
    The loss "dlr" divides the margin by the spread of the largest logits,

        DLR(z, y) = −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3),

    with ``targets`` −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2): unlike the cross-entropy it does not
    vanish where logits are large. Where there are too few classes for π3 or π4, the last one
    stands in, and for two classes there is no division. Steps and projections are those of
    :func:`pgd` in each norm.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    eps : float
        Radius of the ball, in the unit of ``x``.
    norm : {"inf", "2", "1"}
    loss : {"ce", "dlr"}
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    steps : int
        Gradient steps of each run.
    restarts : int
        Runs from different random starts, for the images that still stand.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of the random starts; default: torch's global one. One number is drawn from it for
        each image, which seeds that image's own.

    Returns
    -------
    Tensor like ``x``
        The best point seen, ``x`` itself included; inside the ball and the box exactly.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> x, y = torch.tensor([[0.5, 0.375]]), torch.tensor([0])
    >>> model(apgd(model, x, y, eps=0.125, steps=10))[0, 0] < 0
    tensor(True)
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, norm)
    goal = checked.goal_of(y, targets, len(x), classes)
    climb = Climb(
        checks.choice("loss", loss, LOSSES), y.long(), None if targets is None else goal.label
    )
    steps, restarts = checks.count("steps", steps), checks.count("restarts", restarts)
    seeds = batch.seeds(len(x), checks.generator(generator))
    return ascended(
        model, x.detach(), goal, climb, seeds,
        eps=eps, norm=norm, steps=steps, restarts=restarts, bounds=bounds,
    )  # fmt: skip


@dataclass(frozen=True)
class Climb:
    """What is climbed; with ``targets`` toward these labels, whatever counts as success."""

    loss: str
    y: Tensor
    targets: Tensor | None

    def take(self, rows: Tensor) -> Climb:
        targets = None if self.targets is None else self.targets[rows]
        return Climb(self.loss, self.y[rows], targets)

    def value(self, logits: Tensor) -> Tensor:
        """The loss (n,) of logits (n, classes)."""
        if self.loss == "ce":
            goal = Goal(self.y, 1) if self.targets is None else Goal(self.targets, -1)
            return goal.value(logits)
        last = logits.shape[1] - 1
        largest = logits.sort(1, descending=True).values
        if self.targets is None:
            lead = Goal(self.y, 1).margin(logits)
            spread = largest[:, 0] - largest[:, min(2, last)]
        else:
            pair = logits.gather(1, torch.stack([self.y, self.targets], 1))
            lead = pair[:, 0] - pair[:, 1]
            spread = largest[:, 0] - (largest[:, min(2, last)] + largest[:, min(3, last)]) / 2
        return -lead / (spread + torch.finfo(logits.dtype).tiny) if last > 1 else -lead


def ascended(
    model: nn.Module,
    x: Tensor,
    goal: Goal,
    climb: Climb,
    seeds: Tensor,
    *,
    eps: float,
    norm: str,
    steps: int,
    restarts: int = 1,
    bounds: tuple[float, float],
) -> Tensor:
    """The points of lowest margin of all runs; nothing is checked."""
    result = x.clone()
    for group in batch.groups(x):
        own, ball = batch.sources(seeds[group.cpu()]), BALLS[norm].around(x[group], eps, bounds)
        best, aim, ascent = x[group], goal.take(group), climb.take(group)
        with torch.no_grad():
            lowest = aim.margin(model(best))
        for _ in range(restarts):
            rows = torch.nonzero(~(lowest < 0))[:, 0]
            if not len(rows):
                break
            some = ball.take(rows)
            start = some.random(batch.each(rows, own))
            z, margin = _run(model, start, aim.take(rows), ascent.take(rows), some, steps)
            better = margin < lowest[rows]
            best[rows[better]], lowest[rows[better]] = z[better], margin[better]
        result[group] = best
    return result


@dataclass
class _State:
    """One row an image: where it is, its best point, and what decides on its step length."""

    row: Tensor
    z: Tensor
    before: Tensor
    value: Tensor
    gradient: Tensor
    top: Tensor
    top_value: Tensor
    top_gradient: Tensor
    length: Tensor
    rises: Tensor
    halved: Tensor
    checked_value: Tensor

    def take(self, rows: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[rows] for field in fields(self)))


def _run(
    model: nn.Module, z: Tensor, goal: Goal, climb: Climb, ball: Ball, steps: int
) -> tuple[Tensor, Tensor]:
    """The iterate of lowest margin of one run from ``z``, and that margin, for each image."""
    best, (margin, value, gradient) = z.clone(), _evaluate(model, z, goal, climb)
    lowest = margin.clone()
    zero = torch.zeros_like(value)
    s = _State(
        torch.arange(len(z), device=z.device), z, z, value, gradient, z, value, gradient,
        zero + 2 * ball.eps, zero, zero.bool(), value,
    )  # fmt: skip
    last, at = 0, _checkpoints(steps)
    for t in range(steps):
        still = torch.nonzero(~(lowest[s.row] < 0))[:, 0]
        if len(still) < len(s.row):
            s, goal, climb, ball = (
                s.take(still),
                goal.take(still),
                climb.take(still),
                ball.take(still),
            )
        if not len(still):
            break
        moved = ball.project(ball.step(s.z, s.gradient, s.length))
        if t:
            moved = ball.project(s.z + PUSH * (moved - s.z) + (1 - PUSH) * (s.z - s.before))
        s.before, s.z = s.z, moved
        margin, value, s.gradient = _evaluate(model, s.z, goal, climb)
        s.rises, s.value = s.rises + (value > s.value), value
        lower = margin < lowest[s.row]
        best[s.row[lower]], lowest[s.row[lower]] = s.z[lower], margin[lower]
        higher = value > s.top_value
        _keep(s, higher)
        if t + 1 in at:
            _adapt(s, t + 1 - last)
            last = t + 1
    return best, lowest


def _evaluate(
    model: nn.Module, z: Tensor, goal: Goal, climb: Climb
) -> tuple[Tensor, Tensor, Tensor]:
    """Margins, losses and the gradient of each image's loss with respect to it."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        with FewChannels():
            logits = model(z)
        value = climb.value(logits)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return goal.margin(logits.detach()), value.detach(), torch.nan_to_num(gradient)


def _keep(s: _State, higher: Tensor) -> None:
    """Remember the point of highest loss."""
    wide = batch.column(higher, s.z)
    s.top = torch.where(wide, s.z, s.top)
    s.top_gradient = torch.where(wide, s.gradient, s.top_gradient)
    s.top_value = torch.where(higher, s.value, s.top_value)


def _adapt(s: _State, steps: int) -> None:
    """Halve the step length where the last ``steps`` brought too little, and go back to the top."""
    flat = ~s.halved & (s.top_value <= s.checked_value)
    s.halved = (s.rises < RISES * steps) | flat
    s.length = torch.where(s.halved, s.length / 2, s.length)
    wide = batch.column(s.halved, s.z)
    s.z = torch.where(wide, s.top, s.z)
    s.gradient = torch.where(wide, s.top_gradient, s.gradient)
    s.value = torch.where(s.halved, s.top_value, s.value)
    s.checked_value, s.rises = s.top_value, torch.zeros_like(s.rises)


def _checkpoints(steps: int) -> set[int]:
    """After 22 % of the steps, then at intervals that shrink by 3 % down to 6 %.

    >>> sorted(_checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0, 22]
    while shares[-1] < 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    return {-(-share * steps // 100) for share in shares[1:] if share <= 100}
