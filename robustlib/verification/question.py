"""One input's question, and the bounds that its stages share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from robustlib.bounds import Box, inner_ball, network_bounds, outer_ball, rows_lower_bound
from robustlib.network import Network, margin_rows
from robustlib.verification.witness import Witness, strict_witness


@dataclass(frozen=True, eq=False)
class Question:
    """Is there another label than ``label`` within ``eps`` of ``x`` and inside ``bounds``?"""

    module: nn.Module
    network: Network
    x: Tensor
    label: int
    eps: float
    bounds: tuple[float, float]

    @cached_property
    def center(self) -> np.ndarray:
        """x as a flat float64 array."""
        return self.x.detach().cpu().double().reshape(-1).numpy()

    @cached_property
    def box(self) -> Box:
        return outer_ball(self.center, self.eps, self.bounds)

    @cached_property
    def boxes(self) -> list[Box]:
        return network_bounds(self.network, self.box)

    @cached_property
    def finite(self) -> bool:
        """Whether no bound overflowed: an encoding needs them all."""
        return all(np.isfinite([*box.lower, *box.upper]).all() for box in self.boxes)

    @cached_property
    def targets(self) -> list[int]:
        return [j for j in range(self.network.classes) if j != self.label]

    def crown_margins(self) -> np.ndarray:
        """Safe lower bounds of the margins over the ball, one for each of ``targets``."""
        rows = margin_rows(self.label, self.network.classes)
        return rows_lower_bound(self.network, self.boxes, self.box, rows)

    def check(self, candidate: np.ndarray) -> Witness | None:
        """The candidate as a strict witness, or None."""
        ball = inner_ball(self.center, self.eps, self.bounds)
        return strict_witness(self.module, self.network, candidate, ball, self.label, self.x)
