"""What an attack wants: the margin that tells success, and the loss that it climbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlib.attacks.speed import FewChannels

LOSSES = ("ce", "margin")
ROUNDING = 64  # units in the last place, of the largest logit


@dataclass(frozen=True)
class Goal:
    """Move away from ``label`` (``sign`` +1) or toward it (``sign`` −1).

    The margin is logit[label] − max of the others, times ``sign``: the attack has succeeded where
    it is negative.
    """

    label: Tensor
    sign: int
    loss: str = "ce"

    def take(self, rows: Tensor) -> Goal:
        return Goal(self.label[rows], self.sign, self.loss)

    def repeated(self, times: int) -> Goal:
        """Each image's goal, ``times`` in a row."""
        return Goal(self.label.repeat_interleave(times), self.sign, self.loss)

    def margin(self, logits: Tensor) -> Tensor:
        """Margins (n,) of logits (n, classes)."""
        index = self.label[:, None]
        own = logits.gather(1, index)[:, 0]
        return self.sign * (own - logits.scatter(1, index, -torch.inf).amax(1))

    def won(self, logits: Tensor) -> Tensor:
        """Whether the margins (n,) are negative by more than another order of sums changes."""
        size = logits.abs().amax(1)
        return self.margin(logits) < -ROUNDING * torch.finfo(logits.dtype).eps * size

    def value(self, logits: Tensor) -> Tensor:
        """The loss (n,) that is climbed."""
        if self.loss == "ce":
            return self.sign * F.cross_entropy(logits, self.label, reduction="none")
        return -self.margin(logits)

    def gradient(self, model: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        """Margins at ``z`` and the gradient of the loss with respect to ``z`` alone.

        The loss is a sum over the batch, so the gradient of one image does not know the others.
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            with FewChannels():
                logits = model(z)
            (gradient,) = torch.autograd.grad(self.value(logits).sum(), z)
        return self.margin(logits.detach()), gradient
