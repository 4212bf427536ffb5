"""Transfer: adversarial examples crafted on one model, judged by others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import batch, checked
from robustlib.attacks.success import fooled

Judge = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Transfer:
    """What adversarial examples of one model do to others.

    Attributes
    ----------
    points : like x, what the attack made on the source.
    source : (n,) bool, where the source labels x rightly and the point wrongly (or as its target).
    judges : for each judge (n,) bool, the same of the judge.
    right : for each judge (n,) bool, where it labels x rightly.
    """

    points: Tensor
    source: Tensor
    judges: dict[str, Tensor]
    right: dict[str, Tensor]

    def rate(self, judge: str) -> float:
        """The share fooling ``judge`` of what fools the source and was right with both before.

        nan where there is nothing to count.
        """
        checks.choice("judge", judge, self.judges)
        counted = self.source & self.right[judge]
        return float((self.judges[judge] & counted).sum() / counted.sum())


def transfer(
    source: nn.Module,
    judges: Mapping[str, Judge],
    x: Tensor,
    y: Tensor,
    *,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor],
    targets: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Transfer:
    """Craft on ``source`` and judge by the ``judges``: an attack on models that are not known.

    Parameters
    ----------
    source : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode.
    judges : mapping from names to functions
        Each maps (n, …) to logits (n, classes) or to integer labels (n,): networks in evaluation
        mode, or ``lambda x: torch.from_numpy(tree.predict(x.flatten(1).numpy()))``.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    attack : function
        Called as ``attack(source, x, y)``, such as ``functools.partial(pgd, eps=0.1)``; returns
        the points.
    targets : Tensor (n,), integers, optional
        Labels that the attack goes for, none equal to the true one; then only they count.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Transfer

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> from functools import partial
    >>> from robustlib.attacks import fgsm
    >>> source, other = nn.Linear(2, 2).eval(), nn.Linear(2, 2).eval()
    >>> source.weight.data, other.weight.data = torch.eye(2), 3 * torch.eye(2)
    >>> source.bias.data = other.bias.data = torch.zeros(2)
    >>> x, y = torch.tensor([[0.6, 0.5], [0.9, 0.1]]), torch.tensor([0, 0])
    >>> found = transfer(source, {"other": other}, x, y, attack=partial(fgsm, eps=0.1))
    >>> found.source.tolist(), found.rate("other")
    ([True, False], 1.0)
    """
    classes = checked.classes_of(source, x, bounds, "x")
    checked.goal_of(y, targets, len(x), classes)
    for name, judge in judges.items():
        if isinstance(judge, nn.Module):
            checks.eval_mode(judge, f"judges[{name!r}]")
    points = attack(source, x, y)
    if not isinstance(points, Tensor) or points.shape != x.shape:
        kind = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"attack gives {kind}; it must return points of shape {tuple(x.shape)}.")
    before = ~fooled(source, x, y, bounds=bounds)
    made = before & fooled(source, points, y, targets=targets, bounds=bounds)
    right, wrong = {}, {}
    for name, judge in judges.items():
        right[name] = labels(judge, x, name) == y
        found = labels(judge, points, name)
        reached = found != y if targets is None else found == targets
        wrong[name] = right[name] & reached
    return Transfer(points, made, wrong, right)


@torch.no_grad()
def labels(judge: Judge, x: Tensor, name: str) -> Tensor:
    """The judge's labels (n,)."""
    parts = [judge(x[rows]) for rows in batch.groups(x)]
    for part, rows in zip(parts, batch.groups(x), strict=True):
        if len(part) != len(rows) or part.ndim > 2 or (part.ndim == 1 and part.is_floating_point()):
            raise ValueError(
                f"judges[{name!r}] gives shape {tuple(part.shape)} and {part.dtype} for "
                f"{len(rows)} inputs; expected logits (n, classes) or integer labels (n,)."
            )
    found = [part.argmax(1) if part.ndim == 2 else part.long() for part in parts]
    return torch.cat([*found, torch.zeros(0, dtype=torch.long, device=x.device)])
