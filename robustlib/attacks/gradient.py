"""PGD: follow the gradient of the loss with respect to the input, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.balls import BALLS, Ball
from robustlib.attacks.goal import LOSSES, Goal


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    targets: Tensor | None = None,
    loss: str = "ce",
    decay: bool = False,
    random_start: bool = True,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
    early_stop: bool = True,
) -> Tensor:
    """Projected gradient descent: repeat a step along the gradient and a projection on the ball.

    x⁰ is a random point of the ball, x^{t+1} = Π(x^t + α d(∇ₓ J(x^t, y))) with d the sign (l∞) or
    division by the length (l2) (Madry et al. 2018, equation 2.1 and below); in l1 the coordinates
    of largest gradient go to the ends of the box, one after the other. What comes back for
    each image is the best point seen, ``x`` itself included: the one of lowest margin
    logit[y] − max_{j≠y} logit[j], or with ``targets`` max_{j≠t} logit[j] − logit[t]. The attack
    has succeeded where that margin is negative.

    An image's result does not depend on the other images of the batch (but for rounding inside
    the matrix products, whose order depends on the batch size).

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode. Neither its parameters nor their
        ``grad`` and ``requires_grad`` are touched.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    eps : float
        Radius of the ball, in the unit of ``x``.
    norm : {"inf", "2", "1"}
    steps : int
        Gradient steps of each run.
    step_size : float, optional
        α, in the unit of ``x``; default 2.5 ε / ``steps``, with which the far end of the ball can
        be reached from everywhere and the point can still turn back.
    restarts : int
        Runs from different random starts; the best point of all runs counts.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    loss : {"ce", "margin"}
        What is climbed: the cross-entropy, or minus the margin.
    decay : bool
        Let the step size fall linearly: α (1 − t/steps) at step t = 0, 1, ….
    random_start : bool
        Start at a uniform point of the ball (cut to the box) instead of at ``x``.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of the random starts; default: torch's global one. One number is drawn from it for
        each image, in order, and seeds that image's own starts: they depend on the generator and
        on the place in the batch, not on the batch size or on which images are still open.
    early_stop : bool
        Leave an image alone once it is misclassified (or classified as its target). Without it
        every image takes all steps, for the lowest margin: what adversarial training wants.

    Returns
    -------
    Tensor like ``x``
        Inside the ball and the box exactly, without any tolerance.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> x, y = torch.tensor([[0.5, 0.375]]), torch.tensor([0])
    >>> pgd(model, x, y, eps=0.125, early_stop=False)
    tensor([[0.3750, 0.5000]])
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, norm)
    goal = checked.goal_of(y, targets, len(x), classes, checks.choice("loss", loss, LOSSES))
    steps, restarts = checks.count("steps", steps), checks.count("restarts", restarts)
    alpha = 2.5 * eps / steps if step_size is None else step_size
    alpha = checks.number("step_size", alpha, low=0.0, strict=step_size is not None)
    checks.generator(generator)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} without random_start repeats one run; give 1.")
    rates = [alpha * (1 - t / steps) if decay else alpha for t in range(steps)]
    seeds = batch.seeds(len(x), generator) if random_start else None
    best = x.detach().clone()
    for rows in batch.groups(x):
        starts = None if seeds is None else batch.sources(seeds[rows.cpu()])
        ball = BALLS[norm].around(best[rows], eps, bounds)
        best[rows] = _best_of_runs(
            model, best[rows], goal.take(rows), ball, rates, starts, restarts, early_stop
        )
    return best


def _best_of_runs(
    model: nn.Module,
    x: Tensor,
    goal: Goal,
    ball: Ball,
    rates: Sequence[float],
    generators: Sequence[torch.Generator] | None,
    restarts: int,
    early_stop: bool,
) -> Tensor:
    best = x.clone()
    with torch.no_grad():
        lowest = goal.margin(model(x))
    rows = torch.arange(len(x), device=x.device)
    for _ in range(restarts):
        if early_stop:
            rows = torch.nonzero(~(lowest < 0))[:, 0]
        if not len(rows):
            break
        some = ball.take(rows)
        z = x[rows] if generators is None else some.random([generators[i] for i in rows.tolist()])
        z, margin = _run(model, z, goal.take(rows), some, rates, early_stop)
        better = margin < lowest[rows]
        best[rows[better]], lowest[rows[better]] = z[better], margin[better]
    return best


def _run(
    model: nn.Module, z: Tensor, goal: Goal, ball: Ball, rates: Sequence[float], early_stop: bool
) -> tuple[Tensor, Tensor]:
    """The iterate of lowest margin of one run from ``z``, and that margin, for each image."""
    best = z.clone()
    lowest = z.new_full((len(z),), torch.inf)
    rows = torch.arange(len(z), device=z.device)  # the images still open

    def keep_better(margin: Tensor) -> None:
        better = margin < lowest[rows]
        best[rows[better]], lowest[rows[better]] = z[better], margin[better]

    for rate in rates:
        margin, gradient = goal.gradient(model, z)
        keep_better(margin)
        if early_stop and bool((margin < 0).any()):
            still = torch.nonzero(~(margin < 0))[:, 0]
            rows, z, gradient = rows[still], z[still], gradient[still]
            goal, ball = goal.take(still), ball.take(still)
            if not len(rows):
                return best, lowest
        z = ball.project(ball.step(z, gradient, rate))
    with torch.no_grad():
        keep_better(goal.margin(model(z)))
    return best, lowest
