"""Adam on a batch of independent problems: every coordinate moves by its own history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DECAY_1, DECAY_2, TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Adam:
    """The moving averages of gradients and of their squares (Kingma and Ba 2015)."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def start(cls, z: Tensor) -> Adam:
        return cls(torch.zeros_like(z), torch.zeros_like(z))

    def step(self, gradient: Tensor, rate: float) -> tuple[Tensor, Adam]:
        """What to add to the point, to descend; and the averages with this gradient in them.

        >>> move, _ = Adam.start(torch.zeros(2)).step(torch.tensor([3.0, -0.2]), 0.1)
        >>> move
        tensor([-0.1000,  0.1000])
        """
        new = Adam(
            DECAY_1 * self.mean + (1 - DECAY_1) * gradient,
            DECAY_2 * self.square + (1 - DECAY_2) * gradient**2,
            self.steps + 1,
        )
        mean = new.mean / (1 - DECAY_1**new.steps)
        square = new.square / (1 - DECAY_2**new.steps)
        return -rate * mean / (square.sqrt() + TINY), new
