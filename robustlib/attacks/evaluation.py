"""Robust accuracy by several attacks, none of which has anything to tune."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.auto_pgd import Climb, ascended
from robustlib.attacks.goal import Goal
from robustlib.attacks.score_based import searched
from robustlib.attacks.success import judged

STAGES = ("clean", "apgd-ce", "apgd-dlr", "square")
MOST_TARGETS = 9


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What still stands after all attacks.

    Attributes
    ----------
    points : like x, inside the ball and the box exactly; where nothing was found, x itself.
    robust : (n,) bool, whether the label is right and no attack changed it. That is no proof.
    broken_by : for each image the first of ``STAGES`` that it fell to, or "".
    """

    points: Tensor
    robust: Tensor
    broken_by: tuple[str, ...]

    @property
    def standing(self) -> dict[str, int]:
        """How many images stand after each stage.

        Where "square" still fells some, gradients hide what a search without them finds: gradient
        masking.
        """
        left = {}
        for k, stage in enumerate(STAGES):
            fallen = sum(self.broken_by.count(earlier) for earlier in STAGES[: k + 1])
            left[stage] = len(self.broken_by) - fallen
        return left


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 100,
    queries: int = 5000,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Attack with three attacks in turn, each only what the ones before left standing.

    In the spirit of AutoAttack (Croce and Hein 2020b): APGD on the cross-entropy; APGD on the
    difference-of-logits ratio toward each of the nine most likely other labels; and the Square
    attack, which needs no gradients. None has a parameter to choose for the model at hand, and
    each finds what another misses where gradients vanish or mislead. The share of robust images is
    an upper bound of the true one.

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
    steps, queries : int
        The effort: of each run of APGD, and of the Square attack. The defaults are AutoAttack's;
        fewer are for quick looks, not for numbers to report.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of randomness; default: torch's global one. One number is drawn from it for each
        image, which seeds that image's own.

    Returns
    -------
    Evaluation

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> model = nn.Linear(2, 2).eval()
    >>> model.weight.data, model.bias.data = torch.eye(2), torch.zeros(2)
    >>> x, y = torch.tensor([[0.4, 0.5], [0.55, 0.5], [0.9, 0.1]]), torch.tensor([0, 0, 0])
    >>> found = evaluate(model, x, y, eps=0.1, queries=100)
    >>> found.robust.tolist(), found.broken_by
    ([False, False, True], ('clean', 'apgd-ce', ''))
    """
    classes, eps = checked.classes_of(model, x, bounds), checked.radius(eps, norm)
    y = checks.labels(y, len(x), classes)
    steps, queries = checks.count("steps", steps), checks.count("queries", queries)
    checks.generator(generator)
    goal, points = Goal(y, 1), x.detach().clone()
    targets = _likely(model, points, goal, min(MOST_TARGETS, classes - 1))
    runs = 2 + targets.shape[1]
    seeds = batch.drawn(
        batch.sources(batch.seeds(len(x), generator)),
        lambda g: torch.randint(2**62, (runs,), generator=g),
        y,
    )

    broken_by = [""] * len(x)
    standing = torch.arange(len(x), device=x.device)

    def pass_on(stage: str, found: Tensor) -> Tensor:
        """Keep what an attack found, and name who still stands."""
        wrong = judged(model, found, goal.take(standing))
        points[standing[wrong]] = found[wrong]
        for i in standing[wrong].tolist():
            broken_by[i] = stage
        return standing[~wrong]

    standing = pass_on("clean", points)
    for run in range(runs):
        some, aim, own = points[standing], goal.take(standing), seeds[standing.cpu(), run]
        if run == runs - 1:
            found, _ = searched(
                model, some, aim, own, eps=eps, norm=norm, queries=queries, bounds=bounds
            )
            stage = "square"
        else:
            toward = targets[standing, run - 1] if run else None
            climb = Climb("dlr" if run else "ce", aim.label, toward)
            found = ascended(
                model, some, aim, climb, own, eps=eps, norm=norm, steps=steps, bounds=bounds
            )
            stage = "apgd-dlr" if run else "apgd-ce"
        standing = pass_on(stage, found)
    robust = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    robust[standing] = True
    return Evaluation(points, robust, tuple(broken_by))


@torch.no_grad()
def _likely(model: nn.Module, x: Tensor, goal: Goal, count: int) -> Tensor:
    """The ``count`` labels of largest logits but for the true one, (n, count)."""
    found = goal.label.new_empty(len(x), count)
    for rows in batch.groups(x):
        others = model(x[rows]).scatter(1, goal.label[rows, None], -torch.inf)
        found[rows] = others.argsort(dim=1, descending=True, stable=True)[:, :count]
    return found
