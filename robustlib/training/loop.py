"""One epoch of training by any method; nothing here is random but by the generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from robustlib.training.inputs import LowPrecision, attacked, augmented, noisy
from robustlib.training.provable import margin_bounds, robust_cross_entropy
from robustlib.training.recipe import Recipe
from robustlib.training.schedules import grown, radius, rate

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

    The loss is the cross-entropy, plus ``l1`` · ‖W‖₁: at the inputs themselves, with their noise;
    or, by Madry et al. (2018), equation 2.1, at their worst points in the ball, with a share
    ``clean`` of the clean loss; or, by Zhang et al. (2020), eq. 12, κ of the clean loss and 1 − κ
    of its upper bound over the ball. The accuracy is that of the logits at which the loss was
    taken: attacked ones for the adversarial method, clean ones for the provable method.
    """
    model = LowPrecision(net) if recipe.precision == "bfloat16" else net
    sources = recipe.models()
    order = torch.randperm(len(x), generator=generator)
    steps = order.split(recipe.batch)
    weights = [p for p in net.parameters() if p.ndim > 1]
    loss_sum = correct = 0.0
    for step, rows in enumerate(steps):
        done = number - 1 + step / len(steps)  # epochs
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, done)
        plain, targets = augmented(x[rows], recipe, generator), y[rows]
        inputs = noisy(plain, recipe, generator)
        if recipe.method == "adversarial":
            eps = radius(recipe, number)
            inputs = attacked(model, plain, targets, eps, recipe, generator, sources)
        logits = model(inputs)
        loss = F.cross_entropy(logits, targets)
        if recipe.clean:
            loss = torch.lerp(loss, F.cross_entropy(model(plain), targets), recipe.clean)
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
