"""The Square attack: random search with the scores of a model and no gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.balls import BALLS, Ball
from robustlib.attacks.goal import Goal
from robustlib.attacks.queries import Queried
from robustlib.attacks.squares import SHARE, Squares
from robustlib.attacks.success import judged

BLOCK = 100  # queries for which random numbers are drawn at a time


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    queries: int = 5000,
    share: float = SHARE,
    targets: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Queried:
    """Change one square at a time and keep what lowers the margin (Andriushchenko et al. 2020).

    In l∞ the attack starts from vertical stripes of ±ε and then paints squares at random places,
    each channel at +ε or −ε from the image. In l2 and l1 it moves perturbation: what two windows
    hold, and what is left of ε, goes into the first of them, in a random sign and shaped like two
    pyramids. Squares shrink as queries are used up. Inputs that are not images count as one column
    of pixels.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode. Only its outputs are used.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    eps : float
        Radius of the ball, in the unit of ``x``.
    norm : {"inf", "2", "1"}
    queries : int
        Most inputs that the model is asked about, for each image. The first is ``x`` itself.
    share : float
        The share of pixels in the first squares, above 0 and at most 1.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of randomness; default: torch's global one. One number is drawn from it for each
        image, which seeds that image's own.

    Returns
    -------
    Queried
        The points of lowest margin, ``x`` itself included; inside the ball and the box exactly.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> found = square(model, torch.tensor([[0.5, 0.4]]), torch.tensor([0]), eps=0.1, queries=50)
    >>> found.success.tolist(), int(found.queries[0]) <= 50
    ([True], True)
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, norm)
    goal = checked.goal_of(y, targets, len(x), classes)
    queries = checks.count("queries", queries)
    share = checks.number("share", share, low=0.0, high=1.0, strict=True)
    seeds = batch.seeds(len(x), checks.generator(generator))
    points, used = searched(
        model, x.detach(), goal, seeds,
        eps=eps, norm=norm, queries=queries, share=share, bounds=bounds,
    )  # fmt: skip
    return Queried(points, judged(model, points, goal), used)


def searched(
    model: nn.Module,
    x: Tensor,
    goal: Goal,
    seeds: Tensor,
    *,
    eps: float,
    norm: str,
    queries: int,
    share: float = SHARE,
    bounds: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """The points of lowest margin and the queries they took; nothing is checked."""
    best, used = x.clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)
    for rows in batch.groups(x):
        ball = BALLS[norm].around(x[rows], eps, bounds)
        squares = Squares.on(x[rows], eps, norm, share)
        sources = batch.sources(seeds[rows.cpu()])
        best[rows], used[rows] = _search(
            model, x[rows], goal.take(rows), ball, squares, sources, queries
        )
    return best, used


@torch.no_grad()
def _search(
    model: nn.Module,
    x: Tensor,
    goal: Goal,
    ball: Ball,
    squares: Squares,
    sources: list[torch.Generator],
    queries: int,
) -> tuple[Tensor, Tensor]:
    """The points of lowest margin of one group, and the queries that each image took."""
    best, lowest = x.clone(), goal.margin(model(x))
    used = torch.ones(len(x), dtype=torch.long, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    current, level = x, torch.full_like(lowest, torch.inf)  # where the search stands
    numbers = x.new_empty(len(x), 0)
    for query in range(1, queries):
        still = torch.nonzero(~(lowest[rows] < 0))[:, 0]
        if len(still) < len(rows):
            rows, current, level, numbers = (v[still] for v in (rows, current, level, numbers))
            goal, ball = goal.take(still), ball.take(still)
        if not len(rows):
            break
        own = batch.each(rows, sources)
        if query == 1:
            shift = squares.first(own)
        else:
            turn = (query - 2) % BLOCK
            if turn == 0:
                numbers = squares.numbers(own, BLOCK)
            shift = squares.changed(current - ball.center, (query - 2) / queries, numbers[:, turn])
        z = ball.project(ball.center + shift)
        margin = goal.margin(model(z))
        used[rows] += 1
        better = margin < level
        current = torch.where(batch.column(better, z), z, current)
        level = torch.where(better, margin, level)
        lower = margin < lowest[rows]
        best[rows[lower]], lowest[rows[lower]] = z[lower], margin[lower]
    return best, used
