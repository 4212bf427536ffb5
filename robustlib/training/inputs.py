"""What one step of training is shown: augmented, noisy or attacked inputs, by a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from robustlib.attacks import fgsm, pgd, r_fgsm
from robustlib.training.recipe import Recipe


class LowPrecision(nn.Module):
    """A network whose products are computed in bfloat16; its logits are float32 again.

    Images go through it with their channels last in memory, which convolutions are faster with.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.net(x)
        return logits.float()


def augmented(x: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """Images turned left to right and shifted, each by its own draw; ``x`` itself if neither."""
    if recipe.mirror:
        turned = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(turned[:, None, None, None], x.flip(-1), x)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (len(x), 2), generator=generator)
        x = shifted(x, moves)
    return x


def shifted(x: Tensor, moves: Tensor) -> Tensor:
    """Each image (n, C, H, W) moved down and right by its row of ``moves`` (n, 2).

    Examples
    --------
    >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> shifted(x, torch.tensor([[0, 1]])).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    reach = int(moves.abs().max())
    wide = nn.functional.pad(x, [reach] * 4)
    down, right = (reach - moves).unbind(1)
    rows = down[:, None] + torch.arange(x.shape[2])
    columns = right[:, None] + torch.arange(x.shape[3])
    image = torch.arange(len(x))[:, None, None]
    # Advanced indices around a slice: its dimension, the channels, comes last.
    return wide[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def noisy(x: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """``x`` with Gaussian noise of standard deviation ``recipe.noise``."""
    if not recipe.noise:
        return x
    return x + recipe.noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def attacked(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    recipe: Recipe,
    generator: Generator,
    sources: Sequence[nn.Module] = (),
) -> Tensor:
    """The recipe's attack on ``net``, or on one of ``sources``; ``x`` itself at radius 0."""
    if eps == 0:
        return x
    if sources:
        drawn = int(torch.randint(len(sources) + 1, (), generator=generator))
        net = (net, *sources)[drawn]
    if recipe.attack == "fgsm":
        return fgsm(net, x, y, eps=eps)
    if recipe.attack == "r_fgsm":
        return r_fgsm(net, x, y, eps=eps, generator=generator)
    return pgd(
        net,
        x,
        y,
        eps=eps,
        steps=recipe.attack_steps,
        step_size=2.5 * eps / recipe.attack_steps,
        early_stop=False,
        generator=generator,
    )
