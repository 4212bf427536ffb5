"""One epoch of standard or adversarial training; nothing here is random but by the generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from robustlib.attacks import pgd
from robustlib.training.recipes import Recipe


def epoch(
    net: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    recipe: Recipe,
    number: int,
    generator: Generator,
) -> dict[str, float]:
    """Train ``net`` for epoch ``number`` (from 1) and return its mean loss and accuracy.

    The loss is that of Madry et al. (2018), equation 2.1: the mean over the batch of
    max over ‖δ‖∞ ≤ eps of the cross-entropy at x + δ; plus ``l1`` · ‖W‖₁.
    """
    eps = recipe.eps * min(1.0, number / max(1, recipe.ramp))
    order = torch.randperm(len(x), generator=generator)
    steps = order.split(recipe.batch)
    weights = [p for p in net.parameters() if p.ndim > 1]
    loss_sum = correct = 0.0
    for step, rows in enumerate(steps):
        done = (number - 1 + step / len(steps)) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - done)
        inputs, targets = worst(net, x[rows], y[rows], eps, recipe, generator), y[rows]
        logits = net(inputs)
        loss = F.cross_entropy(logits, targets)
        penalty = recipe.l1 * torch.stack([w.abs().sum() for w in weights]).sum()
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        loss_sum += float(loss.detach()) * len(rows)
        correct += int((logits.argmax(1) == targets).sum())
    return {"eps": eps, "loss": loss_sum / len(x), "train_accuracy": correct / len(x)}


def worst(
    net: nn.Sequential, x: Tensor, y: Tensor, eps: float, recipe: Recipe, generator: Generator
) -> Tensor:
    """The inner maximum, approximated by PGD from a random start; ``x`` itself at radius 0."""
    if eps == 0:
        return x
    return pgd(
        net,
        x,
        y,
        eps=eps,
        steps=recipe.attack_steps,
        step_size=2.5 * eps / recipe.attack_steps,
        early_stop=False,
        generator=generator,
    ).detach()


def accuracy(net: nn.Sequential, x: Tensor, y: Tensor) -> float:
    """Fraction of ``x`` that ``net`` labels as ``y``."""
    with torch.no_grad():
        logits = torch.cat([net(part) for part in x.split(500)])
    return float((logits.argmax(1) == y).double().mean())
