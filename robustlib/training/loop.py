"""One epoch of training by any method; nothing here is random but by the generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from robustlib.attacks import pgd
from robustlib.training.provable import margin_bounds, robust_cross_entropy
from robustlib.training.recipes import Recipe

LARGEST_GRADIENT = 8.0  # l2, of the provable method: its loss is steep where the radius grows


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

    The loss is the cross-entropy, plus ``l1`` · ‖W‖₁: at the inputs themselves; or, by Madry et al.
    (2018), equation 2.1, at their worst points in the ball; or, by Zhang et al. (2020), eq. 12,
    κ of the clean loss and 1 − κ of its upper bound over the ball. The accuracy is that of the
    logits at which the loss was taken, at clean inputs for the provable method.
    """
    order = torch.randperm(len(x), generator=generator)
    steps = order.split(recipe.batch)
    weights = [p for p in net.parameters() if p.ndim > 1]
    loss_sum = correct = 0.0
    for step, rows in enumerate(steps):
        done = number - 1 + step / len(steps)  # epochs
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, done)
        inputs, targets = x[rows], y[rows]
        if recipe.mirror:
            turned = torch.rand(len(rows), generator=generator) < 0.5
            inputs = torch.where(turned[:, None, None, None], inputs.flip(-1), inputs)
        if recipe.method == "adversarial":
            inputs = worst(net, inputs, targets, radius(recipe, number), recipe, generator)
        logits = net(inputs)
        loss = F.cross_entropy(logits, targets)
        if recipe.method == "provable":
            loss = provable_loss(net, inputs, targets, loss, recipe, done)
        penalty = recipe.l1 * torch.stack([w.abs().sum() for w in weights]).sum()
        optimizer.zero_grad()
        (loss + penalty).backward()
        if recipe.method == "provable":
            nn.utils.clip_grad_norm_(net.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        loss_sum += float(loss.detach()) * len(rows)
        correct += int((logits.argmax(1) == targets).sum())
    return {
        "eps": radius(recipe, number),
        "loss": loss_sum / len(x),
        "train_accuracy": correct / len(x),
    }


def rate(recipe: Recipe, done: float) -> float:
    """The learning rate after ``done`` epochs: up in ``warm_up`` epochs, then down to zero."""
    if done < recipe.warm_up:
        return recipe.learning_rate * done / recipe.warm_up
    return recipe.learning_rate * (
        1 - (done - recipe.warm_up) / max(1, recipe.epochs - recipe.warm_up)
    )


def grown(recipe: Recipe, done: float) -> float:
    """The share of the ramp that lies behind, after ``done`` epochs."""
    return min(1.0, max(0.0, done - recipe.warm_up) / max(1, recipe.ramp))


def radius(recipe: Recipe, done: float) -> float:
    """The radius of the ball after ``done`` epochs."""
    return recipe.eps * grown(recipe, done)


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


def provable_loss(
    net: nn.Sequential, x: Tensor, y: Tensor, clean: Tensor, recipe: Recipe, done: float
) -> Tensor:
    """κ ``clean`` + (1 − κ) the worst cross-entropy that the bounds allow."""
    eps, share = radius(recipe, done), grown(recipe, done)
    kappa, beta = (a + share * (b - a) for a, b in (recipe.kappa, recipe.beta))
    if eps == 0 or kappa == 1:
        return clean
    margins = margin_bounds(net, x, y, eps=eps, crown=beta, crown_targets=recipe.crown_targets)
    return kappa * clean + (1 - kappa) * robust_cross_entropy(margins)


def accuracy(net: nn.Sequential, x: Tensor, y: Tensor) -> float:
    """Fraction of ``x`` that ``net`` labels as ``y``."""
    with torch.no_grad():
        logits = torch.cat([net(part) for part in x.split(500)])
    return float((logits.argmax(1) == y).double().mean())


def certified(net: nn.Sequential, x: Tensor, y: Tensor, *, eps: float, crown: float) -> Tensor:
    """Whether the bounds show every input of the ball to be labeled ``y``, (n,) truth values."""
    with torch.no_grad():
        parts = zip(x.split(100), y.split(100), strict=True)
        lowest = [margin_bounds(net, a, b, eps=eps, crown=crown).amin(1) for a, b in parts]
    return torch.cat([*lowest, x.new_empty(0)]) > 0
