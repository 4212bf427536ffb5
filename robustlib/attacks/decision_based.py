"""HopSkipJump: walk along the decision boundary, knowing labels only."""

from __future__ import annotations

import math
from contextlib import suppress

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.goal import Goal
from robustlib.attacks.queries import Queried
from robustlib.attacks.success import judged

NOISES = 100  # random images that are tried for a start
SAMPLES = 100  # directions of the first estimate; √t times as many in round t
LARGEST = 10_000  # directions of any estimate
COARSEST = 1e-3


def hop_skip_jump(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    queries: int = 2000,
    targets: Tensor | None = None,
    starts: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Queried:
    """A near misclassified point in l2, from labels alone (Chen, Jordan and Wainwright 2020).

    From a misclassified start the attack goes straight toward ``x`` up to the decision boundary.
    There it estimates the direction into the wrong region as the mean of random directions, each
    with the sign of the answer; goes that way by a step that is halved until the point is
    misclassified; and toward ``x`` again (algorithm 2 of the paper).

    Images are attacked one after the other: a result does not depend on the others of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode. Only its labels are used.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    queries : int
        Most inputs that the model is asked about, for each image. The first is ``x`` itself.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    starts : Tensor like ``x``, optional
        Misclassified inputs (or ones with the target label), such as images of other classes;
        default: uniform noise, tried up to 100 times, which seldom has a given label.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of randomness; default: torch's global one. One number is drawn from it for each
        image, which seeds that image's own.

    Returns
    -------
    Queried
        The nearest misclassified points found, and ``x`` itself where there was no start.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    The nearest point with another label lies across the line x₁ = x₂, 0.28 away:

    >>> model = nn.Linear(2, 2).eval()
    >>> model.weight.data, model.bias.data = torch.eye(2), torch.zeros(2)
    >>> x, y = torch.tensor([[0.7, 0.3]]), torch.tensor([0])
    >>> found = hop_skip_jump(model, x, y, generator=torch.Generator().manual_seed(0))
    >>> f"{float((found.points - x).norm()):.2f}", int(found.queries[0]) <= 2000
    ('0.28', True)
    """
    classes = checked.classes_of(model, x, bounds)
    goal = checked.goal_of(y, targets, len(x), classes)
    queries = checks.count("queries", queries)
    if starts is not None:
        checks.images(starts, "starts", bounds=bounds)
        if starts.shape != x.shape or starts.dtype != x.dtype:
            raise ValueError(
                f"starts has shape {tuple(starts.shape)} and {starts.dtype}; give one for each "
                f"input: {tuple(x.shape)}, {x.dtype}."
            )
    sources = batch.sources(batch.seeds(len(x), checks.generator(generator)))
    result, used = x.detach().clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)
    for i in range(len(x)):
        walk = _Walk(model, result[i], goal.take(torch.tensor([i])), queries, bounds, sources[i])
        with suppress(_SpentError):
            walk.go(None if starts is None else starts[i])
        result[i], used[i] = walk.best, queries - walk.left
    return Queried(result, judged(model, result, goal), used)


class _SpentError(Exception):
    """No query is left."""


class _Walk:
    """One image: what is known of it and how many queries are left."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        goal: Goal,
        queries: int,
        bounds: tuple[float, float],
        source: torch.Generator,
    ) -> None:
        self.model, self.x, self.goal, self.left, self.source = model, x, goal, queries, source
        self.low, self.high = balls.box(bounds, x.dtype)
        self.best, self.nearest = x, math.inf
        # Of the place of the boundary, as a share of the way; the paper's, but for few dimensions.
        self.precision = min(COARSEST, x.numel() ** -1.5)

    @torch.no_grad()
    def ask(self, points: Tensor) -> Tensor:
        """Whether each of the points has a wrong label; the nearest of them is kept.

        A tie within rounding is not wrong yet.
        """
        if len(points) > self.left:
            raise _SpentError
        self.left -= len(points)
        rows = torch.zeros(len(points), dtype=torch.long, device=points.device)
        wrong = self.goal.take(rows).won(self.model(points))
        if bool(wrong.any()):
            distances = (points[wrong] - self.x).flatten(1).norm(dim=1)
            nearest = int(distances.argmin())
            if float(distances[nearest]) < self.nearest:
                self.best, self.nearest = points[wrong][nearest], float(distances[nearest])
        return wrong

    def go(self, start: Tensor | None) -> None:
        if bool(self.ask(self.x[None])):
            return
        z = self._start() if start is None else start
        if z is None or (start is not None and not bool(self.ask(z[None]))):
            return
        way = float((z - self.x).norm())
        z, reach = self._toward(z), 0.1 * way
        t = 1
        while True:
            direction = self._direction(z, reach, round(SAMPLES * math.sqrt(t)))
            step = float((z - self.x).norm()) / math.sqrt(t)
            moved = self._cut(z + step * direction)
            while not bool(self.ask(moved[None])):
                step /= 2
                if step < 1e-9 * way:
                    moved = z
                    break
                moved = self._cut(z + step * direction)
            way = float((moved - self.x).norm())
            z = self._toward(moved)
            reach = math.sqrt(self.x.numel()) * self.precision * way
            t += 1

    def _cut(self, z: Tensor) -> Tensor:
        return z.clamp(self.low, self.high)

    def _start(self) -> Tensor | None:
        for _ in range(NOISES):
            unit = torch.rand(self.x.shape, dtype=self.x.dtype, generator=self.source)
            z = self._cut(self.low + (self.high - self.low) * unit.to(self.x.device))
            if bool(self.ask(z[None])):
                return z
        return None

    def _toward(self, z: Tensor) -> Tensor:
        """The last misclassified point on the way from ``z`` to the image, by halving."""
        inside, outside = 0.0, 1.0  # shares of the way from the image to z
        kept = z
        while outside - inside > self.precision:
            middle = (inside + outside) / 2
            point = self._cut(self.x + middle * (z - self.x))
            if bool(self.ask(point[None])):
                outside, kept = middle, point
            else:
                inside = middle
        return kept

    def _direction(self, z: Tensor, reach: float, samples: int) -> Tensor:
        """Where the wrong region lies, of length 1: random directions by the sign of the answer."""
        samples = min(samples, LARGEST, self.left)
        if samples < 1:
            raise _SpentError
        shape = (samples, *self.x.shape)
        noise = torch.randn(shape, dtype=self.x.dtype, generator=self.source).to(self.x.device)
        noise = noise / batch.column(noise.flatten(1).norm(dim=1), noise)
        points = self._cut(z + reach * noise)
        noise = (points - z) / reach
        answer = 2 * self.ask(points).to(self.x.dtype) - 1
        if abs(float(answer.mean())) < 1:
            answer = answer - answer.mean()  # less variance (section III-C)
        mean = (batch.column(answer, noise) * noise).mean(0)
        return mean / mean.norm().clamp_min(1e-30)
