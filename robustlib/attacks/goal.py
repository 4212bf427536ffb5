"""What an attack wants: the margin that tells success, and the loss that it climbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlib.attacks.speed import FewChannels

LOSSES = ("ce", "margin")


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

    def margin(self, logits: Tensor) -> Tensor:
        """Margins (n,) of logits (n, classes)."""
        index = self.label[:, None]
        own = logits.gather(1, index)[:, 0]
        return self.sign * (own - logits.scatter(1, index, -torch.inf).amax(1))

    def gradient(self, model: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        """Margins at ``z`` and the gradient of the loss with respect to ``z`` alone.

        The loss is a sum over the batch, so the gradient of one image does not know the others.
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            with FewChannels():
                logits = model(z)
            if self.loss == "ce":
                loss = self.sign * F.cross_entropy(logits, self.label, reduction="sum")
            else:
                loss = -self.margin(logits).sum()
            (gradient,) = torch.autograd.grad(loss, z)
        return self.margin(logits.detach()), gradient
