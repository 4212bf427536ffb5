"""What every attack checks before it starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks.balls import BALLS
from robustlib.attacks.goal import Goal


def classes_of(
    model: nn.Module, x: Tensor, bounds: tuple[float, float], argument: str = "x"
) -> int:
    """Refuse a bad model, bad inputs or a bad box by name; return the number of classes."""
    checks.eval_mode(model)
    bounds = checks.box(bounds)
    checks.images(x.detach() if isinstance(x, Tensor) else x, argument, bounds=bounds)
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != weight.dtype:
        raise TypeError(
            f"{argument} has dtype {x.dtype}, the model's parameters {weight.dtype}; both must be "
            "torch.float32 or both torch.float64."
        )
    try:
        with torch.no_grad():
            logits = model(x[:1])
    except RuntimeError as error:
        raise ValueError(
            f"{argument} has shape {tuple(x.shape)}, which the model refuses: {error}"
        ) from error
    if logits.ndim != 2 or len(logits) != len(x[:1]) or logits.shape[1] < 2:
        raise ValueError(
            f"model gives shape {tuple(logits.shape)} for one input; expected logits (1, classes) "
            "with at least two classes."
        )
    if not torch.isfinite(logits).all():
        raise ValueError("model gives NaN or infinite logits; give a model with finite parameters.")
    return int(logits.shape[1])


def radius(eps: float, norm: str) -> float:
    """The radius, for a norm that is known."""
    checks.choice("norm", norm, BALLS)
    return checks.eps(eps)


def goal_of(y: Tensor, targets: Tensor | None, n: int, classes: int, loss: str = "ce") -> Goal:
    """Away from ``y``, or with ``targets`` toward them."""
    y = checks.labels(y, n, classes)
    if targets is None:
        return Goal(y, 1, loss)
    targets = checks.labels(targets, n, classes, "targets")
    if bool((targets == y).any()):
        raise ValueError("targets equals y for some images; give a label other than the true one.")
    return Goal(targets, -1, loss)


def pictures(x: Tensor, argument: str = "x") -> Tensor:
    """Inputs of shape (n, channels, height, width)."""
    if x.ndim != 4:
        raise ValueError(
            f"{argument} has shape {tuple(x.shape)}; this attack needs images, "
            "(n, channels, height, width)."
        )
    return x
